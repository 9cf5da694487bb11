"""Images: kinds look different, nothing leaves the image, equal scenes are equal images."""

from dataclasses import replace
from itertools import combinations
from random import Random

import numpy as np
import pytest

from eve_jax.demo import scenes as scenes_module
from eve_jax.demo.assets import WORDS, a, all_kinds, sprite, text_font
from eve_jax.demo.compose import TrainingComposer
from eve_jax.demo.scenes import Scene, SceneMaker, draw, word_map, zoomed
from eve_jax.demo.settings import FULL, PATCH, TINY, DemoSettings
from eve_jax.errors import UserError


def _scenes(n: int, settings: DemoSettings = FULL, seed: str = "test") -> list[Scene]:
    composer = TrainingComposer(settings, Random(seed))
    return [composer.scene() for _ in range(n)]


def test_kinds_have_different_names_and_looks() -> None:
    kinds = all_kinds()
    assert len(kinds) == 48
    assert len({k.name for k in kinds}) == len({k.char for k in kinds}) == 48
    assert {k.name for k in kinds} >= {"cat", "apple", "car", "hammer", "house"}
    assert all(k.name.isalpha() and k.name.islower() for k in kinds)
    thumbs = {}
    for kind in kinds:
        image = np.full((60, 60, 3), 255.0)
        rgba = np.asarray(sprite(kind.char, 60), np.float32)
        assert max(rgba.shape[:2]) == 60
        alpha = rgba[..., 3:] / 255
        height, width = rgba.shape[:2]
        image[:height, :width] = rgba[..., :3] * alpha + image[:height, :width] * (1 - alpha)
        assert image.min() < 100, f"{kind.name} is blank"
        thumbs[kind.name] = image
    nearest = min((np.abs(thumbs[x] - thumbs[y]).mean(), x, y) for x, y in combinations(thumbs, 2))
    assert nearest[0] > 10, nearest


def test_articles() -> None:
    assert [a(noun) for noun in ("cat", "owl", "elephant")] == ["a cat", "an owl", "an elephant"]


@pytest.mark.parametrize("settings", [FULL, TINY, replace(FULL, jitter=20, odd_share=1.0, odd_pixels=12)])
def test_everything_lies_inside_the_image(settings: DemoSettings) -> None:
    for scene in _scenes(300, settings):
        image = draw(scene)
        assert image.size == (scene.width, scene.height)
        for item in scene.items:
            thing = sprite(item.kind.char, item.size)
            assert item.x - thing.width // 2 >= 0 and item.x - thing.width // 2 + thing.width <= scene.width
            assert item.y - thing.height // 2 >= 0 and item.y - thing.height // 2 + thing.height <= scene.height
        if scene.sign is not None:
            assert scene.sign.x - scene.sign.width // 2 >= 0
            assert scene.sign.x + (scene.sign.width + 1) // 2 <= scene.width


def test_sizes_and_aspect_ratios_vary() -> None:
    scenes = _scenes(1500)
    sizes = {(scene.width, scene.height) for scene in scenes}
    assert len(sizes) > 100
    ratios = [scene.width / scene.height for scene in scenes]
    assert min(ratios) < 0.5 and max(ratios) > 2.5
    on_grid = sum(w % PATCH == 0 and h % PATCH == 0 for w, h in ((s.width, s.height) for s in scenes))
    assert 0.7 < on_grid / len(scenes) < 0.9
    patches = [max(1, round(s.width / PATCH)) * max(1, round(s.height / PATCH)) for s in scenes]
    assert 8 < np.mean(patches) < 30 and max(patches) <= 48


def test_every_word_fits_its_board() -> None:
    assert len(set(WORDS)) == 40 and all(3 <= len(word) <= 6 for word in WORDS)
    make = SceneMaker(replace(FULL, odd_share=0.0), Random(0))
    for word in WORDS:
        sign = make.sign(word, "red").sign
        assert sign is not None and 18 <= sign.letter_size <= FULL.letter_size
        assert text_font(sign.letter_size).getlength(word) <= sign.width - 8


def test_the_size_of_a_group_does_not_tell_its_number() -> None:
    make = SceneMaker(replace(FULL, odd_share=0.0), Random(3))
    kinds = all_kinds()
    for n in range(1, 5):
        sizes = {(s.width, s.height) for s in (make.group({kinds[0]: n, kinds[1]: 1}) for _ in range(20))}
        assert sizes == {(128, 192), (192, 128)}
        assert make.group({kinds[0]: n, kinds[1]: 1}).counts[kinds[0]] == n


def test_drawing_repeats() -> None:
    first, second = _scenes(40), _scenes(40)
    assert first == second
    assert all(draw(x).tobytes() == draw(y).tobytes() for x, y in zip(first, second, strict=True))
    assert _scenes(40, seed="other") != first


def test_word_map_follows_the_patches() -> None:
    make = SceneMaker(replace(FULL, margin_share=0.0, odd_share=0.0), Random(0))
    cat, owl = (next(k for k in all_kinds() if k.name == name) for name in ("cat", "owl"))
    assert word_map(make.row([cat, owl], "row")) == "Map: cat cat owl owl\n cat cat owl owl"
    assert word_map(make.row([cat, owl], "column")) == "Map: cat cat\n cat cat\n owl owl\n owl owl"
    assert word_map(make.sign("STOP", "red")) == "Map: red red red red\n STOP STOP STOP STOP"
    group = word_map(make.group({cat: 3}))
    assert group.count("cat") == 12 and group.count(".") == 12


def test_places_of_rows_and_columns() -> None:
    make = SceneMaker(FULL, Random(0))
    x, y, z = all_kinds()[:3]
    assert make.row([x, y], "row").places == {"left": x, "right": y}
    assert make.row([x, y, z], "column").places == {"top": x, "middle": y, "bottom": z}
    assert make.single(x).places == {}
    assert scenes_module.place_names("row", 2) == ("left", "right")


@pytest.mark.parametrize(
    ("field", "value"), [("kinds", 60), ("max_count", 9), ("object_size", (50, 90)), ("max_others", 4)]
)
def test_settings_out_of_range(field: str, value: object) -> None:
    with pytest.raises(UserError, match=field):
        replace(FULL, **{field: value})  # type: ignore[arg-type]


def test_zoom_changes_nothing_but_the_scale() -> None:
    plain, scaled = (SceneMaker(replace(FULL, zoom=zoom), Random(0)) for zoom in ((1.0, 1.0), (2.0, 2.0)))
    before, after = (make.row(all_kinds()[:2], "row") for make in (plain, scaled))
    assert (after.width, after.height) == (2 * before.width, 2 * before.height)
    assert [(i.x, i.y, i.size) for i in after.items] == [(2 * i.x, 2 * i.y, 2 * i.size) for i in before.items]
    assert word_map(after) == word_map(before), "the language knows no scale"
    sign = plain.sign("open", "red")
    small = zoomed(sign, 0.4)
    assert small.sign is not None and sign.sign is not None
    assert (small.zoom, small.sign.letter_size) == (0.4, round(0.4 * sign.sign.letter_size))
    assert draw(small).size == (small.width, small.height) == (round(0.4 * sign.width), round(0.4 * sign.height))


def test_scales_are_spread_over_the_range() -> None:
    make = SceneMaker(replace(FULL, zoom=(0.4, 2.5)), Random(0))
    zooms = [make.single(all_kinds()[0]).zoom for _ in range(300)]
    assert 0.4 <= min(zooms) < 0.45 and 2.3 < max(zooms) <= 2.5
    share = sum(zoom < 0.75 for zoom in zooms) / 300
    assert share == pytest.approx(np.log(0.75 / 0.4) / np.log(2.5 / 0.4), abs=0.08), "even on a logarithmic scale"
