"""EVEv2 as a model of vLLM."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vllm.config import VllmConfig
from vllm.config.compilation import CUDAGraphMode
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.models.interfaces import SupportsMultiModal
from vllm.model_executor.models.utils import AutoWeightsLoader, WeightsMapper, maybe_prefix
from vllm.multimodal import MULTIMODAL_REGISTRY

from .inputs_eve import MARKER
from .layers import EveLayer, Modality, normalized
from .modules_eve import EveVisionTower
from .processing import EveDummyInputs, EveProcessingInfo, EveProcessor


class EveModel(nn.Module):
    """Embeddings, decoder layers and final norm; parameters have the names of the export."""

    def __init__(self, vllm_config: VllmConfig, prefix: str):
        super().__init__()
        config = vllm_config.model_config.hf_config
        self.image_token_id = config.image_token_id
        self.embed_tokens = VocabParallelEmbedding(
            config.image_token_id, config.hidden_size, prefix=f"{prefix}.embed_tokens"
        )
        self.layers = nn.ModuleList(
            EveLayer(config, vllm_config, f"{prefix}.layers.{i}") for i in range(config.num_hidden_layers)
        )
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.vision_tower = EveVisionTower(config)

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        return self.embed_tokens(input_ids)

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        x = self.embed_input_ids(input_ids) if inputs_embeds is None else inputs_embeds
        tokens = Modality.of(input_ids, self.image_token_id)
        for layer in self.layers:
            x = layer(positions, x, tokens)
        return self.norm(x)


@MULTIMODAL_REGISTRY.register_processor(EveProcessor, info=EveProcessingInfo, dummy_inputs=EveDummyInputs)
class EveForCausalLM(nn.Module, SupportsMultiModal):
    """EVEv2 with its language-model head.

    Tokens are routed by their ids, so vLLM passes these along with the embeddings (`requires_raw_input_tokens`).
    """

    requires_raw_input_tokens = True
    packed_modules_mapping = {  # noqa: RUF012
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "moe_qkv_proj": ["moe_q_proj", "moe_k_proj", "moe_v_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }
    hf_to_vllm_mapper = WeightsMapper(
        orig_to_new_stacked={
            **{f".{moe}{x}_proj": (f".{moe}qkv_proj", x) for moe in ("", "moe_") for x in "qkv"},
            ".gate_proj": (".gate_up_proj", 0),
            ".up_proj": (".gate_up_proj", 1),
        }
    )

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = ""):
        super().__init__()
        config = vllm_config.model_config.hf_config
        _check(config, vllm_config)
        self.config = config
        self.configure_mm_token_handling(config.image_token_id, [config.image_token_id])
        self.model = EveModel(vllm_config, maybe_prefix(prefix, "model"))
        self.lm_head = ParallelLMHead(
            config.image_token_id,
            config.hidden_size,
            quant_config=vllm_config.quant_config,
            prefix=maybe_prefix(prefix, "lm_head"),
        )
        if config.tie_word_embeddings:
            self.lm_head = self.lm_head.tie_weights(self.model.embed_tokens)
        self.logits_processor = LogitsProcessor(config.image_token_id)

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        return MARKER if modality == "image" else None

    def get_language_model(self) -> nn.Module:
        return self.model

    def embed_multimodal(self, **kwargs: Any) -> list[Tensor]:
        """One [tokens, D] tensor an image: class token, then rows of patches, each ended by a split token."""
        if kwargs.get("pixels") is None:
            return []
        sizes = kwargs["sizes"].tolist()
        images = kwargs["pixels"].split([height * width for height, width in sizes])
        tower = self.model.vision_tower
        return [tower(normalized(x.view(*size, 3))) for x, size in zip(images, sizes, strict=True)]

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        return self.model(input_ids, positions, intermediate_tensors, inputs_embeds)

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """Logits [T, vocabulary + 1]; the number of vision tokens can never be drawn."""
        logits = self.logits_processor(self.lm_head, hidden_states)
        return None if logits is None else F.pad(logits, (0, 1), value=-torch.inf)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        return AutoWeightsLoader(self).load_weights(weights, mapper=self.hf_to_vllm_mapper)


def _check(config: Any, vllm_config: VllmConfig) -> None:
    """Raise ValueError for what this model does not do."""
    if config.gated_deltas:
        raise ValueError("the export has gated deltas (variant rep): export it again with --fold, which adds them in")
    if vllm_config.compilation_config.cudagraph_mode != CUDAGraphMode.NONE:
        raise ValueError("EVE routes tokens by their modality in each step, which CUDA graphs fix: add --enforce-eager")
