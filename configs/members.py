"""Configs of members of the family: which folders they take, and what NEO's stages have in common (docs/family.md)."""

from ml_collections import ConfigDict

from configs import base
from eve_jax.data.image.size_rules import GEMMA, HUNDRED, NEO, NEO_AREA, SAIL
from eve_jax.errors import UserError
from eve_jax.hf.family import SWITCHES

MEMBERS = {NEO: "NEO", SAIL: "SAIL", HUNDRED: "the $100 model", GEMMA: "Gemma 4 Unified"}


def is_member(c: ConfigDict, kind: str) -> bool:
    """True if the sizes in `c` are those of a folder, or name, of the member `kind`, not of a plain LLM."""
    return c.model.patch_embed == SWITCHES[kind]["patch_embed"]


def refuse_others(c: ConfigDict, kind: str, name: str) -> None:
    """Raise UserError if the LLM of `c` is a member of the family, but not `kind`, which the config `name` trains."""
    for other, what in MEMBERS.items():
        if other != kind and is_member(c, other):
            own = f"{MEMBERS[kind]}'s" if kind != HUNDRED else "its own"
            raise UserError(f"llm={c.model.llm} is {what}: {name} takes a plain LLM, or {own} folder")


def get_neo_config(name: str, llm: str, extra: str = "") -> ConfigDict:
    """The defaults of NEO's stage `name`: from a plain LLM, with `extra` layers before its own, or from NEO's folder.

    extra: "" = 12 next to 28 layers and 6 next to 36, as published. Raise UserError for another member's folder.
    """
    c = base.get_config(llm, "dense")
    refuse_others(c, NEO, name)
    c.name, m = name, c.model
    if not is_member(c, NEO):
        found = extra or {28: "12", 36: "6"}.get(m.num_layers, "")
        if not found.isdecimal():
            raise UserError(f"extra={extra}: expected the number of layers before the {m.num_layers} of {m.llm}")
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
