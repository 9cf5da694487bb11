"""Every reference file is reproduced: prompts, images, verdicts and aggregate; bad files get one line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eve_jax.errors import UserError
from eve_jax.eval.replay import replay
from tests.eval.goldens import NAMES, differences, golden

READ = ("benchmark", "protocol", "task", "generation_kwargs", "rows", "outputs", "judge_calls", "annotation_file")


def _write(path: Path, data: Any) -> Path:
    path.write_text(json.dumps(data))
    return path


def test_all_files_are_there() -> None:
    assert len(NAMES) == 36


@pytest.mark.parametrize("name", NAMES)
def test_is_reproduced(name: str, tmp_path: Path) -> None:
    """Of the file only what an evaluation has is given: no prompt, no verdict, no aggregate, no kind."""
    data = golden(name)
    found = replay(_write(tmp_path / "f.json", {key: data[key] for key in READ if key in data}))
    per_row = [{key: value for key, value in row.items() if key != "kind"} for row in data["per_row"]]
    assert found["prompts"] == data["prompts"]
    assert differences(per_row, found["per_row"]) == []
    assert differences(data["aggregate"], found["aggregate"]) == []
    if "images" in data:
        videos = [row.get("data_type") == "video" for row in data["rows"]]  # a row does not say how many frames
        pairs = zip(data["images"], found["images"], videos, strict=True)
        assert all(video or len(images) == len(fields) for images, fields, video in pairs)


def test_images_of_a_row_are_in_the_order_of_their_columns(tmp_path: Path) -> None:
    data = golden("mmmu.lmms")
    found = replay(_write(tmp_path / "f.json", data))
    assert found["images"][10] == ["image_1", "image_2", "image_3", "image_4"]
    assert found["parse_failed"] == data["aggregate"]["not_parsed"] + 1  # and an empty answer to an open question


def test_rows_in_another_order_give_the_same_verdicts(tmp_path: Path) -> None:
    for name in ("mme.eve", "mmbench_en.lmms_static", "gqa.lmms"):
        data = golden(name)
        backwards = data | {"rows": data["rows"][::-1], "outputs": data["outputs"][::-1]}
        one, other = replay(_write(tmp_path / "a.json", data)), replay(_write(tmp_path / "b.json", backwards))
        assert one["per_row"] == other["per_row"][::-1]
        assert differences(one["aggregate"], other["aggregate"]) == []


def test_the_command_prints_one_line_and_imports_no_jax(tmp_path: Path) -> None:
    file = _write(tmp_path / "f.json", golden("pope.eve"))
    code = (
        "import runpy, sys; sys.argv = ['launch.eval', 'replay', sys.argv[1], '--json'];"
        "runpy.run_module('launch.eval', run_name='__main__')"
    )
    wrapped = f"import atexit, sys; atexit.register(lambda: print('jax' in sys.modules, file=sys.stderr)); {code}"
    done = subprocess.run([sys.executable, "-c", wrapped, str(file)], capture_output=True, text=True)
    assert done.stdout.count("\n") == 1 and done.stderr.strip() == "False"
    assert set(json.loads(done.stdout)) == {"prompts", "images", "per_row", "aggregate", "parse_failed"}


def _without(key: str) -> dict[str, Any]:
    return {k: v for k, v in golden("pope.eve").items() if k != key}


BAD: list[tuple[Any, str]] = [
    ([], "does not hold a JSON object"),
    (_without("rows"), "rows must be a list"),
    (_without("protocol"), "protocol must be a text"),
    (golden("pope.eve") | {"benchmark": "popp"}, "unknown task 'popp'; did you mean pope"),
    (golden("pope.eve") | {"protocol": "lmms_ocr"}, "has no protocol 'lmms_ocr'; it has eve, lmms"),
    (golden("pope.eve") | {"outputs": ["yes"]}, "68 rows but 1 outputs"),
    (golden("pope.eve") | {"rows": [1], "outputs": ["yes"]}, "row 1 must be an object"),
    (golden("pope.eve") | {"rows": golden("pope.eve")["rows"][:1], "outputs": [3]}, "output 1 must be a text or null"),
    (golden("gqa.lmms") | {"rows": [{"question": "a?"}], "outputs": [""]}, "row 1 is not as its task expects"),
    (golden("mmmu.lmms") | {"rows": [{"id": "x"}], "outputs": [""]}, "no field 'question_type'"),
    ({k: v for k, v in golden("mmvet.eve").items() if k != "judge_calls"}, "mmvet.eve needs a judge"),
    (golden("mmvet.eve") | {"judge_calls": golden("mmvet.eve")["judge_calls"][:5]}, "hold no further reply for row 5"),
    ({k: v for k, v in golden("seed.eve").items() if k != "annotation_file"}, "no field '70000'"),
]


@pytest.mark.parametrize(("data", "message"), BAD)
def test_a_bad_file_gets_one_line(data: Any, message: str, tmp_path: Path) -> None:
    file = _write(tmp_path / "f.json", data)
    with pytest.raises(UserError) as error:
        replay(file)
    assert str(file) in str(error.value) and message in str(error.value)


def test_a_file_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text("{")
    with pytest.raises(UserError, match=r"f\.json is not valid JSON"):
        replay(tmp_path / "f.json")
    with pytest.raises(UserError, match=r"none\.json: no such file"):
        replay(tmp_path / "none.json")
