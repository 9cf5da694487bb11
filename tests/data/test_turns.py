"""Conversations of any content in every template: what is learned, what a further turn adds, where an answer stops."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eve_jax.data.markers import MARKER
from eve_jax.data.record import BadRecord, Turn
from eve_jax.data.text.encode import IGNORE, IMAGE_ID, continuation_ids, encode_chat, prompt_ids
from eve_jax.data.text.templates import end_id, get_template, stop_ids
from eve_jax.data.text.tokenizer import Tokenizer
from eve_jax.errors import UserError
from tests.data.synthetic import byte_tokenizer
from tests.vocab import llama3_tokenizer, qwen2_tokenizer, spm_tokenizer

DIALOGUES: dict[str, tuple[str, Callable[[], Tokenizer]]] = {
    "qwen2": ("qwen2", qwen2_tokenizer),
    "llama3": ("llama3", llama3_tokenizer),
    "v1": ("v1", lambda: spm_tokenizer(legacy=True)),
    "v1, legacy false": ("v1", lambda: spm_tokenizer(legacy=False)),
}
PIECES = [
    MARKER,
    "What is it",
    "A bus.",
    " ",
    "\n",
    "é😀",
    "10:45",
    "</s>",
    "<|im_end|>",
    "<unk>",
    "USER: x ASSISTANT:",
]
texts = st.lists(st.sampled_from(PIECES), max_size=5).map("".join)


@pytest.mark.parametrize("name", DIALOGUES)
@settings(deadline=None, max_examples=60)
@given(questions=st.lists(texts, min_size=2, max_size=3), answers=st.lists(texts, min_size=2, max_size=2))
def test_turn_by_turn_is_the_whole_prompt(name: str, questions: list[str], answers: list[str]) -> None:
    template, tokenizer = DIALOGUES[name][0], DIALOGUES[name][1]()
    answers = [answer.replace(MARKER, "") + "." for answer in answers]
    count = [question.count(MARKER) for question in questions]
    turns = [Turn("human", questions[0])]
    so_far = prompt_ids(turns, tokenizer, template, count[0])
    for number, question in enumerate(questions[1:], 1):
        turns.append(Turn("gpt", answers[number - 1]))
        answered = encode_chat(turns, tokenizer, template, sum(count[:number])).ids
        assert answered[: len(so_far)].tolist() == so_far.tolist()
        assert answered[-1] == end_id(tokenizer, template)
        turns.append(Turn("human", question))
        so_far = np.concatenate([answered, continuation_ids(question, tokenizer, template, count[number])])
        assert so_far.dtype == np.int32
        assert so_far.tolist() == prompt_ids(turns, tokenizer, template, sum(count[: number + 1])).tolist()


@pytest.mark.parametrize("name", DIALOGUES)
@settings(deadline=None, max_examples=60)
@given(exchanges=st.lists(st.tuples(texts, texts), min_size=1, max_size=3), unanswered=texts)
def test_answers_are_learnt_whatever_they_hold(name: str, exchanges: list[tuple[str, str]], unanswered: str) -> None:
    template, tokenizer = DIALOGUES[name][0], DIALOGUES[name][1]()
    exchanges = [(question, answer.replace(MARKER, "")) for question, answer in exchanges]
    turns = [turn for ask, say in exchanges for turn in (Turn("human", ask), Turn("gpt", say))]
    turns += [Turn("human", unanswered)] * bool(unanswered)
    n_images = sum(turn.text.count(MARKER) for turn in turns)
    end = get_template(template).end
    expected = [f" {answer}{end}" for _, answer in exchanges if answer]
    if not expected:
        with pytest.raises(BadRecord, match="nothing to learn"):
            encode_chat(turns, tokenizer, template, n_images)
        return
    ids, labels = encode_chat(turns, tokenizer, template, n_images)
    assert (labels[labels != IGNORE] == ids[labels != IGNORE]).all()
    runs = np.split(labels, np.flatnonzero(np.diff(labels != IGNORE)) + 1)
    learnt = [tokenizer.decode(run, skip_special=False) for run in runs if run[0] != IGNORE]
    if template == "v1":  # decoding takes the first space for the one that SentencePiece puts before a text
        learnt = [" " + text for text in learnt]
    assert learnt == expected
    assert int((ids == IMAGE_ID).sum()) == n_images


def test_images_of_a_further_turn() -> None:
    tokenizer = qwen2_tokenizer()
    marked = continuation_ids("<image>\n<image>\nAnd now?", tokenizer, "qwen2", 2)
    assert continuation_ids("And now?", tokenizer, "qwen2", 2).tolist() == marked.tolist()
    with pytest.raises(BadRecord, match="1 <image> marker for 2 images"):
        continuation_ids("<image>", tokenizer, "qwen2", 2)
    text = continuation_ids("The <image> tag?", tokenizer, "qwen2", 0)
    assert tokenizer.decode(text) == "USER: The <image> tag? ASSISTANT:"
    with pytest.raises(UserError, match="plain has no dialogue"):
        continuation_ids("And now?", tokenizer, "plain", 0)


def test_stop_tokens() -> None:
    qwen2, llama3, spm = qwen2_tokenizer(), llama3_tokenizer(), spm_tokenizer(legacy=True)
    assert end_id(qwen2, "qwen2") == qwen2.token_id("<|im_end|>") == 151645
    assert qwen2.find("</s>") == 128247  # an ordinary token there
    assert stop_ids(qwen2, "qwen2") == [151645, 151643]
    assert stop_ids(qwen2, "plain") == [198, 151645, 151643]
    assert stop_ids(llama3, "llama3") == [128001, 128009]
    assert stop_ids(spm, "v1") == [2]
    newline, *others = stop_ids(spm, "plain_v1")
    assert spm.decode([newline]) == "\n"
    assert others == [2]


def test_template_of_another_vocabulary() -> None:
    with pytest.raises(UserError, match=r"the tokenizer: has no token '</s>', which the template v1 ends answers with"):
        end_id(byte_tokenizer(), "v1")
    with pytest.raises(UserError, match=r"no token .<\|end_of_text\|>"):
        stop_ids(spm_tokenizer(legacy=True), "llama3")
