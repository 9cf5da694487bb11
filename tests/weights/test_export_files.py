"""What an export has next to its weights: chat template, ends of answers, sizes of images, the tokenizer's settings."""

import functools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from eve_jax import EVE
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.markers import escape_markers, split_markers
from eve_jax.data.record import Role, Turn
from eve_jax.data.text.encode import IMAGE_ID, prompt_ids
from eve_jax.data.text.load import load_tokenizer
from eve_jax.data.text.own_template import own_template
from eve_jax.data.text.templates import get_template
from eve_jax.data.text.tokenizer import Tokenizer
from eve_jax.errors import UserError
from eve_jax.hf.chat_template import chat_template
from eve_jax.hf.export_config import hf_config
from eve_jax.hf.torch_eve import inputs_eve
from eve_jax.weights.import_export import export_checkpoint, import_checkpoint
from eve_jax.weights.open import open_checkpoint
from tests import reference as ref
from tests import vocab
from tests.data.chat_templates import CHAT_TEMPLATES, write_folder
from tests.data.synthetic import byte_tokenizer
from tests.weights import folders

Message = dict[str, Any]
ROLES: dict[str, Role] = {"user": "human", "assistant": "gpt"}


@functools.cache
def compiled(text: str) -> Any:
    """The template as `transformers` compiles it."""
    sandbox = pytest.importorskip("jinja2.sandbox")

    def refuse(message: str) -> None:
        raise ValueError(message)

    environment = sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    return environment.from_string(text)


def render(text: str, messages: list[Message], add_generation_prompt: bool = True) -> str:
    return compiled(text).render(messages=messages, add_generation_prompt=add_generation_prompt)


def turn_of(message: Message) -> Turn:
    """The turn with images on lines of their own and texts that place none."""
    if isinstance(message["content"], str):
        message = message | {"content": [{"type": "text", "text": message["content"]}]}
    text, after_image, is_user = "", False, message["role"] == "user"
    for part in message["content"]:
        if part["type"] == "image":
            text += ("" if not text or text.endswith("\n") else "\n") + "<image>"
            after_image = True
        elif said := part["text"]:
            text += "\n" if after_image and not said.startswith("\n") else ""
            text += escape_markers(said) if is_user else said
            after_image = False
    return Turn(ROLES.get(message["role"], "system"), text)


def random_messages(rng: random.Random) -> list[Message]:
    pieces = ["<image>", "\\", "\\\\", "\n", " ", "a", "caf\u00e9", "\U0001f600", "{{ x }}", '"', "</s>"]

    def text() -> str:
        return "".join(rng.choices(pieces, k=rng.randrange(5)))

    def content(is_user: bool) -> str | list[Message]:
        if rng.random() < 0.4:
            return text()
        kinds = ["text", "image"] if is_user else ["text"]
        parts = [{"type": rng.choice(kinds), "text": text()} for _ in range(rng.randrange(1, 5))]
        return [part if part["type"] == "text" else {"type": "image"} for part in parts]

    roles = ["user", "assistant"] * rng.randrange(3) + ["user"]
    system = [{"role": rng.choice(["system", "developer"]), "content": text()}] if rng.random() < 0.3 else []
    return [*system, *({"role": role, "content": content(role == "user")} for role in roles)]


def check(text: str, messages: list[Message], tokenizer: Tokenizer, name: str, image_first: bool) -> None:
    parts = [part for message in messages if not isinstance(message["content"], str) for part in message["content"]]
    count = sum(part["type"] == "image" for part in parts)
    turns = [turn_of(m) for m in messages]
    # The file that is carried tokenizes the text of a whole conversation: special tokens in it are such.
    expected = prompt_ids(turns, tokenizer, name, count, image_first, special_text=True).tolist()
    found = inputs_eve.text_ids(render(text, messages), count, tokenizer.encode)
    assert found == expected, messages
    assert found.count(IMAGE_ID) == count


@pytest.mark.parametrize("image_first", [False, True])
def test_chat_template_gives_the_ids_of_training(image_first):
    tokenizer, rng = byte_tokenizer(), random.Random(0)
    text = chat_template(get_template("qwen2"), "", image_first)
    for _ in range(300):
        check(text, random_messages(rng), tokenizer, "qwen2", image_first)


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_templates_of_todays_models_give_the_ids_of_training(name, tmp_path):
    """Also with images, and with outer white space of texts that some leave out."""
    tokenizer, rng = load_tokenizer(write_folder(tmp_path, name, "")), random.Random(0)
    bos = "" if tokenizer.bos is None else tokenizer.decode([tokenizer.bos], skip_special=False)
    for image_first in (False, True):
        text = chat_template(get_template(name), bos, image_first)
        for _ in range(60):
            check(text, random_messages(rng), tokenizer, name, image_first)


@pytest.mark.parametrize("name", ["qwen2", "llama3"])
def test_chat_template_with_real_vocabularies(name):
    tokenizer = vocab.qwen2_tokenizer() if name == "qwen2" else vocab.llama3_tokenizer()
    bos = "" if tokenizer.bos is None else tokenizer.decode([tokenizer.bos], skip_special=False)
    assert bos == ("" if name == "qwen2" else "<|begin_of_text|>")
    text = chat_template(get_template(name), bos)
    question: Message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}
    answer: Message = {"role": "assistant", "content": "A bus, 12:30."}
    for messages in ([question], [question, answer, {"role": "user", "content": "Where?"}]):
        check(text, messages, tokenizer, name, False)
    assert render(text, [question], False) == bos + get_template(name).system + " USER: <image>\nWhat is it? "


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([{"role": "assistant", "content": "a"}], "turns of user and assistant alternate"),
        (
            [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}],
            "turns of user and assistant alternate",
        ),
        ([{"role": "user", "content": [{"type": "video"}]}], "a part of a message is a text or"),
        (
            [{"role": "system", "content": [{"type": "image"}]}, {"role": "user", "content": "a"}],
            "of the user's, an image",
        ),
    ],
)
def test_chat_template_refuses(messages, message):
    with pytest.raises(ValueError, match=message):
        render(chat_template(get_template("qwen2")), messages)


def test_carried_rules_are_ours():
    rng = random.Random(1)
    for _ in range(300):
        said = "".join(rng.choices(["<image>", "\\", "a", "<ima"], k=rng.randrange(8)))
        assert inputs_eve.split_markers(said) == split_markers(said)
        width, height = rng.randrange(1, 4000), rng.randrange(1, 4000)
        mode = rng.choice(list(inputs_eve.SIZES))
        rule = ImageRule(mode, rng.choice(["shrink", "fill"]), rng.choice([0, 64, 800]), rng.choice([0.0, 1.0, 8.0]))
        section = {"image_mode": mode, "max_size": rule.max_size, "max_aspect": rule.max_aspect}
        found = inputs_eve.resized(width, height, section | {"inference_fit": rule.fit, "fit": "shrink"})
        assert found == rule.resized(width, height), (width, height, rule)
        h, w = rule.grid(width, height)
        assert inputs_eve.image_tokens(*found[::-1]) == 1 + h * (w + 1)
    with pytest.raises(ValueError, match=r"2 <image> in the conversation for 1 images"):
        inputs_eve.text_ids("<image><image>", 1, lambda text: [])
    with pytest.raises(ValueError, match=r"image_mode is 'square'"):
        inputs_eve.resized(3, 4, {"image_mode": "square"})


def test_exported_files(tmp_path, capsys):
    """Also of a model whose base has a chat template of its own, and its own import."""
    hf = folders.write_hf(tmp_path / "hf", *folders.golden())
    (hf / "chat_template.jinja").write_text("of the base")
    own = {"chat_template": "of the base", "clean_up_tokenization_spaces": True, "model_max_length": 99}
    (hf / "tokenizer_config.json").write_text(json.dumps(own))
    (hf / "generation_config.json").write_text(json.dumps({"top_p": 0.8, "eos_token_id": 7}))
    out = export_checkpoint(hf, tmp_path / "out", quiet=True)
    assert (out / "chat_template.jinja").read_text() == chat_template(get_template("qwen2"), "", True)
    tokens = json.loads((out / "tokenizer_config.json").read_text())
    assert tokens == {"clean_up_tokenization_spaces": False, "model_max_length": 99}
    assert json.loads((out / "generation_config.json").read_text()) == {"top_p": 0.8, "eos_token_id": [256]}
    section = json.loads((out / "config.json").read_text())["eve_jax"]
    assert (section["fit"], section["inference_fit"]) == ("shrink", "fill")
    capsys.readouterr()
    again = import_checkpoint(str(out), tmp_path / "again", quiet=True)
    assert capsys.readouterr().err == "", "no field of our own export is unknown"
    assert open_checkpoint(again).data == open_checkpoint(hf).data
    text = export_checkpoint(hf, tmp_path / "text", text_only=True, quiet=True)
    assert (text / "chat_template.jinja").read_text() == "of the base"
    assert json.loads((text / "generation_config.json").read_text())["eos_token_id"] == 7


def test_a_model_keeps_the_template_of_its_base(tmp_path):
    """In its folder, when it is asked, in an export and in that one's import."""
    hf = folders.write_hf(tmp_path / "hf", *folders.golden())
    write_folder(hf, "qwen3", CHAT_TEMPLATES["qwen3"])
    eve = EVE.from_pretrained(hf, template="own")
    assert eve.rule.template == "qwen3"
    asked = prompt_ids([Turn("human", "What?")], eve.tokenizer, "qwen3", 0).tolist()
    assert eve.prompt("What?").ids.tolist() == asked
    stage = import_checkpoint(str(hf), tmp_path / "stage", quiet=True)
    assert own_template(stage) == "qwen3", "the file travels with the tokenizer"
    config = json.loads((stage / "config.json").read_text())
    (stage / "config.json").write_text(json.dumps(config | {"data": config["data"] | {"template": "qwen3"}}))
    out = export_checkpoint(stage, tmp_path / "out", quiet=True)
    text = (out / "chat_template.jinja").read_text()
    assert text == chat_template(get_template("qwen3"), "", True)
    assert load_tokenizer(out).encode(render(text, [{"role": "user", "content": "What?"}])) == asked
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == eve.stop_ids
    assert own_template(out) == open_checkpoint(out).data["template"] == "qwen3"
    assert EVE.from_pretrained(out).rule.template == "qwen3"


def test_fit_of_questions(tmp_path):
    """Of the questions that the training asked, kept by an export of an import of an export."""
    hf = folders.write_hf(tmp_path / "hf", *folders.golden())
    stage = import_checkpoint(str(hf), tmp_path / "stage", quiet=True)
    config = json.loads((stage / "config.json").read_text())
    (stage / "config.json").write_text(json.dumps(config | {"eval": {"fit": "shrink"}}))
    first = export_checkpoint(stage, tmp_path / "first", quiet=True)
    back = import_checkpoint(str(first), tmp_path / "back", quiet=True)
    second = export_checkpoint(back, tmp_path / "second", quiet=True)
    for folder in (first, second):
        assert inference_fit(folder) == "shrink"
    section = json.loads((first / "config.json").read_text())
    section["eve_jax"]["inference_fit"] = "stretch"
    (first / "config.json").write_text(json.dumps(section))
    with pytest.raises(
        UserError, match=r"config\.json: eve_jax\.inference_fit is 'stretch': expected one of shrink, fill"
    ):
        open_checkpoint(first)


def inference_fit(folder: Path) -> str:
    return json.loads((folder / "config.json").read_text())["eve_jax"]["inference_fit"]


def test_configs_share_nothing():
    """Of two models that began with random weights."""
    data = {"image_mode": "anyratio_ld", "max_size": 800, "max_aspect": 8.0, "template": "llama3"}
    assert hf_config(ref.config(name="C"), data, {}, "float32")["attention_bias"] is False
    assert "attention_bias" not in hf_config(ref.config(name="A"), data, {}, "float32")
