"""The template of a model's own folder: the one of ours that writes what the folder's chat template writes.

chat_template.jinja, else `chat_template` of tokenizer_config.json -> rendered for some conversations, as
transformers renders it -> the first of TEMPLATES that writes the same texts; none is refused
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import date
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from eve_jax.data.record import Role, Turn
from eve_jax.data.text.added_tokens import CONFIG_FILE, MAP_FILE, read_settings
from eve_jax.data.text.encode import render
from eve_jax.data.text.load import load_tokenizer
from eve_jax.data.text.templates import OWN, TEMPLATES, Template, fitting_templates, get_template
from eve_jax.data.text.tokenizer import CHAT_FILE, Tokenizer
from eve_jax.errors import Field, FieldError, shorten

SAID: dict[Role, str] = {"system": "system", "human": "user", "gpt": "assistant"}
DAY = date(2024, 7, 26)  # for templates that tell the date, where ours tells none


class Probe(NamedTuple):
    """A conversation; with `ask` up to where its next answer begins."""

    turns: Sequence[Turn]
    ask: bool


_ASKED = Turn("human", "What is 1 < 2?"), Turn("gpt", "True."), Turn("human", "Sure?"), Turn("gpt", "Yes, 'sure'.")
_SPACED = Turn("human", " \n a \n"), Turn("gpt", "b \n"), Turn("human", "\tc"), Turn("gpt", " \n d ")
PROBES = (Probe(_ASKED[:1], True), Probe(_ASKED[:3], True), Probe(_ASKED[:2], False), Probe(_ASKED, False))
SPACED = (Probe(_SPACED[:1], True), Probe(_SPACED[:3], True), Probe(_SPACED, False))
WITH_SYSTEM = (Probe((Turn("system", "Be brief."), _ASKED[0]), True),)


class _Refused(Exception):
    """What a folder's template says by `raise_exception`."""


class _Generation(Extension):
    """The tag `generation` around answers, which marks them for transformers and writes nothing."""

    tags = {"generation"}  # noqa: RUF012 - as the class has it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def named_template(name: str, folder: str | Path) -> str:
    """Return `name`, or the template that "own" stands for in `folder`. Raises `UserError` as `own_template`."""
    return own_template(folder) if name == OWN else name


def own_template(folder: str | Path) -> str:
    """Return the name of the template that writes what the chat template in `folder` writes.

    Thoughts are off (`enable_thinking`), a date is that of ours. A folder whose template takes no system sentence is
    compared without one. Raises `UserError` where there is no template, where it cannot be rendered, and where none of
    ours writes the same; the message shows the first difference from the nearest.
    """
    path = Path(folder)
    text, file = _read(path)
    tokenizer = load_tokenizer(path)
    bos = "" if tokenizer.bos is None else tokenizer.decode([tokenizer.bos], skip_special=False)
    try:
        compiled = _environment().from_string(text)
    except jinja2.TemplateError as e:
        raise _problem(file, f"is not a Jinja template ({shorten(str(e), 200)})") from None
    tokens = _named_tokens(path, tokenizer)
    different: dict[str, tuple[float, str]] = {}  # how near the text of the first conversations is, and what differs
    # One with texts around images differs from others that write the same in what is a target: it comes first.
    for name in sorted(fitting_templates(tokenizer), key=lambda name: not any(get_template(name).image)):
        found = _difference(_writer(compiled, get_template(name), tokens), name, bos, file)
        if found is None:
            return name
        different[name] = found
    if not different:
        raise _problem(file, "no eve_jax template goes with the tokenizer next to it")
    nearest = max(different, key=lambda name: different[name][0])
    raise _problem(
        file, f"is not an eve_jax template: next to {nearest}, which is the nearest, {different[nearest][1]}"
    )


def _problem(file: str, what: str) -> FieldError:
    names = ", ".join(name for name, one in TEMPLATES.items() if not one.caption)
    return FieldError(f"{file}: {what}; set ", Field("data.template"), f" to one of {names}")


def _read(folder: Path) -> tuple[str, str]:
    """Return the chat template in a folder, and where it stands."""
    path = folder / CHAT_FILE
    if path.is_file():
        return path.read_text(encoding="utf-8", errors="replace"), str(path)
    given = read_settings(folder, CONFIG_FILE).get("chat_template")
    file = f"{folder / CONFIG_FILE}: chat_template"
    if isinstance(given, list):  # of several the one that is meant where none is named
        named = {one.get("name"): one.get("template") for one in given if isinstance(one, dict)}
        given = named.get("default")
    if isinstance(given, str) and given:
        return given, file
    raise _problem(str(folder), f"has no chat template of its own ({CHAT_FILE}, or chat_template in {CONFIG_FILE})")


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.globals["raise_exception"] = _refuse
    return environment


def _refuse(message: str) -> None:
    raise _Refused(message)


def _named_tokens(folder: Path, tokenizer: Tokenizer) -> dict[str, str]:
    """Return the special tokens that templates name (`bos_token` ...), as the files in a folder have them."""
    given = read_settings(folder, MAP_FILE) | read_settings(folder, CONFIG_FILE)
    found: dict[str, str] = {}
    for name in ("bos_token", "eos_token", "unk_token", "pad_token"):
        value = given.get(name)
        content = value.get("content") if isinstance(value, dict) else value
        if isinstance(content, str) and tokenizer.find(content) is not None:
            found[name] = content
    return found


def _writer(compiled: jinja2.Template, template: Template, tokens: dict[str, str]) -> Callable[[Probe], str]:
    """Return what renders a probe as transformers does, on the day of `template`."""
    day = date.fromisoformat(template.day) if template.day else DAY

    def written(probe: Probe) -> str:
        messages = [{"role": SAID[turn.role], "content": turn.text} for turn in probe.turns]
        values: dict[str, Any] = {"messages": messages, "tools": None, "documents": None, **tokens}
        values |= {"add_generation_prompt": probe.ask, "enable_thinking": False, "strftime_now": day.strftime}
        return compiled.render(**values)

    return written


def _difference(written: Callable[[Probe], str], name: str, bos: str, file: str) -> tuple[float, str] | None:
    """Return how near the template `name` is to what `written` writes, and the first difference; None for none."""
    end = get_template(name).answer_end
    for number, (probe, theirs) in enumerate(_rendered(written, file)):
        ours = bos + render(probe.turns, name, probe.ask)
        if theirs in (ours, ours if probe.ask else ours + end):
            continue
        at = next((n for n, pair in enumerate(zip(theirs, ours, strict=False)) if len({*pair}) > 1), len(ours))
        start = max(at - 30, 0)
        near = number + SequenceMatcher(None, theirs, ours, autojunk=False).ratio()
        return near, f"it writes {theirs[start : at + 60]!r} for {ours[start : at + 60]!r}"
    return None


def _rendered(written: Callable[[Probe], str], file: str) -> Iterator[tuple[Probe, str]]:
    for probe in (*PROBES, *SPACED, *WITH_SYSTEM):
        try:
            yield probe, written(probe)
        except _Refused as e:
            if probe not in WITH_SYSTEM:
                raise _problem(file, f"refuses a conversation ({shorten(str(e), 200)})") from None
        except Exception as e:  # whatever a text that is a program leads to
            raise _problem(file, f"cannot be rendered ({type(e).__name__}: {shorten(str(e), 200)})") from None
