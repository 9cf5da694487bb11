"""A template of one's own is one entry of TEMPLATES, also where every turn has a header, the system's included."""

from collections.abc import Sequence

import numpy as np
import pytest

from configs import stage3
from eve_jax.config.stage import Config
from eve_jax.data.record import Turn
from eve_jax.data.text.encode import IGNORE, IMAGE_ID, continuation_ids, encode_chat, prompt_ids
from eve_jax.data.text.templates import TEMPLATES, Template, check_template
from eve_jax.data.text.tokenizer import Tokenizer
from tests.vocab import qwen2_tokenizer

CHATML = Template(
    system_begin="<|im_start|>system\n",
    system="You are a helpful assistant.",
    system_end="<|im_end|>\n",
    human="<|im_start|>user\n",
    human_end="<|im_end|>\n",
    gpt="<|im_start|>assistant\n",
    end="<|im_end|>",
    answer_end="\n",
)
DIALOGUE = [Turn("human", "<image>\nWhat is it?"), Turn("gpt", "A bus."), Turn("human", "Sure?"), Turn("gpt", "Yes.")]
# What Qwen2's own chat template writes for it.
WRITTEN = """<|im_start|>user
<image>
What is it?<|im_end|>
<|im_start|>assistant
A bus.<|im_end|>
<|im_start|>user
Sure?<|im_end|>
<|im_start|>assistant
Yes.<|im_end|>"""
SYSTEM = "<|im_start|>system\n{}<|im_end|>\n"


@pytest.fixture
def tokenizer(monkeypatch: pytest.MonkeyPatch) -> Tokenizer:
    monkeypatch.setitem(TEMPLATES, "mine", CHATML)
    found = qwen2_tokenizer()
    check_template(found, "mine")
    return found


def text_of(ids: np.ndarray, tokenizer: Tokenizer) -> str:
    return "<image>".join(
        tokenizer.decode(part[part != IMAGE_ID], skip_special=False)
        for part in np.split(ids, np.flatnonzero(ids == IMAGE_ID))
    )


@pytest.mark.parametrize(
    ("system", "header"),
    [
        ([], SYSTEM.format(CHATML.system)),
        ([Turn("system", "Be brief.")], SYSTEM.format("Be brief.")),
        ([Turn("system", "")], ""),
    ],
)
def test_every_turn_has_its_header(tokenizer: Tokenizer, system: Sequence[Turn], header: str) -> None:
    ids, labels = encode_chat([*system, *DIALOGUE], tokenizer, "mine", 1)
    assert text_of(ids, tokenizer) == header + WRITTEN
    assert tokenizer.decode(labels[labels != IGNORE], skip_special=False) == "A bus.<|im_end|>Yes.<|im_end|>"
    first = prompt_ids([*system, *DIALOGUE[:1]], tokenizer, "mine", 1)
    assert text_of(first, tokenizer) == header + WRITTEN.partition("A bus.")[0]
    answered = encode_chat([*system, *DIALOGUE[:2]], tokenizer, "mine", 1).ids
    second = np.concatenate([answered, continuation_ids("Sure?", tokenizer, "mine", 0)])
    assert second.tolist() == prompt_ids([*system, *DIALOGUE[:3]], tokenizer, "mine", 1).tolist()
    assert text_of(second, tokenizer) == header + WRITTEN.partition("Yes.")[0]


def test_a_config_takes_it(tokenizer: Tokenizer) -> None:
    c = stage3.get_config("llm=tiny")
    c.data.template = "mine"
    assert Config.of(c).data.template == "mine"
