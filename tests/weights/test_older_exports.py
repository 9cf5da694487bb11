"""An export in the layout of the first version still loads: in ours, as an import, and in PyTorch."""

import json
from pathlib import Path

import pytest
from PIL import Image

from eve_jax import EVE
from eve_jax.weights.import_export import export_checkpoint, import_checkpoint
from tests import reference as ref
from tests.weights import folders

FIRST = ("image_mode", "max_size", "max_aspect", "template")  # all that the section had in the first version
A = Image.fromarray(ref.tensors("A_inputs")["image_uint8_0"])


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An export of today, and the same as the first version wrote it."""
    folder = tmp_path_factory.mktemp("exports")
    hf = folders.write_hf(folder / "hf", *folders.golden())
    today, older = (export_checkpoint(hf, folder / name, quiet=True) for name in ("today", "older"))
    for name in ("chat_template.jinja", "generation_config.json"):
        (older / name).unlink()
    config = json.loads((older / "config.json").read_text())
    config["eve_jax"] = {name: config["eve_jax"][name] for name in FIRST}
    (older / "config.json").write_text(json.dumps(config))
    tokens = json.loads((older / "tokenizer_config.json").read_text())
    del tokens["clean_up_tokenization_spaces"]
    (older / "tokenizer_config.json").write_text(json.dumps(tokens))
    return today, older


def test_in_ours(exports: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    today, older = exports
    back = import_checkpoint(str(older), tmp_path / "back", quiet=True)
    opened = [EVE.from_pretrained(folder, max_size=64) for folder in (today, older, back)]
    answers = [eve.answer("What is it?", A, max_new_tokens=4) for eve in opened]
    assert answers[0] == answers[1] == answers[2]
    assert capsys.readouterr().err == ""


def test_in_torch(exports: tuple[Path, Path]) -> None:
    torch = pytest.importorskip("torch")
    load = pytest.importorskip("transformers").AutoModelForCausalLM.from_pretrained
    torch.set_num_threads(1)
    models = [load(folder, trust_remote_code=True).eval() for folder in exports]
    data = ref.tensors("A_inputs")
    ids = torch.tensor(data["input_ids"][:1])
    pixels = [model.preprocess(A) for model in models]
    assert torch.equal(*pixels), "sized as questions are"
    images = int((ids == ref.IMAGE_ID).sum())
    with torch.no_grad():
        logits = [model(ids, images=pixels[:1] * images).logits for model in models]
    assert torch.equal(*logits)
