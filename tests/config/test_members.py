"""Configs of members of the family: what they take of a folder, which folders they take, what follows what."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from absl import flags
from ml_collections import config_flags

from eve_jax.config.stage import plain_values
from eve_jax.errors import UserError
from launch._configs import load_config
from tests import family
from tests.data.synthetic import byte_tokenizer
from tests.weights.gemma import GLOBAL, SIZES, VISION

QWEN3 = {"model_type": "qwen3", "vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 28}
QWEN3 |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
GEMMA = {"model_type": "gemma4_unified", "text_config": SIZES | GLOBAL, "vision_config": VISION}
NAMES = {"neo": "NEO", "sail": "SAIL", "hundred": r"the \$100 model", "gemma": "Gemma 4 Unified"}
TAKEN = {"neo_pt": "neo", "neo_mt": "neo", "neo_sft": "neo", "hundred": "hundred"}
PLAIN = ("stage1", "stage2_1", "stage2_2", "stage3", "v1_prealign", "v1_pretrain", "v1_sft", "ve", "dt")


def written(folder: Path, config: dict[str, Any]) -> Path:
    """A folder with config.json and a tokenizer, which is all that a config reads."""
    byte_tokenizer(("<vision>", "<vpatch>", "</vision>")).save(folder)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """A folder of each member, whose patches have other sizes than the published ones, and of a plain LLM."""
    neo = family.facts("neo_config")
    configs = {
        "neo": neo | {"vision_config": neo["vision_config"] | {"patch_size": 8}},
        "sail": family.facts("sail_meta")["config"] | {"head_dim": 128, "vocab_size": 320},
        "hundred": QWEN3 | {"eve_patches": {"patch_size": 8, "hidden_size": 32, "sides": 5}},
        "gemma": GEMMA,
        "plain": QWEN3,
    }
    return {name: written(tmp_path / name, config) for name, config in configs.items()}


def overridden(config: str, *values: str) -> dict[str, Any]:
    """The values of a config after `--config.FIELD=VALUE`."""
    found, argv = flags.FlagValues(), ["train", *values]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", argv)  # by which absl knows the fields that are given
        holder = config_flags.DEFINE_config_dict("config", load_config(config), flag_values=found)
        found(argv)
        return plain_values(holder.value)


@pytest.mark.parametrize("config", TAKEN)
def test_folders_of_other_members_are_refused(config: str, folders: dict[str, Path]) -> None:
    for kind, what in NAMES.items():
        if kind == TAKEN[config]:
            continue
        own = "NEO's" if TAKEN[config] == "neo" else "its own"
        says = rf"^llm=\S+/{kind} is {what}: {config} takes a plain LLM, or {own} folder; "
        with pytest.raises(UserError, match=says):
            load_config(f"{config}:llm={folders[kind]}")
    for name in ("plain", TAKEN[config]):
        assert load_config(f"{config}:llm={folders[name]}").name == config


@pytest.mark.parametrize("config", PLAIN)
def test_configs_of_eve_take_no_member(config: str, folders: dict[str, Path]) -> None:
    """Images and template would be EVE's, next to another model's patch embedding and positions."""
    for kind, trained_by in (("neo", "neo_pt, neo_mt and neo_sft"), ("sail", "sail_sft"), ("gemma", "gemma4_sft")):
        name = "EVEv1" if config.startswith("v1") else config
        says = rf"is {NAMES[kind]}: {name} takes a plain LLM; what trains {NAMES[kind]}: {trained_by}$"
        with pytest.raises(UserError, match=says):
            load_config(f"{config}:llm={folders[kind]}")


def test_a_base_of_unpublished_depth_needs_the_number_of_new_layers(tmp_path: Path) -> None:
    folder = written(tmp_path / "qwen", QWEN3 | {"num_hidden_layers": 4})
    says = r"^neo_pt:llm=\.\.\. needs extra=, the number of new layers before the 4 of \S+qwen \(of the pub"
    with pytest.raises(UserError, match=says):
        load_config(f"neo_pt:llm={folder}")
    with pytest.raises(UserError, match=r"^extra=many: expected the number of new layers before the 4"):
        load_config(f"neo_pt:llm={folder},extra=many")
    assert load_config(f"neo_pt:llm={folder},extra=2").model.num_layers == 6


@pytest.mark.parametrize(
    ("config", "kind", "patch"), [("sail_sft", "sail", 8), ("neo_sft", "neo", 16), ("hundred", "hundred", 8)]
)
def test_patches_are_those_of_the_folder(config: str, kind: str, patch: int, folders: dict[str, Path]) -> None:
    c = load_config(f"{config}:llm={folders[kind]}")
    assert (c.data.patch, c.model.sub_patch) == (patch, patch // 2)


def test_the_budget_of_a_gemma(folders: dict[str, Path]) -> None:
    """That of the argument, else of the folder, else 280; the longest image follows it, unless it is given."""
    plain = f"gemma4_sft:llm={folders['gemma']}"

    def budget(config: str, *values: str) -> tuple[int, int]:
        c = overridden(config, *values)
        return c["data"]["image_tokens"], c["model"]["longest_image"]

    assert budget("gemma4_sft") == budget(plain) == (280, 280)
    (folders["gemma"] / "processor_config.json").write_text(json.dumps({"image_processor": {"max_soft_tokens": 560}}))
    assert budget(plain) == (560, 560)
    assert budget(f"{plain},tokens=140") == (140, 140)
    assert budget(plain, "--config.data.image_tokens=1120") == (1120, 1120)
    tokens, longest = "--config.data.image_tokens=1120", "--config.model.longest_image=600"
    assert budget(plain, longest) == (560, 600)
    assert budget(plain, tokens, longest) == budget(plain, longest, tokens) == (1120, 600)
    with pytest.raises(UserError, match="tokens=100: expected one of 70, 140, 280"):
        load_config(f"{plain},tokens=100")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"text_config": None}, "text_config is missing: the section with the sizes of the LLM"),
        ({"text_config": SIZES | {"head_dim": None}}, r"text_config\.head_dim=None: expected a whole number above 0"),
        ({"vision_config": {"patch_size": None}}, r"vision_config\.patch_size=None: expected a number of pixels"),
    ],
)
def test_what_the_config_of_a_gemma_lacks(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "gemma", {k: v for k, v in (GEMMA | changes).items() if v is not None})
    with pytest.raises(UserError, match=rf"config\.json: {says}"):
        load_config(f"gemma4_sft:llm={folder}")
