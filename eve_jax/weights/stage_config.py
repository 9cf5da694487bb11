"""config.json of a stage folder, read so that nothing that an old or damaged file lacks is replaced by a default."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from eve_jax.checkpoint.stage_folder import CONFIG, read_config
from eve_jax.config.lora import stored_adapters
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.text.templates import get_template
from eve_jax.errors import UserError, name_fields
from eve_jax.hf.section import REQUIRED, check_kinds
from eve_jax.model.config import ModelConfig, ModelFields
from eve_jax.model.family_config import EVE_FIELDS
from eve_jax.model.llms import SWITCHES
from eve_jax.model.v1_config import V1_SWITCHES
from eve_jax.version import other_version

# Switches of the base LLM that version 0.1.0 does not have: its models have them as they are by default.
LATER_SWITCHES = {name: getattr(ModelFields, name) for name in SWITCHES if name not in ("rope_scaling", "qkv_bias")}
LATER_FAMILY = {name: value for name, value in EVE_FIELDS.items() if name != "patch_embed"}
# Fields of `ModelConfig` that version 0.1.0 does not write.
LATER = {
    "parts",
    "teacher",
    "encoder",
    "codes",
    "lora",
    "attention_blocks",
    *V1_SWITCHES,
    *LATER_SWITCHES,
    *LATER_FAMILY,
}
STORED = [field.name for field in fields(ModelConfig) if field.name not in LATER]


def stage_config(folder: Path) -> tuple[ModelConfig, dict[str, Any]]:
    """Return the sizes and the data settings of the model in a stage folder of ours.

    Raise UserError naming the file and the field that is missing or cannot be what it is.
    """
    config, file = read_config(folder), folder / CONFIG
    for section in ("model", "data"):
        if not isinstance(config.get(section), dict):
            raise UserError(f"{file}: {section} is {config.get(section)!r}: expected a section")
    model, data = config["model"], config["data"]
    note = other_version(config)
    missing = [f"model.{name}" for name in STORED if name not in model]
    missing += [f"data.{name}" for name in sorted(REQUIRED - data.keys())]
    if model.get("parts") is None and "variant" not in model:
        missing.append("model.variant")
    if missing:
        raise UserError(f"{file} has no field {missing[0]}; copy the file again from where the model was trained{note}")
    with name_fields(str, f"{file}: ", note):
        cfg = stored_adapters(ModelConfig.from_dict(model), config)
        check_kinds(data, "data")
        get_template(data["template"])
        ImageRule.of(data)
    return cfg, data
