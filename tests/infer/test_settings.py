"""Settings of the API: NumPy's numbers count as Python's, anything else is one line that names the setting."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eve_jax import EVE
from eve_jax.data.image.rule import ImageRule
from eve_jax.errors import UserError, name_fields
from eve_jax.infer import score
from eve_jax.infer.sampling import Sampling
from eve_jax.infer.settings import check_settings
from tests.data.synthetic import byte_tokenizer

RULE: dict[str, Any] = {"template": "qwen2", "image_mode": "anyratio_hd", "max_size": 0, "max_aspect": 8.0}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"max_new_tokens": 3.0}, "max_new_tokens=3.0: expected a whole number of at least 1"),
    ({"max_new_tokens": True}, "max_new_tokens=True: expected"),
    ({"max_new_tokens": "5"}, "max_new_tokens='5': expected"),
    ({"max_new_tokens": 0}, "max_new_tokens=0: expected"),
    ({"max_new_tokens": -1}, "max_new_tokens=-1: expected"),
    ({"max_new_tokens": None}, "max_new_tokens=None: expected"),
    ({"temperature": "0.5"}, "temperature='0.5': expected 0"),
    ({"temperature": float("nan")}, "temperature=nan: expected 0"),
    ({"temperature": float("inf")}, "temperature=inf: expected 0"),
    ({"temperature": -1}, "temperature=-1: expected 0"),
    ({"temperature": None}, "temperature=None: expected 0"),
    ({"temperature": [0.5]}, r"temperature=\[0.5\]: expected 0"),
    ({"temperature": 1, "top_p": "0.9"}, "top_p='0.9': expected more than 0 and at most 1"),
    ({"temperature": 1, "top_p": 0}, "top_p=0: expected"),
    ({"temperature": 1, "top_p": np.nan}, "top_p=nan: expected"),
    ({"temperature": 1, "top_p": None}, "top_p=None: expected"),
    ({"top_p": 0.5}, "top_p=0.5 needs a temperature above 0"),
    ({"seed": None}, "seed=None: expected a whole number of 0 to 4294967295"),
    ({"seed": -1}, "seed=-1: expected"),
    ({"seed": 2**40}, "seed=1099511627776: expected"),
    ({"seed": 1.5}, "seed=1.5: expected"),
    ({"stop": ""}, "stop='': expected a text or a list of at most 4, each of 1 to 1,024 characters"),
    ({"stop": ["a", ""]}, r"stop=\['a', ''\]: expected"),
    ({"stop": list("abcde")}, "stop=.*: expected a text or a list of at most 4"),
    ({"stop": "a" * 1025}, r"stop='aaaa.*\.\.\.: expected"),
    ({"stop": None}, "stop=None: expected"),
    ({"stop": 5}, "stop=5: expected"),
    ({"stop": "a\ud800"}, "stop: character 2 is"),
    ({"max_tokens": 3}, "unknown setting 'max_tokens': expected one of max_new_tokens, stop, temperature, top_p, seed"),
    ({"temprature": 3}, "unknown setting 'temprature': .* did you mean temperature?"),
]


@pytest.mark.parametrize(("settings", "says"), WRONG)
def test_wrong_settings(eve: EVE, settings: dict[str, Any], says: str) -> None:
    doors: list[Callable[[], Any]] = [
        lambda: check_settings(**settings),
        lambda: eve.generate("Why?", **settings),
        lambda: eve.answer("Why?", **settings),
        lambda: eve.stream("Why?", **settings),
        lambda: eve.generate_batch(["Why?"], **settings),
        lambda: eve.generate_batch([], **settings),
        lambda: eve.chat().ask("Why?", **settings),
        lambda: list(eve.chat().stream("Why?", **settings)),
    ]
    for door in doors:
        with pytest.raises(UserError, match=says) as error:
            door()
        assert "\n" not in str(error.value)


def test_numpys_numbers_are_numbers() -> None:
    settings: Any = {"max_new_tokens": np.int64(7), "temperature": np.float32(0.5), "seed": np.uint8(3)}
    run = check_settings(**settings, top_p=np.float64(0.9))
    assert tuple(run) == (7, Sampling(0.5, 0.9, 3), ())
    assert [type(v) for v in (run.max_new_tokens, run.sampling.seed, run.sampling.temperature)] == [int, int, float]
    assert check_settings() == (256, Sampling(), ())
    assert check_settings(stop="a").stop == check_settings(stop=["a"]).stop == ("a",)
    assert check_settings(temperature=1, seed=2**32 - 1).sampling == Sampling(1.0, 1.0, 4294967295)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"rows": 0}, "rows=0: expected a whole number of at least 1"),
        ({"rows": "2"}, "rows='2': expected"),
        ({"rows": 2.0}, "rows=2.0: expected"),
        ({"conversations": "Why?"}, "conversations='Why\\?': expected a list of questions"),
        ({"conversations": None}, "conversations=None: expected a list"),
        ({"conversations": ["Why?", None]}, r"^conversations\[1\]: messages: expected a question"),
        ({"conversations": ["Why?", ""]}, r"^conversations\[1\]: the question is empty"),
        ({"images": "a"}, "images='a': expected a list with the images of each conversation"),
        ({"images": [[]]}, "1 lists of images for 2 conversations"),
        ({"images": [None, "nowhere.png"]}, r"^conversations\[1\]: images: nowhere\.png: missing file"),
        ({"images": [None, [None, 3]]}, r"^conversations\[1\]: images\[1\]: expected a path or a PIL image, not int"),
        ({"images": [[["a"]], None]}, r"^conversations\[0\]: images\[0\]: expected a path or a PIL image, not list"),
        ({"progress": 1}, "progress=1: expected a text"),
    ],
)
def test_wrong_batches(eve: EVE, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        eve.generate_batch(**{"conversations": ["Why?", "What?"]} | arguments)


def short(text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": "S"}, {"role": "user", "content": text}]


def test_none_is_no_image(eve: EVE) -> None:
    image = Image.new("RGB", (64, 64), "red")
    questions = [short("Why?"), short("What?")]
    plain = [eve.generate(q, max_new_tokens=3) for q in questions]
    assert eve.generate(questions[0], images=None, max_new_tokens=3) == plain[0]
    assert "".join(eve.stream(questions[0], None, max_new_tokens=3)) == plain[0]
    assert eve.chat("S").ask("Why?", None, max_new_tokens=3).text == plain[0]
    assert eve.generate_batch(questions, [None, None], max_new_tokens=3) == plain
    seen = eve.generate(questions[0], image, max_new_tokens=3)
    for given in (image, [image], (image,), [image, None], [None, image]):
        assert eve.generate_batch(questions, [given, None], max_new_tokens=3) == [seen, plain[1]]
    assert eve.generate(questions[0], [None, None], max_new_tokens=3) == plain[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"folder": None}, "folder=None: expected the path of a folder"),
        ({"folder": b"x"}, "folder=b'x': expected"),
        ({"fit": "stretch"}, "fit: 'stretch' is not one of shrink, fill"),
        ({"fit": 1}, "fit: 1 is not one of"),
        ({"fit": ["fill"]}, "fit: .* is not one of"),
        ({"fit": None}, "fit: None is not one of"),
        ({"image_first": "no"}, "image_first='no': expected True, False, or None"),
        ({"image_first": 1}, "image_first=1: expected"),
        ({"template": 5}, "template=5: expected the name of a template"),
        ({"template": "plain"}, "template=plain is for captions, not for asking: use qwen2, which fits the tokenizer"),
        ({"template": "plain_v1"}, "template=plain_v1 is for captions.*use qwen2"),
        ({"max_size": "800"}, "max_size='800': expected 0"),
        ({"max_size": 800.0}, "max_size=800.0: expected 0"),
        ({"max_size": True}, "max_size=True: expected 0"),
        ({"max_size": -32}, "max_size=-32: expected 0"),
        ({"max_size": 5}, "max_size=5: expected 0 or a number of pixels, at least 32"),
        ({"cache": None}, "cache=None: expected True, False, or the path of a folder"),
    ],
)
def test_wrong_settings_of_a_model(hf: Path, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        EVE.from_pretrained(**{"folder": hf} | arguments)


@pytest.mark.parametrize("question", [None, b"Why?", 3, ["Why?"]])
def test_questions_that_are_no_text(eve: EVE, question: Any) -> None:
    chat = eve.chat()
    with pytest.raises(UserError, match=r"question=.*: expected a text"):
        chat.ask(question)
    with pytest.raises(UserError, match=r"system=.*: expected a text"):
        eve.chat(question)
    with pytest.raises(UserError, match="question: character 2 is"):
        chat.ask("a\ud800")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rows": 0}, "rows=0: expected a whole number of at least 1"),
        ({"rows": "2"}, "rows='2': expected"),
        ({"threads": -1}, "threads=-1: expected a whole number of at least 0"),
        ({"row_tokens": 1.5}, "row_tokens=1.5: expected"),
        ({"max_tokens": True}, "max_tokens=True: expected"),
        ({"image_first": "no"}, "image_first='no': expected True or False"),
        ({"max_size": "96"}, "max_size='96': expected 0"),
        ({"fit": "stretch"}, "fit: 'stretch' is not one of"),
        ({"row": 2}, "unknown setting 'row': .*; did you mean rows?"),
    ],
)
def test_wrong_settings_of_scores(eve: EVE, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        score.ScoreSettings.of(RULE, byte_tokenizer(), **changes)


def test_images_of_scores_that_are_no_folder(eve: EVE, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="images=5: expected the path of a folder"):
        eve.score(tmp_path / "records.jsonl", 5)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["long", [128], True, -5, 128.5, "128"])
def test_positions_that_are_none(hf: Path, tmp_path: Path, given: Any) -> None:
    folder = Path(shutil.copytree(hf, tmp_path / "hf"))
    config = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": given}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"max_position_embeddings=.*: expected a number of positions"):
        EVE.from_pretrained(folder)


def test_settings_of_scores() -> None:
    settings = score.ScoreSettings.of(RULE, byte_tokenizer(), rows=np.int64(3), fit=None)
    assert (settings.rows, settings.rule.images) == (3, ImageRule("anyratio_hd", "shrink", 0, 8.0))


@pytest.mark.parametrize("field", ["max_size", "patch", "max_aspect"])
@pytest.mark.parametrize("value", ["64", True, None, float("nan")])
def test_image_rules_of_other_types(field: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"^{field}="):
        ImageRule(**{field: value})


ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"fit": "stretch"}, "^fit: 'stretch' is not one of shrink, fill$"),
    ({"fit": 3}, "^fit: 3 is not one of"),
    ({"max_aspect": 0.5}, "^max_aspect=0.5: expected 0 or a number of at least 1"),
    ({"max_aspect": "8"}, "^max_aspect='8': expected"),
    ({"max_size": 5}, "^max_size=5: expected 0 or a number of pixels, at least 32"),
    ({"max_size": 10**6}, "^max_size=1000000: expected"),
    ({"template": "markdown"}, "^template: 'markdown' is not one of"),
    ({"template": "plain"}, "^template=plain is for captions"),
    ({"image_first": "yes"}, "^image_first='yes': expected True"),
]


@pytest.mark.parametrize(("arguments", "says"), ARGUMENTS)
def test_arguments_are_called_by_their_names(hf: Path, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        EVE.from_pretrained(hf, **arguments)


@pytest.mark.parametrize(("arguments", "says"), [one for one in ARGUMENTS if "plain" not in one[1]])
def test_arguments_of_scores_are_called_by_their_names(eve: EVE, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        eve.score("records.jsonl", **arguments)


def test_files_of_scores_are_called_by_their_names(eve: EVE, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.jsonl: no such records file; set records to files that exist"):
        eve.score(tmp_path / "gone.jsonl")
    (tmp_path / "r.jsonl").write_text("{}")
    with pytest.raises(UserError, match=r"gone: no such folder; set images to the one that image paths start from"):
        eve.score(tmp_path / "r.jsonl", tmp_path / "gone")


def test_a_door_may_call_arguments_otherwise(hf: Path) -> None:
    with (
        pytest.raises(UserError, match=r"^--max_aspect=0\.5: expected"),
        name_fields(lambda f: f"--{f.partition('.')[2]}"),
    ):
        EVE.from_pretrained(hf, max_aspect=0.5)
