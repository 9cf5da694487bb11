"""Configurations of EVEv2 in vLLM: those of the export, with a number for the tokens of images."""

from __future__ import annotations

from typing import Any

from .configuration_eve import EveConfig


class ServedEveConfig(EveConfig):
    """`vocab_size` is one more than the checkpoint's: `image_token_id`, the last number, stands for a vision token.

    A vocabulary of any size, padded or not, has so a number that no text has and that vLLM's buffers have room for.
    """

    def __init__(self, vocab_size: int = 152064, image_token_id: int | None = None, **kwargs: Any):
        if image_token_id is None:
            image_token_id, vocab_size = vocab_size, vocab_size + 1
        super().__init__(vocab_size=vocab_size, **kwargs)
        self.image_token_id = image_token_id


class ServedEveLlamaConfig(ServedEveConfig):
    """The same on a LLaMA-3 backbone, whose projections have no biases; its `add_moe` means gated deltas."""

    model_type = "eve-llama3"

    def __init__(self, attention_bias: bool = False, moe_part: str | None = None, **kwargs: Any):
        super().__init__(attention_bias=attention_bias, moe_part=moe_part, **kwargs)
