"""Whether a tokenizer of any kind has the end of a template as one token, whatever stands next to it."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as InnerTokenizer

from configs import stage3
from eve_jax.data.rows.pipeline import open_stage_data
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.text.load import load_tokenizer
from eve_jax.data.text.templates import TEMPLATES, check_template, end_id, fitting_templates, special_ends, stop_ids
from eve_jax.data.text.tokenizer import FastTokenizer, Tokenizer
from eve_jax.errors import UserError
from tests.data.synthetic import byte_tokenizer, write_records
from tests.vocab import llama3_tokenizer, qwen2_tokenizer, spm_tokenizer

END = "<|im_end|>"


def bytes_and(*tokens: AddedToken, vocab: tuple[str, ...] = ()) -> FastTokenizer:
    """A tokenizer of single bytes, of `vocab` as entries of its vocabulary, and of added `tokens`."""
    fields = json.loads(byte_inner(()).to_str())
    for entry in vocab:
        fields["model"]["vocab"][entry] = len(fields["model"]["vocab"])
    fields["model"]["ignore_merges"] = True
    inner = InnerTokenizer.from_str(json.dumps(fields))
    inner.add_tokens(list(tokens))
    return FastTokenizer(inner)


def byte_inner(special: Sequence[str] = (END,)) -> InnerTokenizer:
    tokenizer = byte_tokenizer(special)
    assert isinstance(tokenizer, FastTokenizer)
    return tokenizer.inner


def test_each_kind_of_tokenizer_has_its_templates() -> None:
    chatml = ["chatml", "qwen2_instruct", "qwen2.5", "qwen3", "smollm2", "smollm3"]
    assert fitting_templates(qwen2_tokenizer()) == ["qwen2", *chatml]
    assert fitting_templates(llama3_tokenizer()) == ["llama3", "llama3_instruct", "llama3.2_instruct"]
    both = [fitting_templates(spm_tokenizer(legacy)) for legacy in (True, False)]
    assert both[0] == both[1] == ["v1", "mistral"]
    assert fitting_templates(byte_tokenizer()) == ["qwen2"]
    assert special_ends(llama3_tokenizer()) == {"<|end_of_text|>": 128001, "<|eot_id|>": 128009}
    assert "</s>" not in special_ends(qwen2_tokenizer())


@pytest.mark.parametrize(
    ("tokenizer", "template", "fits"),
    [
        (qwen2_tokenizer, "llama3", "set config.data.template=qwen2 or chatml or "),
        (llama3_tokenizer, "qwen2", "set config.data.template=llama3 or llama3_instruct or "),
        (llama3_tokenizer, "v1", "set config.data.template=llama3 or llama3_instruct or "),
        (
            lambda: spm_tokenizer(legacy=True),
            "qwen2",
            "set config.data.template=v1 or mistral, which fits this tokenizer, or use",
        ),
        (
            lambda: spm_tokenizer(legacy=False),
            "llama3",
            "set config.data.template=v1 or mistral, which fits this tokenizer, or use",
        ),
        (lambda: bytes_and(), "qwen2", "use a tokenizer that has"),
    ],
)
def test_an_end_that_is_not_there(tokenizer: Callable[[], Tokenizer], template: str, fits: str) -> None:
    end = TEMPLATES[template].end
    for check in (check_template, end_id, stop_ids):
        with pytest.raises(UserError) as raised:
            check(tokenizer(), template)
        says = str(raised.value)
        assert f"has no token {end!r}, which the template {template} ends answers with: {fits}" in says
        assert "\n" not in says
    check_template(tokenizer(), "plain")
    check_template(tokenizer(), "plain_v1")


def test_an_end_that_is_an_ordinary_entry() -> None:
    """Qwen2 has `</s>` in its vocabulary, as text that its pre-tokenizer never leaves in one piece."""
    with pytest.raises(UserError, match=r"has '</s>' as entry 128247 of its vocabulary, but reads it as 3 other"):
        check_template(qwen2_tokenizer(), "v1")
    with pytest.raises(
        UserError, match=r"has '<\|im_end\|>' as entry 256 of its vocabulary.* as 10 other tokens; the template"
    ):
        check_template(bytes_and(vocab=(END,)), "qwen2")
    declared = bytes_and(AddedToken(END, special=True), vocab=(END,))
    assert end_id(declared, "qwen2") == 256


@pytest.mark.parametrize(
    ("token", "says"),
    [
        (AddedToken(END, special=True, lstrip=True), r"takes the white space next to '<\|im_end\|>' into this token"),
        (AddedToken(END, special=True, single_word=True), r"does not read '<\|im_end\|>' as a token of its own after"),
        (AddedToken("<|im_end|>USER", special=True), r"has no token '<\|im_end\|>'"),
    ],
)
def test_an_end_that_depends_on_its_neighbors(token: AddedToken, says: str) -> None:
    with pytest.raises(UserError, match=says):
        check_template(bytes_and(token), "qwen2")


def test_an_end_that_merges_with_its_neighbors() -> None:
    longer = bytes_and(AddedToken(END, special=True), AddedToken(END + "USER", special=True))
    with pytest.raises(UserError, match="does not read"):
        check_template(longer, "qwen2")
    earlier = bytes_and(
        AddedToken(END, special=True), AddedToken("</s" + END, special=True), AddedToken("|<", special=True)
    )
    with pytest.raises(UserError, match=r"after '\|'"):
        check_template(earlier, "qwen2")
    lower = InnerTokenizer.from_str(byte_inner().to_str())
    lower.normalizer = normalizers.Replace("hello<", "HELLO(")
    fields = json.loads(lower.to_str())
    fields["added_tokens"][0]["normalized"] = True
    with pytest.raises(UserError, match=r"after 'hello'"):
        check_template(FastTokenizer(InnerTokenizer.from_str(json.dumps(fields))), "qwen2")


def test_white_space_behind_an_end_is_nobodys() -> None:
    """As in Phi-3, whose tokens take the white space behind them: no template writes any there."""
    assert end_id(bytes_and(AddedToken(END, special=True, rstrip=True)), "qwen2") == 256


def test_several_tokens_before_a_text(tmp_path: Path) -> None:
    fields = json.loads(byte_inner().to_str())
    piece = {"SpecialToken": {"id": END, "type_id": 0}}
    fields["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [piece, piece, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {END: {"id": END, "ids": [256], "tokens": [END]}},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(fields))
    with pytest.raises(
        UserError, match=r"puts <\|im_end\|> <\|im_end\|> before a text; a single bos token is supported"
    ):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("template", ["llama3", "v1"])
def test_training_and_tables_are_refused_before_planning(template: str, tmp_path: Path) -> None:
    byte_tokenizer().save(tmp_path / "tokenizer")
    config = stage3.get_config("llm=tiny")
    with config.unlocked():
        config.data.update({"records": str(write_records(tmp_path, 3)), "images": str(tmp_path / "images")})
        config.data.update({"tokenizer": str(tmp_path / "tokenizer"), "template": template})
    says = rf"tokenizer: has no token .*{template} ends answers with: set config\.data\.template=qwen2, "
    with pytest.raises(UserError, match=says):
        open_stage_data(config, tmp_path / "stage")
    with pytest.raises(UserError, match=says):
        SampleRule.of(config)
    assert not (tmp_path / "stage").exists()


def test_words_before_the_end_without_pre_tokens() -> None:
    """A vocabulary of words only, cut at spaces: what it does not know is lost, its end is found all the same."""
    inner = InnerTokenizer(models.WordLevel({"[UNK]": 0, END: 1}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s"), "isolated")
    with pytest.raises(UserError, match="does not read"):
        check_template(FastTokenizer(inner), "qwen2")
    inner.add_special_tokens([AddedToken(END, special=True)])
    assert end_id(FastTokenizer(inner), "qwen2") == 1
