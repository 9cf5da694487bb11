"""The configs of curation: what they hold, what is refused before anything is made."""

import pytest

from configs.curate import get_config
from eve_jax.curate.config import CurateConfig, Selection
from eve_jax.errors import FieldError, UserError
from tests.curate.web import tiny


def test_the_papers_numbers():
    c = get_config("evev1")
    assert (c.filter.short_edge, c.select.clusters, c.select.rule, c.embed.kind) == (448, 50_000, "nearest:300", "clip")
    assert get_config("evev2").filter.short_edge == 512
    assert CurateConfig.of(get_config()).select.selection == Selection("all", 0)


def test_only_one_of_them():
    with pytest.raises(UserError, match="evev1 and tiny are different curations; choose one"):
        get_config("evev1,tiny")


def test_a_clip_must_be_named():
    with pytest.raises(FieldError, match=r"config.embed.model is empty: name the folder of a CLIP"):
        CurateConfig.of(get_config("evev1"))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"filter__short_edge": -1}, "config.filter.short_edge=-1: expected a whole number of at least 0"),
        ({"filter__aspect": 0.5}, "config.filter.aspect=0.5: expected 0, or the longer side over the shorter"),
        ({"filter__min_words": 70}, "config.filter.min_words=70 is above config.filter.max_words=60"),
        ({"filter__caption_similarity": 1.5}, "config.filter.caption_similarity=1.5: expected"),
        ({"filter__languages": "english"}, "config.filter.languages='english': expected codes of two letters"),
        ({"filter__formats": "JPG"}, "config.filter.formats='JPG': expected some of JPEG, PNG"),
        ({"select__rule": "nearest"}, "config.select.rule='nearest': expected all, nearest:N of each cluster"),
        ({"select__rule": "random:0"}, "config.select.rule='random:0'"),
        ({"select__clusters": 0}, "config.select.rule=nearest:12 requires config.select.clusters above 0"),
        ({"select__start": "best"}, "config.select.start='best': expected one of sample, k-means"),
        ({"embed__kind": "none"}, "config.select.clusters=4 requires features: set config.embed.kind"),
        ({"embed__model": "x"}, "config.embed.model=x: embed.kind=pixels has no model"),
        ({"embed__kind": "endpoint", "embed__model": "m"}, "config.embed.url='': expected the address"),
        ({"dedup__phash": 9}, "config.dedup.phash=9: expected a whole number from -1 to 8"),
        ({"dedup__semantic": 0.1, "select__clusters": 0, "select__rule": "all"}, "looks inside clusters"),
        ({"engine__runner": "spark"}, "config.engine.runner='spark': expected one of native, ray"),
        ({"engine__address": "a:1"}, "config.engine.address=a:1 is for config.engine.runner=ray"),
        ({"write__form": "csv"}, "config.write.form='csv': expected one of parquet, records"),
        ({"shard_records": 0}, "config.shard_records=0: expected a whole number of at least 1"),
    ],
)
def test_refused(fields, said):
    with pytest.raises(FieldError) as error:
        tiny(**fields)
    assert said in str(error.value)


def test_another_kind_of_config():
    from configs import demo

    with pytest.raises(UserError, match="is not of a curation"):
        CurateConfig.of(demo.get_config("tiny").stages.stage1)
