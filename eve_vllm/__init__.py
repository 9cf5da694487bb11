"""The vLLM plugin for EVEv2: models exported by `launch.convert export`, with images (docs/vllm.md).

configuration_eve.py, inputs_eve.py, modules_eve.py and rotary_eve.py are links to the files that every export carries.
"""

ARCHITECTURES = ("EveForCausalLM", "EveLlamaForCausalLM")


def register() -> None:
    """Tell vLLM and `transformers` of EVEv2; vLLM calls it in each of its processes, perhaps more than once."""
    from transformers import AutoConfig
    from vllm import ModelRegistry

    from .config import ServedEveConfig, ServedEveLlamaConfig

    for config in (ServedEveConfig, ServedEveLlamaConfig):
        AutoConfig.register(config.model_type, config, exist_ok=True)
    for name in ARCHITECTURES:
        ModelRegistry.register_model(name, "eve_vllm.model:EveForCausalLM")
