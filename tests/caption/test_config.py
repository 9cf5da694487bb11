"""Every field of the config of `launch.caption` refuses what it cannot have, in a line that names it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from configs import caption, stage3
from eve_jax.caption.config import CaptionConfig, read_urls
from eve_jax.errors import FieldError, UserError
from eve_jax.process.section import Section, section_of, typed_fields
from tests.config.fields import out_of_range, wrong_types


def fields(section: type[Section] = CaptionConfig) -> Iterator[tuple[str, Any, Any]]:
    for name, kind, rule in typed_fields(section):
        inner = section_of(kind)
        if inner is None:
            yield section.PATH + name, kind, rule
        else:
            yield from fields(inner)


def changed(path: str, value: Any) -> ConfigDict:
    found = caption.get_config().to_dict()
    node, names = found, path.split(".")
    for name in names[:-1]:
        node = node[name]
    node[names[-1]] = value
    return ConfigDict(found, type_safe=False)


@pytest.mark.parametrize("arg", ["", "densefusion"])
def test_the_page_of_fields_has_those_of_the_dataclasses(arg: str) -> None:
    config = caption.get_config(arg)
    assert CaptionConfig.of(config).to_dict() == config.to_dict()
    assert CaptionConfig.of(CaptionConfig.of(config)).to_dict() == config.to_dict()


@pytest.mark.parametrize("field", list(fields()), ids=lambda field: field[0])
def test_wrong_types_and_numbers_out_of_range(field: Any) -> None:
    path, kind, rule = field
    assert kind in (bool, str) or rule.low > -float("inf"), path
    for value in wrong_types(kind) + out_of_range(kind, rule):
        with pytest.raises(UserError) as error:
            CaptionConfig.of(changed(path, value))
        assert str(error.value).startswith(f"config.{path}") and "expected" in str(error.value)


def test_urls() -> None:
    assert read_urls("http://a:1/v1/, https://b/v1/chat/completions") == ["http://a:1/v1", "https://b/v1"]
    for text in ("a:1/v1", "http://", "http://a:x/v1", "ftp://a/v1", "http://[::1/v1", "http://a/v1?key=1"):
        with pytest.raises(FieldError, match=r"endpoint\.url"):
            read_urls(text)
    with pytest.raises(FieldError, match="names a URL twice"):
        read_urls("http://a/v1,http://a/v1/")


@pytest.mark.parametrize("body", ["[]", "{", "7", '{"model": "x"}', '{"stream": true}', '{"a": 1, "a": 2}'])
def test_further_fields_of_a_request_are_a_json_object(body: str) -> None:
    with pytest.raises(FieldError, match=r"config\.endpoint\.body"):
        CaptionConfig.of(changed("endpoint.body", body))


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("prompt.text", "{atl}", "config.prompt.text has {atl}: expected one of alt, boxes, ocr, tags, block"),
        ("prompt.text", " ", "config.prompt.text is empty: say what the caption has to be like"),
        ("endpoint.url", "host:8000", "config.endpoint.url='host:8000': expected http://HOST:PORT/v1"),
        ("checks.min_words", 900, "config.checks.min_words=900 is more than config.checks.max_words=400"),
        ("experts.block.boxes", -1, "config.experts.block.boxes=-1: expected a whole number of at least 0"),
    ],
)
def test_what_is_said(path: str, value: Any, says: str) -> None:
    with pytest.raises(UserError) as error:
        CaptionConfig.of(changed(path, value))
    assert str(error.value).startswith(says)


def test_endpoint_and_model_have_to_be_given() -> None:
    for name, says in (("url", "is empty: name http://HOST:PORT/v1"), ("model", "is empty: name the model")):
        config = caption.get_config()
        config.endpoint.url, config.endpoint.model = "http://a/v1", "m"
        config.endpoint[name] = " "
        with pytest.raises(UserError, match=f"config.endpoint.{name} {says}"):
            CaptionConfig.of(config).endpoint.check_given()


def test_a_prompt_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("Say what {alt} is.\n")
    assert caption.get_config(f"prompt={tmp_path}/mine.txt").prompt.text == "Say what {alt} is."
    with pytest.raises(UserError, match="no such file"):
        caption.get_config("prompt=/nowhere.txt")


def test_configs_of_stages_are_refused() -> None:
    with pytest.raises(UserError, match="--config=stage3 is not for captions: use --config=caption"):
        CaptionConfig.of(stage3.get_config("llm=tiny"))
