"""Experts as a config names them: in this process, behind HTTP, or missing."""

import io
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from eve_jax.curate.experts.config import BoxesConfig, ExpertsConfig, OcrConfig, TagsConfig
from eve_jax.curate.experts.draw import draw_findings
from eve_jax.curate.experts.endpoint import KEY, ImageRefused, ask_endpoint
from eve_jax.curate.experts.form import read_findings
from eve_jax.curate.experts.ocr import make_ocr
from eve_jax.curate.experts.open import open_experts
from eve_jax.errors import FieldError, Unreachable, UserError
from tests.scripted_endpoint import Scripted, scripted_endpoint

IMAGE = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
LINE = {"text": "EXIT", "score": 0.99, "box": [0.1, 0.1, 0.5, 0.2]}


@pytest.fixture
def server() -> Iterator[tuple[str, type[Scripted]]]:
    with scripted_endpoint() as made:
        yield made


def answer(value: Any, status: int = 200, **headers: str) -> tuple[int, dict[str, str], bytes]:
    return status, {name.replace("_", "-"): text for name, text in headers.items()}, json.dumps(value).encode()


def test_an_endpoint_gets_the_image_and_its_list_is_kept_by_score(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url, handler = server
    monkeypatch.setenv(KEY, "secret")
    weak = LINE | {"score": 0.5}
    handler.script = [answer([weak, LINE])]
    look = open_experts(ExpertsConfig(run="ocr", ocr=OcrConfig(url=url)))
    assert look(IMAGE) == {"ocr": [LINE]}
    headers, body = handler.sent[0]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(body))), IMAGE)
    assert headers["Authorization"] == "Bearer secret" and headers["Content-Type"] == "image/png"
    tag = [{"name": f"t{k}", "score": k / 10} for k in range(10)]
    handler.script = [answer({"tags": tag})]
    look = open_experts(ExpertsConfig(run="tags", tags=TagsConfig(url=url, most=2)))
    assert look(IMAGE) == {"tags": [{"name": "t9", "score": 0.9}, {"name": "t8", "score": 0.8}]}


def test_a_busy_endpoint_is_asked_again_and_retry_after_is_kept(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url, handler = server
    pauses: list[float] = []
    monkeypatch.setattr("eve_jax.process.posting.time.sleep", pauses.append)
    handler.script = [answer("busy", 429, Retry_After="7"), answer("", 503), answer("", 500), answer([LINE])]
    assert ask_endpoint("ocr", url, 5, 600)(IMAGE) == [LINE]
    assert pauses == [7.0, 1.0, 2.0]
    assert len(handler.sent) == 4


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (413, "too many pixels", ImageRefused, 'the image is refused: status 413: "too many pixels"'),
        (404, "no such model", UserError, 'status 404: "no such model"; check the address and EVE_EXPERTS_KEY'),
        (200, [{"text": "EXIT"}], UserError, "ocr[0]: score is missing"),
        (200, {"boxes": []}, UserError, "expected a list"),
    ],
)
def test_other_answers_are_one_line(server: Any, status: int, body: Any, kind: Any, message: str) -> None:
    url, handler = server
    handler.script = [answer(body, status)]
    with pytest.raises(UserError) as caught:
        ask_endpoint("ocr", url, 5, 600)(IMAGE)
    assert type(caught.value) is kind and f"experts.ocr.url={url}: " in str(caught.value)
    assert message in str(caught.value) and len(handler.sent) == 1


def test_an_endpoint_that_stays_away_ends_with_a_line(server: Any) -> None:
    url, handler = server
    handler.script = [answer("starting", 503)]
    with pytest.raises(Unreachable, match=r"no answer for 0\.2 s \(status 503: .starting.\); rerun"):
        ask_endpoint("ocr", url, 5, 0.2)(IMAGE)
    with pytest.raises(Unreachable, match=r"no answer for 0 s .*[Rr]efused"):
        ask_endpoint("ocr", "http://127.0.0.1:9/", 5, 0)(IMAGE)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"run": "ocr,ocr"}, r"config\.experts\.run='ocr,ocr': expected some of tags, boxes, ocr, each once"),
        ({"run": "ocx"}, r"config\.experts\.run='ocx': expected some of"),
        ({"run": "boxes"}, r"config\.experts\.boxes\.folder='': .*npm install @vladmandic/human"),
        ({"ocr": {"url": "localhost:80"}}, r"config\.experts\.ocr\.url='localhost:80': expected http://"),
        ({"tags": {"url": "ftp://a"}}, r"config\.experts\.tags\.url='ftp://a': expected http://"),
        ({"tags": {"score": 2.0}}, r"config\.experts\.tags\.score=2\.0: expected a number from 0 to 1"),
    ],
)
def test_a_wrong_config_is_refused(values: dict[str, Any], message: str) -> None:
    given = ExpertsConfig().to_dict()
    for name, value in values.items():
        given[name] = given[name] | value if isinstance(value, dict) else value
    with pytest.raises(FieldError, match=message):
        ExpertsConfig.from_values(given)


def test_a_config_comes_back_from_its_values() -> None:
    config = ExpertsConfig(run="ocr, boxes", boxes=BoxesConfig(folder="models"))
    assert ExpertsConfig.from_values(config.to_dict()) == config


def test_without_rapidocr_a_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(UserError, match=r"needs rapidocr .*pip install .*\[experts\].*experts\.ocr\.url"):
        open_experts(ExpertsConfig(run="ocr"))


def test_a_folder_without_networks_of_ocr_is_named(tmp_path: Any) -> None:
    pytest.importorskip("rapidocr")
    with pytest.raises(UserError, match=r"experts\.ocr\.folder=.*expected one file \*_det_\*\.onnx there, found none"):
        make_ocr(OcrConfig(folder=str(tmp_path)))


@pytest.mark.slow
def test_ocr_reads_lines_in_order_with_their_places() -> None:
    pytest.importorskip("rapidocr")
    sign = Image.new("RGB", (640, 320), "white")
    pen = ImageDraw.Draw(sign)
    pen.text((40, 40), "PLATFORM 9", "black", ImageFont.load_default(60))
    pen.text((40, 180), "London departs", "navy", ImageFont.load_default(48))
    found = make_ocr(OcrConfig())(np.asarray(sign))
    assert [one["text"] for one in found] == ["PLATFORM 9", "London departs"]
    for one, top in zip(found, (40, 180), strict=True):
        x1, y1, x2, y2 = one["box"]
        assert 30 < x1 * 640 < 50 and top - 5 < y1 * 320 < top + 25 and x2 > 0.4 and y2 * 320 < top + 75
    assert read_findings({"ocr": found}, "sign") == {"ocr": found}
    assert make_ocr(OcrConfig())(np.full((64, 64, 3), 255, np.uint8)) == []


@pytest.mark.slow
def test_ocr_is_the_same_in_several_threads() -> None:
    pytest.importorskip("rapidocr")
    signs = []
    for number in range(6):
        sign = Image.new("RGB", (200 + 40 * number, 160 + 10 * number), "white")
        ImageDraw.Draw(sign).text(
            (20, 20), f"GATE {number} TO {number * 37}", "black", ImageFont.load_default(30 + number)
        )
        signs.append(np.asarray(sign))
    read = make_ocr(OcrConfig())
    expected = [read(sign) for sign in signs]
    assert all(expected)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, signs * 2)) == expected * 2


def test_findings_are_drawn_where_they_are() -> None:
    image = Image.new("RGB", (200, 100), "black")
    drawn = draw_findings(image, {"boxes": [{"name": "cup", "score": 0.5, "box": [0.5, 0.4, 0.9, 0.8]}], "ocr": []})
    changed = np.argwhere(np.asarray(drawn).any(2))
    assert changed.min(0).tolist() == [26, 100] and changed.max(0).tolist() == [80, 180]
    assert not np.asarray(image).any()  # the image itself stays as it is
    assert np.array_equal(np.asarray(draw_findings(image, {"tags": [{"name": "a", "score": 1.0}]})), np.asarray(image))


def test_ocr_of_large_writing_in_small_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """`short_side` is the size to which rapidocr enlarges; large words are read at a third of its own."""
    rapidocr = pytest.importorskip("rapidocr")
    from matplotlib import font_manager
    from PIL import Image, ImageDraw, ImageFont

    sizes = []
    made = rapidocr.RapidOCR

    def make(params: dict[str, Any]) -> Any:
        sizes.append(params["Det.limit_side_len"])
        return made(params=params)

    monkeypatch.setattr(rapidocr, "RapidOCR", make)
    image = Image.new("RGB", (160, 64), "white")
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 30)
    ImageDraw.Draw(image).text((80, 32), "MARKET", "black", font, anchor="mm")
    found = make_ocr(OcrConfig(short_side=256))(np.asarray(image))
    assert [one["text"] for one in found] == ["MARKET"] and sizes == [256]
