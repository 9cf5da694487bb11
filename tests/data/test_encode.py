"""Templates, prompts and label masks beyond the golden set F (see test_golden_chat.py)."""

import numpy as np
import pytest

from eve_jax.data.markers import MARKER
from eve_jax.data.record import BadRecord, Turn
from eve_jax.data.text.encode import IGNORE, IMAGE_ID, Encoded, encode_chat, prompt_ids
from eve_jax.data.text.tokenizer import Tokenizer
from eve_jax.errors import UserError
from tests.vocab import qwen2_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return qwen2_tokenizer()


def human(text: str) -> Turn:
    return Turn("human", text)


def gpt(text: str) -> Turn:
    return Turn("gpt", text)


def learnt(encoded: Encoded, tokenizer: Tokenizer) -> str:
    return tokenizer.decode(encoded.labels[encoded.labels != IGNORE], skip_special=False)


def written(ids: np.ndarray, tokenizer: Tokenizer) -> str:
    parts = np.split(ids, np.flatnonzero(ids == IMAGE_ID))
    return MARKER.join(tokenizer.decode(part[part != IMAGE_ID], skip_special=False) for part in parts)


def test_two_images_of_a_turn_both_stay(tokenizer: Tokenizer) -> None:
    turns = [human("Compare <image> with <image>."), gpt("Alike.")]
    in_place = encode_chat(turns, tokenizer, "qwen2", 2)
    assert written(in_place.ids, tokenizer).endswith("USER: Compare <image> with <image>. ASSISTANT: Alike.<|im_end|>")
    moved = encode_chat(turns, tokenizer, "qwen2", 2, image_first=True)
    assert written(moved.ids, tokenizer).endswith("USER: <image>\n<image>\nCompare  with . ASSISTANT: Alike.<|im_end|>")
    plain = encode_chat(turns, tokenizer, "plain", 2)
    assert plain.ids[:2].tolist() == [IMAGE_ID, IMAGE_ID]
    assert learnt(plain, tokenizer) == "Alike.\n"


def test_images_without_markers_go_first(tokenizer: Tokenizer) -> None:
    marked = encode_chat([human("<image>\n<image>\nWhat is it?"), gpt("A bus.")], tokenizer, "qwen2", 2)
    bare = encode_chat([human("What is it?"), gpt("A bus.")], tokenizer, "qwen2", 2)
    assert bare.ids.tolist() == marked.ids.tolist()
    lone = encode_chat([gpt("A bus.")], tokenizer, "plain", 1)
    assert written(lone.ids, tokenizer) == "<image>A bus.\n"


def test_system_turn_replaces_the_sentence(tokenizer: Tokenizer) -> None:
    turns = [Turn("system", "Be brief."), human("What?"), gpt("A bus.")]
    text = written(encode_chat(turns, tokenizer, "qwen2", 0).ids, tokenizer)
    assert text == "Be brief. USER: What? ASSISTANT: A bus.<|im_end|>"


@pytest.mark.parametrize(
    "answer", ["Write <image> there.", "<image>", r"Or \<image>, or \\<image>", "<image>\n<image>"]
)
@pytest.mark.parametrize("n_images", [0, 1, 2])
def test_an_answer_never_places_an_image(answer: str, n_images: int, tokenizer: Tokenizer) -> None:
    question = "Which tag shows an image?"
    encoded = encode_chat([human(question), gpt(answer)], tokenizer, "qwen2", n_images)
    assert learnt(encoded, tokenizer) == f" {answer}<|im_end|>"
    ids, labels = encoded
    assert (ids == IMAGE_ID).sum() == n_images
    assert (labels[labels != IGNORE] == ids[labels != IGNORE]).all()
    marked = encode_chat([human("<image>\n" * n_images + question), gpt(answer)], tokenizer, "qwen2", n_images)
    assert ids.tolist() == marked.ids.tolist()
    caption = encode_chat([gpt(answer)], tokenizer, "plain", n_images)
    assert caption.ids.tolist() == [IMAGE_ID] * n_images + tokenizer.encode(answer + "\n")
    assert learnt(caption, tokenizer) == answer + "\n"


def test_an_answer_beside_a_marked_image(tokenizer: Tokenizer) -> None:
    turns = [human("Is <image> a tag?"), gpt("<image> is."), human(r"And \<image>?"), gpt("Yes.")]
    text = r"USER: Is @ a tag? ASSISTANT: <image> is.<|im_end|>USER: And <image>? ASSISTANT: Yes.<|im_end|>"
    ids = encode_chat(turns, tokenizer, "qwen2", 1).ids
    assert written(ids, tokenizer).endswith(text.replace("@", "<image>"))
    assert tokenizer.decode(ids[: ids.tolist().index(IMAGE_ID)]).endswith("USER: Is ")
    moved = encode_chat(turns, tokenizer, "qwen2", 1, image_first=True)
    first = r"USER: <image>" + "\nIs  a tag? ASSISTANT: <image> is."
    assert first in written(moved.ids, tokenizer)
    assert learnt(moved, tokenizer) == " <image> is.<|im_end|> Yes.<|im_end|>"
    assert (ids == IMAGE_ID).sum() == (moved.ids == IMAGE_ID).sum() == 1


def test_a_system_turn_never_places_an_image(tokenizer: Tokenizer) -> None:
    turns = [Turn("system", r"Tags: <image> and \<image>."), human("What?"), gpt("A bus.")]
    ids = encode_chat(turns, tokenizer, "qwen2", 1).ids
    assert written(ids, tokenizer).startswith(r"Tags: <image> and \<image>. USER: " + "<image>\nWhat? ")
    assert tokenizer.decode(ids[: ids.tolist().index(IMAGE_ID)]).endswith("USER: ")


@pytest.mark.parametrize(
    ("question", "n_images", "read"),
    [
        (r"\<image>", 0, "<image>"),
        (r"Is \<image> like <image>?", 1, "Is <image> like @?"),
        (r"A backslash, then an image: \\<image>", 1, "A backslash, then an image: \\@"),
        (r"\\\<image> \n \<imag>", 0, r"\<image> \n \<imag>"),
        (r"\<image>", 1, "@\n<image>"),
        ("<Image> <image > < image>", 0, "<Image> <image > < image>"),
    ],
)
def test_a_tag_can_be_escaped(question: str, n_images: int, read: str, tokenizer: Tokenizer) -> None:
    ids = encode_chat([human(question), gpt("Yes.")], tokenizer, "qwen2", n_images).ids
    parts = np.split(ids, np.flatnonzero(ids == IMAGE_ID))
    text = "@".join(tokenizer.decode(part[part != IMAGE_ID]) for part in parts)
    assert text.endswith(f"USER: {read} ASSISTANT: Yes.")


@pytest.mark.parametrize("text", ["a\ud800b", "\udfff", "\ud83d <image>"])
def test_half_a_surrogate_is_a_bad_record(text: str, tokenizer: Tokenizer) -> None:
    for turns in ([human(text), gpt("b")], [human("a"), gpt(text)], [Turn("system", text), human("a"), gpt("b")]):
        with pytest.raises(
            BadRecord, match=f"the text of a {turns[text == turns[1].text].role} turn is not valid UTF-8"
        ):
            encode_chat(turns, tokenizer, "qwen2", text.count(MARKER))


def test_odd_texts_come_through(tokenizer: Tokenizer) -> None:
    for answer in ("\0", "a\0<image>", "\u200b", "x" * 100_000, "\r\n\t", "<" * 2_000):
        encoded = encode_chat([human(answer.replace(MARKER, "")), gpt(answer)], tokenizer, "qwen2", 0)
        assert learnt(encoded, tokenizer) == f" {answer}<|im_end|>"


def test_empty_answer_is_read_but_not_learnt(tokenizer: Tokenizer) -> None:
    encoded = encode_chat([human("a?"), gpt(""), human("b?"), gpt("Yes")], tokenizer, "qwen2", 0)
    assert learnt(encoded, tokenizer) == " Yes<|im_end|>"
    assert written(encoded.ids, tokenizer).endswith("USER: a? ASSISTANT:<|im_end|>USER: b? ASSISTANT: Yes<|im_end|>")


@pytest.mark.parametrize(
    ("turns", "template", "n_images", "reason"),
    [
        ([human("<image>\nWhat?"), gpt("A bus.")], "qwen2", 0, r"1 <image> marker for 0 images \(.* \\<image>\)"),
        ([human("What?"), gpt("<image>"), human("<image>"), gpt("b")], "qwen2", 2, "1 <image> marker for 2 images"),
        ([human(r"<image> \<image>"), gpt("A bus.")], "qwen2", 2, "1 <image> marker for 2 images"),
        ([human("<image>\nWhat?"), gpt("A bus.")], "qwen2", 2, "1 <image> marker for 2 images"),
        ([human("<image><image>"), gpt("A bus.")], "plain", 1, "2 <image> markers for 1 image"),
        ([human("What?"), gpt("")], "qwen2", 0, "nothing to learn"),
        ([human("<image>"), gpt(" \n ")], "plain", 1, "nothing to learn"),
        ([human("<image>"), gpt(" \n ")], "plain_v1", 1, "nothing to learn"),
        ([human("What?")], "qwen2", 0, "nothing to learn"),
        ([human("What?")], "plain", 0, "one gpt turn"),
        ([gpt("A bus.")], "qwen2", 0, "no human turn"),
        ([human("a"), human("b"), gpt("c")], "qwen2", 0, "alternate"),
        ([human("a"), gpt("b"), Turn("system", "s"), gpt("c")], "qwen2", 0, "alternate"),
        ([human("a"), gpt("b"), human("c"), gpt("d")], "plain", 0, "longer conversation"),
    ],
)
def test_unusable_conversations_say_why(
    turns: list[Turn], template: str, n_images: int, reason: str, tokenizer: Tokenizer
) -> None:
    with pytest.raises(BadRecord, match=reason):
        encode_chat(turns, tokenizer, template, n_images)


def test_prompt_is_the_text_up_to_the_answer(tokenizer: Tokenizer) -> None:
    turns = [human("<image>\n图片里有什么"), gpt("小猫 😀"), human("And <image>?"), gpt("Café.")]
    for n_images, conversation in [(1, turns[:2]), (2, turns)]:
        full = encode_chat(conversation, tokenizer, "qwen2", n_images)
        prompt = prompt_ids(conversation, tokenizer, "qwen2", n_images)
        assert prompt.tolist() == full.ids[: len(prompt)].tolist()
        assert written(prompt, tokenizer).endswith(" ASSISTANT:")
        assert prompt_ids(conversation[:-1], tokenizer, "qwen2", n_images).tolist() == prompt.tolist()
        assert (full.labels[: len(prompt)] != IGNORE).any() == (len(conversation) > 2)
        assert (full.labels[len(prompt) :] != IGNORE).all()


def test_prompt_of_a_caption_is_its_images(tokenizer: Tokenizer) -> None:
    assert prompt_ids([human("<image>\nDescribe it.")], tokenizer, "plain", 1).tolist() == [IMAGE_ID]
    with pytest.raises(UserError, match="empty prompt"):
        prompt_ids([human("Hello")], tokenizer, "plain", 0)


def test_unknown_template_names_the_known_ones(tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match=r"'qwen4' is not one of plain, plain_v1, qwen2, llama3, v1"):
        encode_chat([human("a"), gpt("b")], tokenizer, "qwen4", 0)
