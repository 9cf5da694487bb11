"""EVEv2 and EVEv1 in PyTorch, what an exported checkpoint carries (`trust_remote_code=True`).

    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    pixels = model.preprocess(PIL.Image.open("a.png"))                 # [3, H, W], sides are multiples of a patch's
    model(input_ids, images=[pixels], labels=labels).loss              # -200 in input_ids stands for one image
    model.generate(input_ids, images=[pixels], max_new_tokens=64)      # with images: the new tokens alone

`images` lists the images in the order of their -200s, row by row. A row may hold any number of them, or none. With
images the sequence is longer than `input_ids`: each -200 becomes 1 + h * (w + 1) tokens, for which logits are returned
too. Parameters carry the names of the releases (arXiv 2502.06788, 2406.11832).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from .configuration_eve import EveConfig, EveLlamaConfig, EveSwitchedConfig, EveV1Config
from .inputs_eve import IMAGE_ID, resized, text_ids
from .modules_eve import EveModel, EveQuantizedLinear, EveRMSNorm, quantized
from .vision_v1_eve import EveV1Model

IGNORE = -100
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


class EveForCausalLM(PreTrainedModel, GenerationMixin):
    """EVEv2 with its language-model head."""

    config_class: type[EveConfig] = EveConfig
    model_class: type[EveModel] = EveModel
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = ("EveLayer",)
    _supports_sdpa = True
    _supports_cache_class = True
    _tied_weights_keys: dict[str, str] | None = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: EveConfig):
        super().__init__(config)
        self.model = self.model_class(config)
        sizes = config.hidden_size, config.vocab_size
        if not quantized(config):
            self.lm_head = nn.Linear(*sizes, bias=False)
        elif config.tie_word_embeddings:
            self.lm_head, self._tied_weights_keys = self.model.embed_tokens.compare, None
        else:
            self.lm_head = EveQuantizedLinear(*sizes, False, "int8")
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if isinstance(module, nn.Linear | nn.Embedding | nn.Conv2d):
            module.weight.data.normal_(0.0, std)
            if getattr(module, "bias", None) is not None:
                module.bias.data.zero_()
        elif isinstance(module, EveRMSNorm):
            module.weight.data.fill_(1.0 - module.plus_one)
        elif hasattr(module, "class_embedding"):
            module.class_embedding.data.normal_(0.0, std)
            module.split_embedding.data.normal_(0.0, std)

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.embed_tokens = value

    def get_output_embeddings(self) -> nn.Module | None:
        return self.lm_head if isinstance(self.lm_head, nn.Module) else None

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.lm_head = value

    def embed(
        self,
        input_ids: Tensor,
        images: list[Tensor] | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        pad_left: bool = False,
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """Embeddings [B, L, D] with each -200 replaced by its image's tokens; is_vision, attention mask, labels."""
        count = int((input_ids == IMAGE_ID).sum())
        if count != len(images or []):
            raise ValueError(f"input_ids name {count} images, {len(images or [])} are given")
        if count == 0:
            return self.model.embed_tokens(input_ids), None, attention_mask, labels
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if labels is None:
            labels = torch.full_like(input_ids, IGNORE)
        left = iter(images or [])
        rows = [
            self._embed_row(ids[real], targets[real], lambda: self.model.image_tokens(next(left)))
            for ids, targets, real in zip(input_ids, labels, attention_mask.bool(), strict=True)
        ]
        longest = max(len(row[0]) for row in rows)

        def pad(values: list[Tensor], value: float) -> Tensor:
            wide = []
            for x in values:
                lack = longest - len(x)
                ends = (lack, 0) if pad_left else (0, lack)
                wide.append(F.pad(x, (0, 0, *ends) if x.ndim == 2 else ends, value=value))
            return torch.stack(wide)

        x, is_vision, targets = zip(*rows, strict=True)
        mask = pad([torch.ones_like(t) for t in targets], 0)
        return pad(list(x), 0.0), pad(list(is_vision), False), mask, pad(list(targets), IGNORE)

    def _embed_row(
        self, ids: Tensor, labels: Tensor, next_image: Callable[[], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings, is_vision and labels of one row without pads."""
        xs, vision, targets = [], [], []
        cuts = [-1, *(ids == IMAGE_ID).nonzero()[:, 0].tolist(), len(ids)]
        for i, (a, b) in enumerate(pairwise(cuts)):
            if i:
                tokens = next_image()
                xs.append(tokens)
                vision.append(torch.ones(len(tokens), dtype=torch.bool, device=ids.device))
                targets.append(torch.full((len(tokens),), IGNORE, device=ids.device))
            xs.append(self.model.embed_tokens(ids[a + 1 : b]))
            vision.append(torch.zeros(b - a - 1, dtype=torch.bool, device=ids.device))
            targets.append(labels[a + 1 : b])
        return torch.cat(xs), torch.cat(vision), torch.cat(targets)

    def forward(
        self,
        input_ids: Tensor | None = None,
        images: list[Tensor] | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        is_vision: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> Any:
        """Logits [B, L, vocabulary], and with `labels` [B, T] the mean loss over those that are not -100.

        Without labels, `logits_to_keep` > 0 asks for the logits of that many last positions alone.
        `num_items_in_batch` divides the summed loss in place of the number of targets (gradient accumulation).
        """
        wants_loss = labels is not None
        if inputs_embeds is None:
            assert input_ids is not None
            inputs_embeds, is_vision, attention_mask, labels = self.embed(input_ids, images, attention_mask, labels)
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        cache = past_key_values if use_cache else None
        x, states = self.model(inputs_embeds, is_vision, attention_mask, position_ids, cache)
        targets = labels if wants_loss else None
        logits = self.lm_head(x[:, -logits_to_keep:] if logits_to_keep and targets is None else x)
        loss = None
        if targets is not None:
            flat = logits[:, :-1].flatten(0, 1).float()
            total = F.cross_entropy(flat, targets[:, 1:].flatten(), ignore_index=IGNORE, reduction="sum")
            loss = total / kwargs.get("num_items_in_batch", (targets[:, 1:] != IGNORE).sum().clamp(min=1))
        hidden = (*states, x) if output_hidden_states else None
        out = CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=cache, hidden_states=hidden)
        return out.to_tuple() if return_dict is False else out

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        is_vision: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The prompt (ids, or embeddings with images) first, then the tokens that the cache does not hold."""
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        inputs: dict[str, Any] = {"input_ids": input_ids}
        if inputs_embeds is not None and past == 0:
            inputs = {"inputs_embeds": inputs_embeds, "is_vision": is_vision}
        elif past:
            new = attention_mask.shape[1] - past if attention_mask is not None else 1
            inputs = {"input_ids": input_ids[:, -new:]}
        use_cache = kwargs.get("use_cache", True)
        inputs |= {"past_key_values": past_key_values, "attention_mask": attention_mask, "use_cache": use_cache}
        return inputs | {"logits_to_keep": kwargs.get("logits_to_keep", 1)}

    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor | None = None,
        images: list[Tensor] | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """As `transformers` has it, with `images`; then the new tokens alone are returned, without the prompt."""
        input_ids = kwargs.pop("input_ids", inputs)
        if images:
            x, is_vision, mask, _ = self.embed(input_ids, images, attention_mask, pad_left=True)
            return super().generate(inputs_embeds=x, attention_mask=mask, is_vision=is_vision, **kwargs)
        return super().generate(inputs=input_ids, attention_mask=attention_mask, **kwargs)

    def preprocess(self, image: Any, max_size: int | None = None, fill: bool | None = None) -> Tensor:
        """A PIL image as normalized pixels [3, H, W], both sides multiples of 32, by the rule in config.json.

        `max_size` squared is the largest area. With `fill` the image is scaled to the full area, also up; else it is
        only shrunk, as in training.
        """
        rule = dict(getattr(self.config, "eve_jax", {}))
        rule["max_size"] = max_size or rule.get("max_size") or 800
        if fill is not None:
            rule["inference_fit"] = "fill" if fill else "shrink"
        image = image.convert("RGB")
        width, height = image.size
        return self._pixels(image, resized(width, height, rule))

    def prompt_ids(self, tokenizer: Any, messages: list[dict[str, Any]], n_images: int = 0) -> Tensor:
        """Ids [1, T] that ask for the next answer, with -200 for each of `n_images` images, by the chat template.

        `messages` have parts {"type": "image"} and {"type": "text", "text": ...}, or texts with `<image>` as content.
        """
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = text_ids(text, n_images, lambda piece: tokenizer(piece, add_special_tokens=False).input_ids)
        return torch.tensor([ids], device=self.device)

    @staticmethod
    def _pixels(image: Any, size: tuple[int, ...]) -> Tensor:
        import numpy as np

        pixels = torch.from_numpy(np.array(image.resize(size, 3))).float() / 255  # 3: bicubic
        mean, std = torch.tensor(PIXEL_MEAN), torch.tensor(PIXEL_STD)
        return ((pixels - mean) / std).permute(2, 0, 1)


class EveLlamaForCausalLM(EveForCausalLM):
    """EVEv2 on a LLaMA-3 backbone."""

    config_class = EveLlamaConfig


class EveSwitchedForCausalLM(EveForCausalLM):
    """EVEv2 on another base."""

    config_class = EveSwitchedConfig


class EveV1ForCausalLM(EveForCausalLM):
    """EVEv1. What it learned with, the aligning layer and CLIP, may be in its files and is not read."""

    config_class = EveV1Config
    model_class = EveV1Model
    _keys_to_ignore_on_load_unexpected = (r"vision_clip\.", r"vision_tower_compressor\.")

    def preprocess(self, image: Any, max_size: int | None = None, fill: bool | None = None) -> Tensor:
        """A PIL image as normalized pixels [3, H, W]: the longer side is `max_size`, the shorter rounded up to whole
        patches of CLIP's grid, on which training placed it. `fill` changes nothing."""
        ours = getattr(self.config, "eve_jax", {})
        target = max_size or ours.get("max_size") or 672
        side, patch = ours.get("teacher") or (336, 14)
        width, height = image.size
        short = math.ceil(side * min(width, height) / max(width, height) / patch) * patch * target // side
        size = (target, short) if width > height else (short, target)
        return self._pixels(image.convert("RGB"), size)
