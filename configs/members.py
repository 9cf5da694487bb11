"""Which folders of the family's members a config takes (docs/family.md)."""

from ml_collections import ConfigDict

from eve_jax.data.image.size_rules import HUNDRED
from eve_jax.errors import UserError
from eve_jax.hf.family import MEMBERS, SWITCHES, TRAINED_BY


def is_member(c: ConfigDict, kind: str) -> bool:
    """True if the sizes in `c` are those of a folder, or name, of the member `kind`, not of a plain LLM."""
    return c.model.patch_embed == SWITCHES[kind]["patch_embed"]


def refuse_others(c: ConfigDict, name: str, kind: str = "") -> None:
    """Raise UserError if the LLM of `c` is a member of the family, but not `kind`, which the config `name` trains."""
    for other, what in MEMBERS.items():
        if other != kind and is_member(c, other):
            own = ", or its own folder" if kind == HUNDRED else f", or {MEMBERS[kind]}'s folder" if kind else ""
            trains = f"; what trains {what}: {TRAINED_BY[other]}"
            raise UserError(f"llm={c.model.llm} is {what}: {name} takes a plain LLM{own}{trains}")
