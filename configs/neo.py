"""What NEO's stages have in common (docs/family.md#neo)."""

from ml_collections import ConfigDict

from configs import base, members
from eve_jax.data.image.size_rules import NEO, NEO_AREA
from eve_jax.errors import UserError
from eve_jax.hf.family import SWITCHES


def get_stage(name: str, llm: str, extra: str = "") -> ConfigDict:
    """The defaults of NEO's stage `name`: from a plain LLM, with `extra` layers before its own, or from NEO's folder.

    extra: "" = 12 next to 28 layers and 6 next to 36, as published. Raise UserError for another member's folder.
    """
    c = base.get_config(llm, "dense")
    members.refuse_others(c, name, NEO)
    c.name, m = name, c.model
    if not members.is_member(c, NEO):
        found = extra or {28: "12", 36: "6"}.get(m.num_layers, "")
        if not found.isdecimal():
            given = f"extra={extra}: expected" if extra else f"{name}:llm=... needs extra=,"
            known = "of the published models 12 before 28 layers, 6 before 36"
            raise UserError(f"{given} the number of new layers before the {m.num_layers} of {m.llm} ({known})")
        m.update(SWITCHES[NEO])
        m.extra_layers = int(found)
        m.num_layers += m.extra_layers
    elif extra:
        raise UserError(f"extra={extra}: {m.llm} is NEO already, with {m.extra_layers} extra layers")
    c.data.image_mode, c.data.template, c.data.max_aspect = NEO, NEO, 0.0
    c.data.area, m.longest_image = NEO_AREA, 4096
    c.data.rows = 64
    c.optim.b1, c.optim.b2, c.optim.weight_decay = 0.9, 0.95, 0.01
    c.optim.loss_weights = "sqrt"
    return c
