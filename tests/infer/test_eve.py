"""The class EVE on folders of ours and of Hugging Face: questions, messages, batches, streams, several turns."""

import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eve_jax import EVE
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.record import Turn
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.text.encode import IMAGE_ID, continuation_ids, prompt_ids
from eve_jax.data.text.load import load_tokenizer
from eve_jax.data.text.templates import end_id
from eve_jax.errors import UserError
from eve_jax.infer.engine import Engine
from eve_jax.infer.prompt import Prompt
from eve_jax.infer.score_files import score_files
from eve_jax.weights.import_export import import_checkpoint
from eve_jax.weights.open import open_checkpoint
from tests import reference as ref
from tests.data.synthetic import byte_tokenizer, write_records
from tests.weights import folders

NEW = 10
A, B = (Image.fromarray(ref.tensors("A_inputs")[f"image_uint8_{i}"]) for i in (0, 1))  # 2x3 and 3x1 patches


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_import_is_lazy():
    code = "import sys, eve_jax; print('jax' in sys.modules, hasattr(eve_jax, 'EVA'), eve_jax.EVE.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "EVE"]


def test_settings_come_with_the_checkpoint(hf: Path, eve: EVE) -> None:
    assert (eve.rule.template, eve.positions, eve.sees) == ("qwen2", 512, True)
    assert eve.rule.images == ImageRule("anyratio_ld", "shrink", 800, 0.0)  # the original has no cap
    assert EVE.from_pretrained(hf).rule.images.fit == "fill"
    assert EVE.from_pretrained(hf, max_size=96).rule.images.max_size == 96
    assert {str(p.dtype) for p in eve.engine.params.values()} == {"float32"}


def test_weights_have_the_type_of_the_computation(tmp_path: Path) -> None:
    tensors, config = folders.golden()
    half = folders.write_hf(tmp_path / "half", folders.as_bfloat16(tensors), config)
    wide = folders.write_hf(
        tmp_path / "wide",
        tensors | {k: v for k, v in folders.as_bfloat16(tensors).items() if "embed_tokens" in k},
        config,
    )
    for folder in (half, wide):
        assert {str(p.dtype) for p in EVE.from_pretrained(folder).engine.params.values()} == {"bfloat16"}


def brief(text: str) -> list[dict[str, str]]:
    """The question after a short system sentence: prompts of few tokens compile fast."""
    return [{"role": "system", "content": "S"}, user(text)]


def test_the_type_of_the_computation_may_be_chosen(tmp_path: Path) -> None:
    tensors, config = folders.golden()
    half = folders.write_hf(tmp_path / "half", folders.as_bfloat16(tensors), config)
    engine = EVE.from_pretrained(half, dtype="float32").engine
    assert engine.cfg.dtype == "float32" and {str(value.dtype) for value in engine.params.values()} == {"float32"}
    with pytest.raises(UserError, match=r"^dtype='int8': expected one of float32, bfloat16, float16, or none"):
        EVE.from_pretrained(half, dtype="int8")


def test_answers_alone_in_a_batch_and_as_a_stream(eve: EVE) -> None:
    questions = [brief("Why?"), brief("What is in it?"), brief("Is <image> before <image>?")]
    images: list = [[], A, [A, B]]
    alone = [eve.answer(q, i, max_new_tokens=NEW) for q, i in zip(questions, images, strict=True)]
    texts = [a.text for a in alone]
    assert all(len(a.new_ids) == NEW and a.text == eve.decode(a.new_ids) for a in alone)
    assert len(set(texts)) == 3
    assert eve.generate_batch(questions, images, rows=2, max_new_tokens=NEW) == texts
    for question, given, text in zip(questions, images, texts, strict=True):
        assert "".join(eve.stream(question, given, max_new_tokens=NEW)) == text
        assert eve.generate(question, given, max_new_tokens=NEW) == text
    with pytest.raises(UserError, match="1 lists of images for 3 conversations"):
        eve.generate_batch(questions, [[]])


def test_stops_at_the_templates_end(hf: Path, eve: EVE) -> None:
    assert eve.stop_ids[0] == end_id(eve.tokenizer, "qwen2") == 256
    new = eve.answer(brief("Why?"), max_new_tokens=NEW).new_ids
    stopping = EVE.from_pretrained(hf)
    stopping.stop_ids = [new[4]]
    kept = new[: new.index(new[4])]
    assert stopping.answer(brief("Why?"), max_new_tokens=NEW).new_ids == kept
    assert "".join(stopping.stream(brief("Why?"), max_new_tokens=NEW)) == stopping.decode(kept)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("pictures", [[], [B]])
def test_chat_gives_what_the_whole_conversation_gives(eve: EVE, streamed: bool, pictures: list) -> None:
    """Three turns, each with reuse, against a fresh prefill of everything before the answer."""
    chat = eve.chat(system="S")
    asked: list[tuple[str, list]] = [("What is it?", [A]), ("And now?", pictures), ("Sure?", [])]
    ids = np.zeros(0, np.int32)
    shown: list = []
    for number, (question, images) in enumerate(asked):
        if number:
            further = continuation_ids(question, eve.tokenizer, "qwen2", len(images))
            ids = np.concatenate([ids, [end_id(eve.tokenizer, "qwen2")], further]).astype(np.int32)
        else:
            ids = prompt_ids([Turn("system", "S"), Turn("human", question)], eve.tokenizer, "qwen2", 1)
        shown += images
        whole = Prompt(ids, *patches_of(eve, shown))
        if streamed:
            text = "".join(chat.stream(question, images, max_new_tokens=NEW))
            assert chat.answer is not None and chat.answer.text == text
        else:
            chat.ask(question, images, max_new_tokens=NEW)
        assert chat.answer is not None
        assert [chat.answer.new_ids] == eve.engine.generate([whole], NEW, eve.stop_ids)
        ids = np.concatenate([ids, chat.answer.new_ids]).astype(np.int32)
        assert chat.tokens == len(Prompt(ids, *patches_of(eve, shown)))
    chat.new()
    assert (chat.tokens, chat.answer) == (0, None)


def patches_of(eve: EVE, images: list) -> tuple[list, list]:
    prompt = eve.prompt("<image>" * len(images) + "?", images)
    return list(prompt.patches), list(prompt.grids)


class Said(Engine):
    """An engine that answers "Yes." and notes what it was told."""

    def __init__(self, eve: EVE):
        super().__init__(eve.engine.cfg, eve.engine.params)
        self.ids: list[int] = []
        self.prompts: list[Prompt] = []
        self.yes = eve.tokenizer.encode(" Yes.")

    def reply(self, session, prompts, max_new_tokens, stop_ids, sampling):  # type: ignore[override]
        self.ids += prompts[0].ids.tolist() + self.yes
        self.prompts += prompts
        session.held = session.held.and_text(np.full(1, len(self.ids), np.int32))
        return [self.yes]


PROSE = ("What does the <image> tag do in HTML?", "<image>", "Is `<image>` or \\<image> right?")


@pytest.mark.parametrize("question", PROSE)
def test_a_question_without_images_may_speak_of_the_tag(question: str, eve: EVE) -> None:
    text = question.replace("\\<image>", "<image>")
    expected = prompt_ids([Turn("human", question)], eve.tokenizer, "qwen2", 0)
    assert f"USER: {text} ASSISTANT:" in eve.tokenizer.decode(expected)
    for prompt in (eve.prompt(question), eve.prompt([user(question)])):
        assert (prompt.ids.tolist(), prompt.grids) == (expected.tolist(), [])
    chat = eve.chat()
    chat.ask("Why?", max_new_tokens=2)
    more = chat._prompt(question, []).ids
    assert eve.tokenizer.decode(more) == f"USER: {text} ASSISTANT:"


def test_an_escaped_tag_beside_an_image(eve: EVE) -> None:
    told = "The tag is <image>."
    messages = [user("Describe \\<image> and this: <image>"), {"role": "assistant", "content": told}, user("Why?")]
    ids = eve.prompt(messages, A).ids.tolist()
    at = ids.index(IMAGE_ID)
    assert ids.count(IMAGE_ID) == 1
    assert eve.tokenizer.decode(ids[:at]).endswith("USER: ")  # an imported EVE model has images first
    asked = f"Describe <image> and this: ASSISTANT: {told}USER: Why? ASSISTANT:"
    assert eve.tokenizer.decode(ids[at + 1 :]).replace("<|im_end|>", "").lstrip() == asked
    alone = eve.prompt([user("Tag?"), {"role": "assistant", "content": told}, user("Why?")], A).ids.tolist()
    assert eve.tokenizer.decode(alone[: alone.index(IMAGE_ID)]).endswith("USER: ")  # before the first user's text
    with pytest.raises(UserError, match="2 <image> markers for 1 image"):
        eve.prompt([user("<image>?"), {"role": "assistant", "content": told}, user("<image>")], A)


def test_chat_writes_what_the_template_writes(eve: EVE) -> None:
    engine = Said(eve)
    chat = EVE(engine, replace(eve.rule, image_first=False)).chat(system="Be brief.")
    chat.ask("Is it a <image>?", [A])
    chat.ask("And this?", [B])
    chat.ask("Both?")
    yes = Turn("gpt", "Yes.")
    turns = [Turn("system", "Be brief."), Turn("human", "Is it a <image>?"), yes, Turn("human", "<image>\nAnd this?")]
    turns += [yes, Turn("human", "Both?")]
    assert engine.ids == [*prompt_ids(turns, eve.tokenizer, "qwen2", 2).tolist(), *engine.yes]


def test_chat_reads_all_again_where_the_template_writes_answers_otherwise(eve: EVE) -> None:
    """With Qwen3's, an answer has a block of thoughts before it until another turn follows."""
    rule = SampleRule(byte_tokenizer(("<|im_end|>", "<|im_start|>")), eve.rule.images, "qwen3")
    engine = Said(EVE(eve.engine, rule))
    chat = EVE(engine, rule).chat(system="Be brief.")
    turns = [Turn("system", "Be brief.")]
    for question, images, placed in (
        ("No <image>?", [], "No \\<image>?"),
        ("Is it a <image>?", [A], "Is it a <image>?"),
        ("And these?", [B, A], "<image>\n<image>\nAnd these?"),
        ("Both?", [], "Both?"),
    ):
        engine.ids.clear()
        with pytest.raises(UserError, match="missing file"):
            chat.ask(question, ["nowhere.png"])
        assert chat.ask(question, images).text == "Yes."
        turns.append(Turn("human", placed))
        count = len(engine.prompts[-1].grids)
        assert engine.ids == [*prompt_ids(turns, rule.tokenizer, "qwen3", count).tolist(), *engine.yes]
        turns.append(Turn("gpt", "Yes."))
    assert [len(prompt.grids) for prompt in engine.prompts] == [0, 1, 3, 3]


def test_a_question_that_fails_leaves_the_chat_as_it_was(eve: EVE) -> None:
    chat = eve.chat(system="S")
    chat.ask("Why?", max_new_tokens=4)
    tokens = chat.tokens
    for question, images, says in (
        ("<image> <image>", [A], r"2 <image> markers for 1 image \(.*\\<image>\)"),
        ("What?", ["nowhere.png"], "missing file"),
        ("  ", [], "the question is empty"),
        ("x" * 500, [], "leave no room for an answer: the model has 512 positions"),
    ):
        with pytest.raises(UserError, match=says):
            chat.ask(question, images)
        with pytest.raises(UserError, match=says):
            list(chat.stream(question, images))
        assert chat.tokens == tokens
    assert len(list(itertools.islice(chat.stream("Why?", max_new_tokens=4), 1))) == 1


def test_answers_end_with_the_models_positions(eve: EVE) -> None:
    question = brief("x" * 40)
    short = EVE(eve.engine, replace(eve.rule, image_first=False), positions=len(eve.prompt(question)) + 4)
    answer = short.answer(question, max_new_tokens=NEW)
    assert len(answer.new_ids) == 4
    both = short.generate_batch([question, brief("Why?")], max_new_tokens=NEW)
    assert both == [answer.text, eve.generate(brief("Why?"), max_new_tokens=NEW)]
    with pytest.raises(UserError, match="leave no room for an answer"):
        short.generate(brief("x" * 44))
    with pytest.raises(UserError, match="max_new_tokens=0"):
        eve.generate("x", max_new_tokens=0)
    with pytest.raises(UserError, match="unknown setting 'max_tokens'"):
        eve.generate("x", max_tokens=3)  # type: ignore[call-arg]


def test_text_only_model(tmp_path: Path) -> None:
    plain = folders.write_hf(tmp_path / "plain", *folders.plain("qwen2"))
    ours = import_checkpoint(str(plain), tmp_path / "ours", variant="dac", quiet=True)
    for folder in (plain, ours):
        eve = EVE.from_pretrained(folder)
        assert eve.prompt("What?").grids == []
        with pytest.raises(UserError, match="no trained image input"):
            eve.prompt("What?", [A])


def test_tokenizer_of_another_model(tmp_path: Path) -> None:
    tensors, config = folders.golden()
    tensors = tensors | {k: tensors[k][:200] for k in ("model.embed_tokens.weight", "lm_head.weight")}
    folder = folders.write_hf(tmp_path / "hf", tensors, config | {"vocab_size": 200})
    (folder / "generation_config.json").unlink()  # its ids are of the larger vocabulary as well
    says = r"hf: has 257 tokens, the last of them '<\|im_end\|>', but the model's vocabulary is 200"
    with pytest.raises(UserError, match=says):
        EVE.from_pretrained(folder)
    byte_tokenizer().save(tmp_path / "tokenizer")
    checkpoint = open_checkpoint(folder)
    rule = SampleRule(load_tokenizer(tmp_path / "tokenizer"), ImageRule(), "qwen2")
    eve = EVE(Engine(checkpoint.cfg, checkpoint.params()), rule)
    with pytest.raises(UserError, match="the model knows 200: it belongs to another model"):
        eve.generate("Why?")


def test_score_is_that_of_the_command(hf: Path, eve: EVE, tmp_path: Path) -> None:
    records = write_records(tmp_path, 3)
    scores = eve.score(records, tmp_path / "images")
    assert [line.id for line in scores.lines] == ["r0", "r1", "r2"]
    by_file = score_files(hf, str(records), tmp_path / "images", tmp_path / "out.jsonl", fit="shrink", quiet=True)
    assert scores.lines == by_file.lines
    with pytest.raises(UserError, match="no such records"):
        eve.score(tmp_path / "nowhere.jsonl")
    broken = Engine(eve.engine.cfg, eve.engine.params | {"norm.scale": eve.engine.params["norm.scale"] * np.nan})
    with pytest.raises(UserError, match=r"none of the 3 records can be scored; .*its loss is nan.*norm\.scale"):
        EVE(broken, eve.rule, data=eve.data).score(records, tmp_path / "images")
