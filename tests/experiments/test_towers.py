"""Recipes whose models see by an encoder, by codes or as EVEv1: what trains, on what; nothing is trained."""

import math

import pytest

from configs import fig2, fig7, towers, v1_parts
from eve_jax.config.stages import trained_groups
from eve_jax.data.image.rule import ImageRule
from eve_jax.errors import UserError
from eve_jax.experiments.cost import costs
from tests.experiments.recipes import made, section


def test_what_the_arms_of_fig2_train() -> None:
    """As in Fig. 2 of the paper: of VE the LLM stays frozen on captions, of the others all but the tokenizer trains."""
    for size, last in (("demo", "questions"), ("paper", "sft")):
        config = made(fig2, f"size={size},seeds=1")
        for arm, whole in (("ve", False), ("dt", True), ("eve", True)):
            kinds = ("stage1", "captions", last)
            trains = [trained_groups(config.stages[f"{arm}_0_{kind}"].factors) for kind in kinds]
            assert ["text" in groups for groups in trains] == [False, whole, True]
            assert ["encoder" in groups for groups in trains] == [False, True, True]
        assert [config.stages[f"{arm}_0_stage1"].model.patch_embed for arm in fig2.ARMS] == ["clip", "vq", "v2"]
        first, second = (config.stages[f"ve_0_{kind}"].encoder for kind in ("stage1", "captions"))
        assert (first, second) == ("WORKDIR/encoder" if size == "demo" else "", ""), "later stages have it in `init`"
        records = [config.stages[f"dt_0_{kind}"].data.records for kind in ("stage1", "captions", last)]
        folder = "WORKDIR" if size == "demo" else "DATA"
        names = ("captions", "captions", "questions") if size == "demo" else ("stage1", "captions", "sft")
        assert records == [f"{folder}/codes/{name}" for name in names]
        rules = {arm: ImageRule.of(config.stages[f"{arm}_0_captions"].data) for arm in ("ve", "dt")}
        tokens = {arm: math.prod(rule.grid(1000, 800)) for arm, rule in rules.items()}
        assert tokens == ({"ve": 36, "dt": 36} if size == "demo" else {"ve": 576, "dt": 1024}), "the paper's numbers"


def test_the_pre_training_of_the_demo() -> None:
    config = made(fig2)
    assert config.pretrain is not None and config.pretrain.encoder == towers.ENCODER
    assert config.pretrain.tokenizer == towers.TOKENIZER and config.pretrain.codes == towers.CODES
    said = " ".join(section(config).deviations)
    assert "38,400 images with captions before" in said and "6,400 images before" in said
    assert made(fig2, "of=eve").pretrain is None and made(fig2, "size=paper").pretrain is None
    only = made(fig2, "of=ve+eve").pretrain
    assert only is not None and only.tokenizer is None and not only.codes
    assert made(fig7, "of=mono_cap+evev2_cap").pretrain is None
    assert (pretrained := made(v1_parts).pretrain) is not None and pretrained.tokenizer is None


@pytest.mark.parametrize("size", ["demo", "paper"])
def test_the_methods_of_fig7(size: str) -> None:
    config = made(fig7, f"size={size},seeds=1")
    last = "questions" if size == "demo" else "sft"
    kinds = ("stage1", "captions", last)
    stage = {(arm, kind): config.stages[f"{arm}_0_{kind}"] for arm in fig7.ARMS for kind in kinds}
    parts = [stage[f"{method}_cap", "captions"].sizes.parts for method in fig7.METHODS]
    assert parts == [(), ("mlp",), (), ("layernorm", "self_attn", "mlp")]
    assert [stage[f"{method}_cap", "captions"].stage for method in fig7.METHODS] == ["2.2", "2.1", "2.1", "2.1"]
    assert [stage["eve_recap", kind].sizes.aligns for kind in kinds] == [True, True, False]
    records = {by: stage[f"mono_{by}", "captions"].data.records for by in fig7.ENGINES}
    assert records == (
        {"cap": "WORKDIR/captions/cap.jsonl", "recap": "WORKDIR/data/captions.jsonl"}
        if size == "demo"
        else {"cap": "DATA/captions_cap.jsonl", "recap": "DATA/captions_recap.jsonl"}
    )
    for kind in kinds:
        each = [costs(section(config), [stage[arm, kind]])[0].samples for arm in fig7.ARMS]
        assert max(each) < 1.15 * min(each), "as many samples a step of every method"


def test_the_switches_of_v1_parts() -> None:
    config = made(v1_parts, "seeds=1,of=no_ca1+no_ca2+next_patch+every_1+every_3")
    for kind in ("prealign", "pretrain", "sft"):
        models = [config.stages[f"{arm}_0_{kind}"].model for arm in section(config).arms]
        assert [m.window_pool for m in models] == ["mean", *["attention"] * 4]
        assert [m.image_token for m in models] == ["attention", "learned", *["attention"] * 3]
        assert [m.align_target for m in models] == ["own", "own", "next", "own", "own"]
        assert [m.align_every for m in models] == [4, 4, 4, 1, 3]
    assert [config.stages[f"no_ca1_0_{kind}"].teacher for kind in ("prealign", "pretrain")] == ["WORKDIR/encoder", ""]


def test_the_arms_of_v1_parts() -> None:
    config = made(v1_parts, "seeds=1,of=eve+no_pal+no_stage1+no_stage1_x4")
    assert config.order[2:] == (
        *("eve_0_prealign", "eve_0_pretrain", "eve_0_sft", "no_pal_0_prealign", "no_pal_0_pretrain", "no_pal_0_sft"),
        *("no_stage1_0_pretrain", "no_stage1_0_sft", "no_stage1_x4_0_pretrain", "no_stage1_x4_0_sft"),
    )
    stage = config.stages
    assert stage["no_stage1_0_pretrain"].init == "WORKDIR/llm_chat"
    assert stage["no_stage1_0_pretrain"].train.steps == 750 == stage["eve_0_pretrain"].train.steps + 150
    assert stage["no_stage1_x4_0_pretrain"].optim.lr == pytest.approx(4 * stage["eve_0_pretrain"].optim.lr)
    assert [stage[f"{arm}_0_pretrain"].sizes.aligns for arm in ("eve", "no_pal", "no_stage1")] == [True, False, True]
    assert tuple(section(made(v1_parts)).arms) == v1_parts.FIRST
    assert tuple(section(made(v1_parts, f"of={'+'.join(v1_parts.ARMS)}")).arms) == tuple(v1_parts.ARMS)
    with pytest.raises(UserError, match="leave out points"):
        v1_parts.get_config("points=3")
