"""The recipe that puts other members' rules next to EVEv2: its arms, what they train, where they begin."""

import pytest

from configs import image_rules
from eve_jax.config.stages import trained_groups
from eve_jax.errors import UserError
from tests.experiments.recipes import made

KINDS = ("stage1", "captions", "questions")


def test_the_arms_of_image_rules() -> None:
    config = made(image_rules, "seeds=1")
    stage = {(arm, kind): config.stages[f"{arm}_0_{kind}"] for arm in image_rules.ARMS for kind in KINDS}
    assert all(stage[arm, "stage1"].init == "WORKDIR/llm_chat" for arm in image_rules.ARMS)
    rules = [(one.model.patch_embed, one.model.image_attention, one.model.rope) for one in _captions(stage)]
    assert rules == [("v2", "causal", "1d"), ("v2", "image", "thw"), ("conv_gelu_rope", "image", "thw")]
    parts = ("layernorm", "self_attn", "mlp")
    assert [one.sizes.parts for one in _captions(stage)] == [parts, parts, ()]
    layers = [one.model.num_layers for one in _captions(stage)]
    assert layers == [6, 6, 7] and stage["neo", "questions"].model.extra_layers == 1
    new = {"patch_embed", "place", "extra"}
    trains = {key: trained_groups(one.factors) for key, one in stage.items()}
    assert all(new <= trains[key] and "text" not in trains[key] for key in trains if key[1] == "stage1")
    assert [("vision" in trains[arm, "captions"], "text" in trains[arm, "captions"]) for arm in image_rules.ARMS] == [
        (True, False),
        (True, False),
        (False, False),
    ]
    assert all("text" in trains[arm, "questions"] for arm in image_rules.ARMS)


def _captions(stage: dict) -> list:
    return [stage[arm, "captions"] for arm in image_rules.ARMS]


def test_there_is_the_size_of_the_demo_alone() -> None:
    with pytest.raises(UserError, match="there is the demo's size alone"):
        image_rules.get_config("size=paper")
