"""Which folders of the family's members a config takes (docs/family.md)."""

from ml_collections import ConfigDict

from eve_jax.data.image.size_rules import GEMMA, HUNDRED, NEO, SAIL
from eve_jax.errors import UserError
from eve_jax.hf.family import SWITCHES

MEMBERS = {NEO: "NEO", SAIL: "SAIL", HUNDRED: "the $100 model", GEMMA: "Gemma 4 Unified"}
CONFIGS = {NEO: "neo_pt, neo_mt and neo_sft", SAIL: "sail_sft", HUNDRED: "hundred", GEMMA: "gemma4_sft"}


def is_member(c: ConfigDict, kind: str) -> bool:
    """True if the sizes in `c` are those of a folder, or name, of the member `kind`, not of a plain LLM."""
    return c.model.patch_embed == SWITCHES[kind]["patch_embed"]


def refuse_others(c: ConfigDict, name: str, kind: str = "") -> None:
    """Raise UserError if the LLM of `c` is a member of the family, but not `kind`, which the config `name` trains."""
    for other, what in MEMBERS.items():
        if other != kind and is_member(c, other):
            own = ", or its own folder" if kind == HUNDRED else f", or {MEMBERS[kind]}'s folder" if kind else ""
            trains = f"; what trains {what}: {CONFIGS[other]}"
            raise UserError(f"llm={c.model.llm} is {what}: {name} takes a plain LLM{own}{trains}")
