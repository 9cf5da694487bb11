"""Templates of today's models: what transformers renders, recognized in a folder, with the answers alone learned."""

import json
import random
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs import stage3
from eve_jax.config.stage import Config
from eve_jax.data.markers import count_markers, escape_markers
from eve_jax.data.record import BadRecord, Turn
from eve_jax.data.text.encode import IGNORE, continuation_ids, encode_chat, prompt_ids, render
from eve_jax.data.text.load import load_tokenizer
from eve_jax.data.text.own_template import own_template
from eve_jax.data.text.templates import TEMPLATES, get_template
from eve_jax.data.text.tokenizer import Tokenizer
from eve_jax.errors import UserError
from eve_jax.hf.chat_template import chat_template
from eve_jax.recipe import stage_of_recipe
from tests.data.chat_templates import CHAT_TEMPLATES, WITHOUT_SYSTEM, write_folder

SAID = {"system": "system", "human": "user", "gpt": "assistant"}
PIECES = ["a", "B\u00f6", " ", "\n", "\t", "'", "{{ x }}", "<image>", "USER: ", "\U0001f600", "\\", "/think"]


def conversation(rng: random.Random, system: bool) -> list[Turn]:
    """A conversation without images and empty texts that ends with an answer."""

    def text() -> str:
        return "".join(rng.choices(PIECES, k=rng.randrange(4))) + "x" + "".join(rng.choices(PIECES, k=rng.randrange(4)))

    turns = [Turn(role, text()) for _ in range(rng.randrange(1, 4)) for role in ("human", "gpt")]
    return [Turn("system", text().replace("/think", "").strip()), *turns] if system else turns


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_it_is_what_transformers_renders(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = pytest.importorskip("transformers")
    folder = write_folder(tmp_path, name, CHAT_TEMPLATES[name])
    theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), load_tokenizer(folder)
    template, rng = get_template(name), random.Random(0)
    clock = SimpleNamespace(now=lambda: datetime.fromisoformat(template.day or "2024-07-26"))
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", clock)

    def rendered(turns: list[Turn], ask: bool) -> Any:
        messages = [{"role": SAID[turn.role], "content": turn.text} for turn in turns]
        how = {"enable_thinking": False, "add_generation_prompt": ask}
        text = theirs.apply_chat_template(messages, tokenize=False, **how)
        return text, theirs(text, add_special_tokens=False).input_ids

    for number in range(60):
        # Where a last answer is, Mistral-7B-Instruct-v0.3 has no system sentence at all; ours is in the first question.
        system = number % 2 == 1 and (name != "mistral_v0.3")
        turns = conversation(rng, system)
        text, ids = rendered(turns, False)
        encoded = encode_chat(plain(turns), ours, name, 0)
        end = ours.encode(template.answer_end)
        assert [*encoded.ids.tolist(), *(end if text.endswith(template.end + template.answer_end) else [])] == ids
        learned = "".join(answers(turns, name))
        assert ours.decode(encoded.labels[encoded.labels != IGNORE], skip_special=False) == learned
        text, ids = rendered(turns[:-1], True)
        assert prompt_ids(plain(turns[:-1]), ours, name, 0).tolist() == ids
    text, _ = rendered([Turn("system", "Be brief."), Turn("human", "What?")], True)
    bos = "" if ours.bos is None else ours.decode([ours.bos], skip_special=False)
    assert text == bos + render([Turn("system", "Be brief."), Turn("human", "What?")], name, ask=True)


def plain(turns: list[Turn]) -> list[Turn]:
    """The turns as a record has them, where `<image>` in a question is escaped."""
    return [turn._replace(text=escape_markers(turn.text)) if turn.role == "human" else turn for turn in turns]


def answers(turns: list[Turn], name: str) -> list[str]:
    """What is learned of the turns, by hand."""
    template, found = get_template(name), []
    for number, turn in enumerate(turns, 1):
        text = turn.text.strip() if template.trim else turn.text
        if template.thought and (template.each_thought or number == len(turns)):
            text = text.lstrip("\n")
        found += [f"{template.answer_begin}{text}{template.end}"] if turn.role == "gpt" else []
    return found


@pytest.mark.parametrize("in_config", [False, True])
@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_a_folder_is_recognized(name: str, in_config: bool, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, name, CHAT_TEMPLATES[name], in_config)
    assert own_template(folder) == name
    load_tokenizer(folder).save(tmp_path / "stage")
    assert own_template(tmp_path / "stage") == name, "it travels along"
    c = stage3.get_config("llm=tiny")
    c.data.template, c.data.tokenizer = "own", str(folder)
    assert Config.of(c).data.template == name
    with c.unlocked():
        c.data.tokenizer = ""
    assert Config.of(c).data.template == "own", "of a later stage"
    assert stage_of_recipe(c, tmp_path, str(folder)).data.template == name


@pytest.mark.parametrize("name", [name for name, template in TEMPLATES.items() if not template.caption])
def test_an_export_is_recognized(name: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, name, "")
    special = [get_template(name).end, *get_template(name).tokens]
    tokenizer = load_tokenizer(folder)
    if any(tokenizer.find(token) is None for token in special):
        folder = write_folder(tmp_path, "gemma", "")
        fields = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps(fields | {"additional_special_tokens": special}))
        tokenizer = load_tokenizer(folder)
    bos = "" if tokenizer.bos is None else tokenizer.decode([tokenizer.bos], skip_special=False)
    (folder / "chat_template.jinja").write_text(chat_template(get_template(name), bos))
    # What is learned of a conversation, its form does not tell.
    assert own_template(folder) == ("qwen3" if get_template(name).learned else name)


def test_a_template_without_system_sentences(tmp_path: Path) -> None:
    for name, text in WITHOUT_SYSTEM.items():
        assert own_template(write_folder(tmp_path / name, name, text)) == name


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "has no chat template of its own (chat_template.jinja, or chat_template in tokenizer_config.json); set"),
        ("{% if %}", "is not a Jinja template ("),
        ("{{ messages.x.y }}", "cannot be rendered (UndefinedError:"),
        ("{{ raise_exception('no') }}", "refuses a conversation (no)"),
        (
            CHAT_TEMPLATES["qwen2.5"].replace("a helpful", "an odd"),
            "is not an eve_jax template: next to qwen2.5, which is the nearest, it writes",
        ),
        (
            CHAT_TEMPLATES["chatml"].replace("'\\n'", "' '", 1),
            "is not an eve_jax template: next to chatml, which is the nearest",
        ),
        ("{% for a in range(1000000) %}{% endfor %}", "cannot be rendered (OverflowError: Range too big."),
        ("{{ messages.__class__.__mro__ }}", "cannot be rendered (SecurityError:"),
    ],
)
def test_what_is_not_recognized(text: str | None, says: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "chatml", text or "")
    if text is None:
        (folder / "chat_template.jinja").unlink()
    with pytest.raises(UserError) as caught:
        own_template(folder)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "config.data.template to one of qwen2, llama3, v1, chatml" in str(caught.value)


def tokenizer_of(name: str, folder: Path) -> Tokenizer:
    return load_tokenizer(write_folder(folder, name, ""))


def test_thoughts_of_a_record(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("qwen3", tmp_path)
    thinking = [Turn("human", "What?"), Turn("gpt", "<think>\nHm.\n</think>\n\nA dot.")]
    for name in ("qwen3", "smollm3"):
        with pytest.raises(BadRecord, match=r"has thoughts \(</think>\), for which the template has an"):
            encode_chat(thinking, tokenizer, name, 0)
    labels = encode_chat(thinking, tokenizer, "chatml", 0).labels
    assert tokenizer.decode(labels[labels != IGNORE], skip_special=False) == thinking[1].text + "<|im_end|>"
    asked = [*thinking, Turn("human", "Sure?")]
    assert "assistant\nA dot.<|im_end|>\n" in render(asked, "qwen3", ask=True)


@pytest.mark.parametrize("name", [name for name in CHAT_TEMPLATES if name != "qwen3"])
def test_a_further_turn_continues_the_prompt(name: str, tmp_path: Path) -> None:
    tokenizer, rng = tokenizer_of(name, tmp_path), random.Random(1)
    for number in range(30):
        turns = plain(conversation(rng, number % 2 == 1))
        if number % 3 == 0:
            turns = [t._replace(text=f"<image>\n{t.text} ") if t.role == "human" else t for t in turns]
        count = sum(count_markers(turn.text) for turn in turns if turn.role == "human")
        further = " \nAnd <image> now? " if count else " And now?\n"
        answered = encode_chat(turns, tokenizer, name, count).ids.tolist()
        more = continuation_ids(further, tokenizer, name, int("<image>" in further)).tolist()
        whole = prompt_ids([*turns, Turn("human", further)], tokenizer, name, count + int("<image>" in further))
        assert answered + more == whole.tolist()
