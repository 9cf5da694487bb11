"""Fields of config.json by which other bases differ are understood or refused by name."""

from typing import Any

import pytest

from tests.weights.test_hf_fields import DEFAULT, refused

BASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "Qwen3's window": ("qwen3", {"use_sliding_window": True}, "use_sliding_window is True"),
    "experts": ("qwen3", {"num_experts": 8}, "num_experts is 8"),
    "another activation": ("gemma3_text", {"hidden_activation": "silu"}, "hidden_activation is 'silu'"),
    "capped logits": ("gemma3_text", {"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0"),
    "later tokens": ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
    "another kind": ("gemma3_text", {"layer_types": ["full_attention", "chunked_attention"]}, "'chunked_attention' in"),
    "a kind too few": ("gemma3_text", {"layer_types": ["full_attention"]}, "one entry a layer"),
    "no window": ("gemma3_text", {"sliding_window": None}, "sliding_window=None: expected a whole number from 1"),
    "a window that no number holds": ("mistral", {"sliding_window": 2**31}, "sliding_window=2147483648: expected a"),
    "a list for a kind": ("gemma3_text", {"layer_types": [["x"], "full_attention"]}, "for ['x'] in layer_types"),
    "null for a kind": ("gemma3_text", {"layer_types": [None, "full_attention"]}, "asks for None in layer_types"),
    "nothing for a kind": ("gemma3_text", {"layer_types": ["", "full_attention"]}, "asks for '' in layer_types"),
    "layers beyond memory": (
        "mistral",
        {"num_hidden_layers": 2**31},
        "num_hidden_layers=2147483648: expected",
    ),
    "a list for a type": ("qwen3", {"rope_scaling": {"rope_type": [[]]}}, "rope_scaling of type [[]], which"),
    "kinds in kinds": (
        "qwen3",
        {"rope_parameters": {"full_attention": {"full_attention": DEFAULT}}},
        "rope_parameters.full_attention has no rope_theta",
    ),
    "scaled local layers": (
        "gemma3_text",
        {"rope_parameters": {"full_attention": DEFAULT, "sliding_attention": {"rope_type": "linear", "factor": 8.0}}},
        "rope_parameters.sliding_attention is scaled",
    ),
    "two local thetas": (
        "gemma3_text",
        {"rope_local_base_freq": 5e3, "rope_parameters": {"full_attention": DEFAULT, "sliding_attention": DEFAULT}},
        "rope_local_base_freq is 5000.0, but rope_parameters.sliding_attention.rope_theta is 1000000.0",
    ),
    "flat": ("gemma3_text", {"rope_parameters": DEFAULT}, "rope_parameters has no field 'full_attention'"),
    "kinds of Mistral": (
        "mistral",
        {"layer_types": ["sliding_attention", "full_attention"]},
        "layer_types is not what",
    ),
    "layers without": ("smollm3", {"no_rope_layers": [1]}, "no_rope_layers is not a list of 0 or 1 for each layer"),
    "every how many": ("smollm3", {"no_rope_layer_interval": 0}, "no_rope_layer_interval=0: expected a whole number"),
    "SmolLM3's window": ("smollm3", {"use_sliding_window": True, "sliding_window": 64}, "use_sliding_window is True"),
    "local base of another": ("qwen3", {"rope_local_base_freq": 1e4}, "rope_local_base_freq is 10000.0"),
}


@pytest.mark.parametrize("case", BASES)
def test_fields_of_other_bases_refused(case):
    kind, fields, message = BASES[case]
    refused(message, "llama", model_type=kind, **fields)
