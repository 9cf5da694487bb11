"""A curation from its source to its records: rules, funnel, resume, changed thresholds."""

import hashlib
import io
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks import bad_corpus
from benchmarks.curate_corpus import OTHERWISE, named
from eve_jax.curate import unchanged
from eve_jax.curate.stages import measure as measuring
from eve_jax.curate.stages import write as writing
from eve_jax.data.image.patches import open_image
from eve_jax.data.sources.records import open_records
from eve_jax.errors import UserError
from tests.curate.web import curated, files_of, plain, scene, scenes, tiny, write_web

PLAIN = {"embed__kind": "none", "select__clusters": 0, "select__rule": "all"}  # no features, no clusters


@pytest.fixture(autouse=True)
def without_daft(monkeypatch):
    plain(monkeypatch)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return scenes(tmp_path_factory.mktemp("web"), 80)


def rejected(out):
    return {line["id"]: line for line in map(json.loads, (out / "rejected.jsonl").read_text().splitlines())}


@pytest.mark.parametrize("form", ["parquet", "records"])
def test_the_records_that_are_left_are_those_of_the_source(source, tmp_path, form):
    funnel = curated(tiny(write__form=form), source, tmp_path)
    ours, theirs = open_records(str(tmp_path / "records")), {one.id: one for one in open_records(*source)}
    assert len(ours) == funnel["kept"] == 48  # 12 of each of 4 clusters
    for record in ours:
        origin = theirs[record.id]
        assert record.turns == origin.turns
        assert record.kept["alt"] == origin.turns[-1].text
        ours_pixels, theirs_pixels = (np.asarray(open_image(one.images[0])) for one in (record, origin))
        assert np.array_equal(ours_pixels, theirs_pixels)


def test_every_rule_names_what_it_leaves_out(tmp_path):
    white = Image.new("RGB", (90, 90), "white")
    good = [(f"good{n}", scene(n), f"a sound caption with number {n} in it {n * 7}") for n in range(3)]
    web = write_web(
        tmp_path,
        [
            *good,
            ("small", scene(10, (200, 50)), "a small one of the images here"),
            ("long", scene(11, (400, 90)), "a long one of the images here"),
            ("blank", white, "a blank one of the images here"),
            ("mute", scene(12), "word"),
            ("copy", scene(0, (110, 82)), "another text for the very same thing, you see"),
            ("same", scene(13, (100, 80)), good[1][2]),
        ],
    )
    config = tiny(**PLAIN, filter__entropy=2.0)
    funnel = curated(config, web, tmp_path / "out")
    found = {id: (line["stage"], line["rule"], line["value"]) for id, line in rejected(tmp_path / "out").items()}
    assert found == {
        "small": ("filter", "short_edge", "50"),
        "long": ("filter", "aspect", "4.444"),
        "blank": ("filter", "entropy", "0"),
        "mute": ("filter", "min_words", "1"),
        "same": ("captions", "same_caption", "good1"),
        "copy": ("dedup", "near_copy", "good0"),
    }
    assert funnel["kept"] == 3


def test_languages(tmp_path):
    pytest.importorskip("py3langid")
    texts = {"en": "a photo of a dog in the park", "de": "ein Hund läuft durch den Park", "short": "Hund im Park"}
    web = write_web(tmp_path, [(id, scene(n), text) for n, (id, text) in enumerate(texts.items())])
    curated(tiny(**PLAIN, filter__languages="en"), web, tmp_path / "out")
    assert {id: line["value"] for id, line in rejected(tmp_path / "out").items()} == {"de": "de"}


def test_a_language_that_no_caption_is_in(tmp_path):
    pytest.importorskip("py3langid")
    with pytest.raises(UserError, match=r"config.filter.languages='xx': expected some of .*\bde\b"):
        curated(tiny(**PLAIN, filter__languages="en,xx"), scenes(tmp_path, 3), tmp_path / "out")


@pytest.mark.parametrize("form", ["parquet", "records"])
def test_records_that_somebody_removed_are_written_again(tmp_path, form):
    source, config = scenes(tmp_path, 24), tiny(**PLAIN, write__form=form, write__shard_records=4)
    curated(config, source, tmp_path / "out")
    whole, records = files_of(tmp_path / "out"), sorted((tmp_path / "out/records").iterdir())
    assert len(records) > 3
    for file in (records[1], records[-1]):
        file.unlink()
        curated(config, source, tmp_path / "out")
        assert files_of(tmp_path / "out") == whole


def test_a_damaged_shard_is_named(tmp_path):
    source = scenes(tmp_path, 12)
    curated(tiny(**PLAIN), source, tmp_path / "out")
    shard = next((tmp_path / "out/stages").glob("measure*/000000.parquet"))
    whole = shard.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole[:200] + b"x" * 200 + whole[400:]):
        shard.write_bytes(damaged)
        with pytest.raises(UserError, match=r"000000.parquet cannot be read \(.*\); remove it, then rerun"):
            curated(tiny(**PLAIN, filter__min_words=3), source, tmp_path / "out")
    shard.unlink()
    assert curated(tiny(**PLAIN, filter__min_words=3), source, tmp_path / "out")["kept"] > 6


def test_an_image_that_is_gone_when_it_is_written(tmp_path):
    source = scenes(tmp_path, 12)
    curated(tiny(**PLAIN), source, tmp_path / "out")
    kept = pq.read_table(tmp_path / "out/records", columns=["id"])["id"].to_pylist()[0]
    Path(source[1], f"{kept}.jpg").unlink()
    with pytest.raises(
        UserError, match=rf"{kept}.jpg: missing file .*; it could be read when it was measured; restore it"
    ):
        curated(tiny(**PLAIN, write__shard_records=3), source, tmp_path / "out")


def test_bad_files_are_named_and_do_not_stop_the_run(tmp_path):
    cases = bad_corpus.write_corpus(tmp_path)
    off = {"filter__short_edge": 0, "filter__aspect": 0.0, "filter__min_words": 1, "filter__caption_similarity": 0.0}
    config = tiny(**PLAIN, **off, dedup__phash=-1, filter__max_words=150)
    curated(config, (str(tmp_path / "records.jsonl"), str(tmp_path / "images")), tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out/rejected.jsonl").read_text().splitlines()]
    by_index = {line["index"]: line for line in lines}
    for number, case in enumerate(cases):
        if case.found or case.id in OTHERWISE:
            assert named(case, by_index.get(number)), (case, by_index.get(number))
        else:
            assert number not in by_index, case.id


def test_another_threshold_decodes_nothing_again(source, tmp_path, monkeypatch):
    curated(tiny(), source, tmp_path)
    stages = {path.name for path in (tmp_path / "stages").iterdir()}
    monkeypatch.setattr(measuring, "measure_record", None)
    embedded: list[object] = []
    monkeypatch.setattr("eve_jax.curate.stages.embed.open_embedder", embedded.append)
    funnel = curated(tiny(filter__short_edge=80), source, tmp_path)
    assert funnel["stages"][2]["rejected"]["short_edge"] > 10
    assert not embedded
    added = {path.name.partition("-")[0] for path in (tmp_path / "stages").glob("*/") if path.name not in stages}
    assert added == {"filter", "captions", "cluster"}


def test_a_looser_threshold_embeds_only_what_is_new(source, tmp_path):
    curated(tiny(filter__short_edge=80), source, tmp_path / "a")
    curated(tiny(filter__short_edge=64), source, tmp_path / "a")
    curated(tiny(filter__short_edge=64), source, tmp_path / "b")
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_a_run_that_is_broken_off_anywhere_ends_with_the_same_bytes(source, tmp_path, monkeypatch):
    curated(tiny(), source, tmp_path / "whole")
    calls = 0

    class Killed(BaseException):
        pass

    def until(limit):
        def run(make, shards, engine, title):
            nonlocal calls
            for number in shards:
                calls += 1
                if calls == limit:
                    raise Killed
                make(number)

        return run

    for limit in (1, 4, 6, 12, 16, 18):
        calls = 0
        monkeypatch.setattr("eve_jax.curate.run.run", until(limit))
        with pytest.raises(Killed):
            curated(tiny(), source, tmp_path / f"cut{limit}")
        calls = -1000
        curated(tiny(), source, tmp_path / f"cut{limit}")
        assert files_of(tmp_path / f"cut{limit}") == files_of(tmp_path / "whole")


def test_an_image_that_changed_is_not_written(tmp_path):
    web = scenes(tmp_path, 20)
    config = tiny(**PLAIN)
    curated(config, web, tmp_path / "out")
    scene(99).save(tmp_path / "images/s3.jpg")
    with pytest.raises(UserError, match=r"s3.jpg .* changed since it was measured; choose another --to"):
        curated(tiny(**PLAIN | {"select__rule": "random:15"}), web, tmp_path / "out")


def test_images_are_hashed_again_unless_this_process_saw_them_as_they_are(tmp_path, monkeypatch):
    """Nothing is skipped for files that were written just now, that changed at all, or that others measured."""
    web = scenes(tmp_path, 20)
    first, again = tiny(**PLAIN), tiny(**PLAIN | {"select__rule": "random:15"})
    image = tmp_path / "images/s3.jpg"
    hashed: list[bytes] = []

    def counted(data, **size):
        hashed.append(data)
        return hashlib.blake2b(data, **size)

    monkeypatch.setattr(writing, "hashlib", SimpleNamespace(blake2b=counted))
    kept = curated(first, web, tmp_path / "new")["kept"]
    assert len(hashed) == kept == 20
    monkeypatch.setattr(unchanged, "SETTLED", 0)
    hashed.clear()
    curated(first, web, tmp_path / "out")
    assert not hashed
    assert files_of(tmp_path / "out/records") == files_of(tmp_path / "new/records")

    before, data = os.stat(image), image.read_bytes()
    image.write_bytes(bytes([data[0] ^ 1]) + data[1:])  # of the same length
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(UserError, match=r"s3.jpg .* changed since it was measured"):
        curated(tiny(**PLAIN | {"write__shard_records": 7}), web, tmp_path / "out")
    image.write_bytes(data)
    hashed.clear()
    curated(again, web, tmp_path / "out")
    assert hashed == [data]
    unchanged._states.clear()  # as another process
    hashed.clear()
    curated(first, web, tmp_path / "out")
    assert len(hashed) == 20


def test_nothing_left_says_where_to_look(tmp_path):
    with pytest.raises(UserError, match=r"no record is left; rejected.jsonl says of each why"):
        curated(tiny(filter__short_edge=5000), scenes(tmp_path, 6), tmp_path / "out")
    assert len(rejected(tmp_path / "out")) == 6


def test_images_without_captions_are_curated_too(tmp_path):
    write_web(tmp_path, [(f"s{n}", scene(n), "") for n in range(6)])
    (tmp_path / "bare.jsonl").write_text("".join(f'{{"id": "s{n}", "image": "s{n}.jpg"}}\n' for n in range(6)))
    config = tiny(**PLAIN, filter__min_words=0)
    funnel = curated(config, (str(tmp_path / "bare.jsonl"), str(tmp_path / "images")), tmp_path / "out")
    assert funnel["kept"] == 6
    records = open_records(str(tmp_path / "out/records"), texts=False)
    assert [record.turns for record in records] == [()] * 6


def test_measures_of_an_image():
    stream = io.BytesIO()
    scene(5, (800, 600)).save(stream, "JPEG", exif=_turned())
    found = measuring.measure(stream.getvalue(), "x", 10**6)
    assert (found.width, found.height, found.format, found.bytes) == (600, 800, "JPEG", len(stream.getvalue()))
    assert 5 < found.entropy < 8
    assert 60 < found.brightness < 200
    upright = io.BytesIO()
    scene(5, (800, 600)).transpose(Image.Transpose.ROTATE_270).save(upright, "PNG")
    other = measuring.measure(upright.getvalue(), "x", 10**6).phash
    assert (found.phash ^ other).bit_count() <= 2


def _turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif
