"""Prompts of the class EVE: templates, questions as messages, markers of other projects."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eve_jax import EVE
from eve_jax.data.record import Turn
from eve_jax.data.text.encode import continuation_ids, prompt_ids
from eve_jax.errors import UserError, warn
from eve_jax.infer.api import dialogue_template
from eve_jax.infer.messages import read_image
from tests import reference as ref
from tests.data.synthetic import byte_tokenizer

A, B = (Image.fromarray(ref.tensors("A_inputs")[f"image_uint8_{i}"]) for i in (0, 1))  # 2x3 and 3x1 patches


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


@pytest.mark.parametrize(
    ("name", "ends", "template"),
    [
        ("qwen2", [], "qwen2"),
        ("v1", [], "v1"),
        ("plain", ["<|im_end|>"], "qwen2"),
        ("plain", ["<|end_of_text|>"], "llama3"),
        ("plain_v1", ["</s>"], "v1"),
        ("plain", [], "qwen2"),
    ],
)
def test_template_follows_the_model(
    name: str, ends: list[str], template: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dialogue_template(name, byte_tokenizer(ends)) == template
    note = f"note: the checkpoint's template {name} is for captions; asking with {template}\n"
    assert capsys.readouterr().err == (note if name.startswith("plain") else "")


def test_a_given_caption_template_is_refused() -> None:
    tokenizer = byte_tokenizer(["<|im_end|>", "</s>"])
    with pytest.raises(UserError, match="=plain is for captions, not for asking: use qwen2 or v1 or mistral"):
        dialogue_template("qwen2", tokenizer, "plain")
    assert dialogue_template("plain", tokenizer, "v1") == "v1"


def test_question_and_messages_are_the_same_prompt(eve: EVE) -> None:
    expected = prompt_ids([Turn("human", "<image>\nWhy?")], eve.tokenizer, "qwen2", 1)
    for messages in ("Why?", "<image>\nWhy?", [user("Why?")], [{"from": "human", "value": "Why?"}]):
        prompt = eve.prompt(messages, [A])
        assert prompt.ids.tolist() == expected.tolist()
        assert prompt.grids == [(2, 3)]
        np.testing.assert_array_equal(prompt.patches[0], ref.patches(0))
    assert eve.prompt("Why?", A).grids == [(2, 3)]
    several = [
        {"role": "system", "content": "S"},
        user("<image> a"),
        {"role": "assistant", "content": "b"},
        user("c <image>"),
    ]
    prompt = eve.prompt(several, [A, B])
    assert prompt.grids == [(2, 3), (3, 1)]
    assert (prompt.ids == ref.IMAGE_ID).sum() == 2
    assert len(prompt) == len(prompt.ids) - 2 + 9 + 7


@pytest.mark.parametrize(
    ("question", "plain", "order"),
    [
        ("<image_1> vs <image_2>", "<image> vs <image>", (0, 1)),
        ("<image_2> vs <image_1>", "<image> vs <image>", (1, 0)),
        ("[IMG1] and\n[IMG0]", "<image> and\n<image>", (1, 0)),
        ("<|image_pad|> or <|image_pad|>?", "<image> or <image>?", (0, 1)),
        ("<img>b.png</img> or <img>/x/a.png</img>?", "<image> or <image>?", (1, 0)),
        ("<image> is <image>, not <image_1>", "<image> is <image>, not <image_1>", (0, 1)),
    ],
)
def test_markers_of_others_place_images_as_in_records(
    eve: EVE, tmp_path: Path, question: str, plain: str, order: tuple[int, int]
) -> None:
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for image, file in zip((A, B), files, strict=True):
        image.save(file)
    expected = prompt_ids([Turn("human", plain)], eve.tokenizer, "qwen2", 2).tolist()
    eve = EVE(eve.engine, replace(eve.rule, image_first=False))
    for images in (files, [str(file) for file in files], [read_image(file) for file in files]):
        for prompt in (eve.prompt(question, images), eve.chat()._prompt(question, images)):
            assert prompt.ids.tolist() == expected
            assert prompt.grids == [((2, 3), (3, 1))[number] for number in order]
    assert eve.prompt("<image_1>?").ids.tolist() == eve.rule.prompt_ids([Turn("human", "<image_1>?")], 0).tolist()
    talk = eve.chat("S")
    talk.ask("Why?", max_new_tokens=1)
    later = continuation_ids(plain, eve.tokenizer, "qwen2", 2).tolist()
    prompt = talk._prompt(question, files)
    assert (prompt.ids[1:].tolist(), prompt.grids) == (later, [((2, 3), (3, 1))[number] for number in order])


@pytest.mark.parametrize("question", ["<image_1>?", "<image_1>, <image_3>", "<image_1> <image_1>", "[IMG] [IMG] [IMG]"])
def test_markers_of_others_that_do_not_fit(eve: EVE, question: str) -> None:
    with pytest.raises(UserError, match="write <image> where an image belongs") as error:
        eve.prompt(question, [A, B])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("marker", ["<image_1>", "<|image_pad|>", "[IMG]", "[image]", "{image}", "![](a.png)", "<img>"])
def test_a_backslash_makes_markers_of_others_text(eve: EVE, marker: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = f"What is \\{marker}?"
    for question, images, tokens in ((text, [A], f"<image>\n{text}"), (text, None, text)):
        expected = eve.rule.prompt_ids([Turn("human", tokens)], len(images or ())).tolist()
        for prompt in (eve.prompt(question, images), eve.chat()._prompt(question, images)):
            assert prompt.ids.tolist() == expected
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("question", "plain", "warning"),
    [
        ("[image]?", "<image>?", ""),
        ("<image>./</image>?", "<image>?", ""),
        ("{image} {image}?", "<image>\n{image} {image}?", "{image}"),
        ("![](c.png)![](d.png)?", "<image>\n![](c.png)![](d.png)?", "![](...)"),
    ],
)
def test_what_is_likely_a_place(
    eve: EVE, question: str, plain: str, warning: str, capsys: pytest.CaptureFixture[str]
) -> None:
    warn.cache_clear()
    assert eve.prompt(question, A).ids.tolist() == eve.rule.prompt_ids([Turn("human", plain)], 1).tolist()
    line = f"warning: {warning} in the question is text; write <image> where an image belongs\n"
    assert capsys.readouterr().err == (line if warning else "")
