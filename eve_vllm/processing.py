"""Prompts and images of EVEv2 for vLLM: the ids of training, images resized by the export's rule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature
from vllm.config.multimodal import MultiModalDummyOptions
from vllm.inputs import MultiModalDataDict
from vllm.multimodal.inputs import MultiModalFieldConfig, MultiModalKwargsItems
from vllm.multimodal.parse import MultiModalDataItems
from vllm.multimodal.processing import BaseMultiModalProcessor, BaseProcessingInfo, PromptReplacement, PromptUpdate
from vllm.multimodal.processing.dummy_inputs import BaseDummyInputsBuilder
from vllm.multimodal.processing.processor import MultiModalProcessingResult, PlaceholderFeaturesInfo

from .inputs_eve import IMAGE_ID, MARKER, PATCH, image_tokens, largest_side, resized, text_ids

LONGEST = 100.0  # ratio of the sides up to which vLLM reserves room, for a rule without max_aspect
ASKED = ("max_size", "fit")  # what a request's mm_processor_kwargs may hold


class EveProcessingInfo(BaseProcessingInfo):
    """What vLLM asks about the images of a model."""

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {"image": None}

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        """An upper bound: with a = max_size / 32 and ratio r, sides are at most a / sqrt(r) + 1 and a sqrt(r) + 1."""
        rule = self.rule({})
        a, root = largest_side(rule) / PATCH, math.sqrt(rule.get("max_aspect") or LONGEST)
        return {"image": math.ceil(a * a + a * (2 * root + 1 / root) + 3)}

    def rule(self, asked: Mapping[str, object]) -> dict[str, Any]:
        """The image rule of the export, with the `max_size` and `fit` of a request. Raises ValueError for others."""
        rule = getattr(self.get_hf_config(), "eve_jax", None)
        if not rule:
            raise ValueError("config.json has no section eve_jax: import the model and export it with launch.convert")
        if unknown := sorted(asked.keys() - set(ASKED)):
            raise ValueError(f"mm_processor_kwargs: {unknown[0]} is not one of {', '.join(ASKED)}")
        own = largest_side(rule)
        size, fit = asked.get("max_size", own), asked.get("fit", rule.get("inference_fit"))
        if not isinstance(size, int) or isinstance(size, bool) or not PATCH <= size <= own:
            raise ValueError(f"mm_processor_kwargs: max_size is {size!r}: expected {PATCH} to {own} pixels")
        if fit not in ("fill", "shrink", None):
            raise ValueError(f"mm_processor_kwargs: fit is {fit!r}: expected fill or shrink")
        return {**rule, "max_size": size, "inference_fit": fit}


class EveDummyInputs(BaseDummyInputsBuilder[EveProcessingInfo]):
    """Inputs of the largest size, with which vLLM measures memory."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return MARKER * mm_counts.get("image", 0)

    def get_dummy_mm_data(
        self, seq_len: int, mm_counts: Mapping[str, int], mm_options: MultiModalDummyOptions
    ) -> MultiModalDataDict:
        side = largest_side(self.info.rule({}))
        return {"image": self._get_dummy_images(width=side, height=side, num_images=mm_counts.get("image", 0))}


class EveProcessor(BaseMultiModalProcessor[EveProcessingInfo]):
    """Resizes images and writes the prompt's ids; there is no processor of `transformers` behind it."""

    def _call_hf_processor(self, hf_data: Mapping[str, Any], hf_kwargs: Mapping[str, object]) -> BatchFeature:
        """`pixels` uint8 [sum of H W, 3] and `sizes` (H, W) int64 [images, 2]."""
        rule = self.info.rule(self.info.ctx.get_merged_mm_kwargs(hf_kwargs))
        pixels, sizes = [], []
        for image in hf_data.get("images", []):
            image = (image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))).convert("RGB")
            width, height = resized(*image.size, rule)
            pixels.append(np.array(image.resize((width, height), Image.Resampling.BICUBIC)).reshape(-1, 3))
            sizes.append((height, width))
        return BatchFeature({"pixels": torch.from_numpy(np.concatenate(pixels)), "sizes": torch.tensor(sizes)})

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        sizes = hf_inputs.get("sizes", torch.empty((0, 2), dtype=torch.int64))
        return {
            "pixels": MultiModalFieldConfig.flat_from_sizes("image", sizes.prod(-1)),
            "sizes": MultiModalFieldConfig.batched("image", keep_on_cpu=True),
        }

    def _get_prompt_updates(
        self,
        mm_items: MultiModalDataItems,
        hf_processor_mm_kwargs: Mapping[str, object],
        out_mm_kwargs: MultiModalKwargsItems,
    ) -> Sequence[PromptUpdate]:
        token = self.info.get_hf_config().image_token_id

        def tokens(item: int) -> list[int]:
            height, width = out_mm_kwargs["image"][item]["sizes"].data.tolist()
            return [token] * image_tokens(height, width)

        return [PromptReplacement(modality="image", target=[token], replacement=tokens)]

    def _maybe_apply_prompt_updates(
        self, mm_items: MultiModalDataItems, mm_res: MultiModalProcessingResult
    ) -> tuple[list[int], Mapping[str, list[PlaceholderFeaturesInfo]]]:
        """vLLM has encoded the prompt as one text: encode the texts between images apart, as training does."""
        tokenizer, token = self.info.get_tokenizer(), self.info.get_hf_config().image_token_id
        text = tokenizer.decode(mm_res.prompt_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        count = mm_items.get_count("image", strict=False)
        ids = text_ids(text, count, lambda piece: tokenizer.encode(piece, add_special_tokens=False))
        prompt = [token if id == IMAGE_ID else id for id in ids]
        return super()._maybe_apply_prompt_updates(mm_items, mm_res._replace(prompt_ids=prompt))
