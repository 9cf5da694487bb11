"""Which folders of the family's members a config takes (docs/family.md)."""

from ml_collections import ConfigDict

from eve_jax.data.image.size_rules import HUNDRED
from eve_jax.errors import UserError
from eve_jax.hf.family import MEMBERS, TRAINED_BY, member_of


def is_member(c: ConfigDict, kind: str) -> bool:
    """True if the sizes in `c` are those of a folder, or name, of the member `kind`, not of a plain LLM."""
    return member_of(c.model) == kind


def refuse_others(c: ConfigDict, name: str, kind: str = "") -> None:
    """Raise UserError if the LLM of `c` is a member of the family, but not `kind`, which the config `name` trains."""
    other = member_of(c.model)
    if other not in ("", kind):
        own = ", or its own folder" if kind == HUNDRED else f", or {MEMBERS[kind]}'s folder" if kind else ""
        taken, trains = f"{name} takes a plain LLM{own}", f"what trains {MEMBERS[other]}: {TRAINED_BY[other]}"
        raise UserError(f"llm={c.model.llm} is {MEMBERS[other]}: {taken}; {trains}")
