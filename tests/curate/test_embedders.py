"""Features of images: CLIP against transformers, an endpoint, colors; and their files."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from eve_jax.curate.config import EmbedConfig
from eve_jax.curate.embedders.open import identity, open_embedder
from eve_jax.curate.features import Features, feature_file, read_features, unit, write_features
from eve_jax.curate.stage import Stage
from eve_jax.errors import UserError
from eve_jax.process import posting
from tests.curate.web import scene


def config(kind, model="", url="", batch=2):
    return EmbedConfig(kind=kind, model=model, url=url, batch=batch)


@pytest.mark.parametrize("whole", [True, False])
def test_clip_is_that_of_transformers(tmp_path, whole):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    vision = transformers.CLIPVisionConfig(**sizes, image_size=28, patch_size=7, projection_dim=24)
    text = transformers.CLIPTextConfig(**sizes, vocab_size=50, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    both = transformers.CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=24)
    theirs = transformers.CLIPModel(both) if whole else transformers.CLIPVisionModel(vision)
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, 0.1, 0.3)
    theirs.save_pretrained(tmp_path)
    images = [np.asarray(scene(n, size)) for n, size in enumerate([(28, 28), (60, 40), (33, 90)])]
    pixels = transformers.CLIPImageProcessor(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, use_fast=False
    )(images, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = theirs.get_image_features(pixel_values=pixels) if whole else theirs(pixels).pooler_output
    expected = expected if isinstance(expected, torch.Tensor) else expected.pooler_output
    found = open_embedder(config("clip", str(tmp_path))).embed(images)
    assert found.shape == (3, 24 if whole else 32)
    np.testing.assert_allclose(found[0], expected[0].numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(unit(found), unit(expected.numpy()), atol=5e-3)  # resized by other code


def test_another_model_is_another_identity(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"a" * 100)
    before = identity(config("clip", str(tmp_path)))
    assert identity(config("clip", str(tmp_path), batch=7)) == before
    (tmp_path / "model.safetensors").write_bytes(b"a" * 99 + b"b")
    assert identity(config("clip", str(tmp_path))) != before
    with pytest.raises(UserError, match="no such folder"):
        identity(config("clip", str(tmp_path / "none")))


class Server(ThreadingHTTPServer):
    """An endpoint of embeddings: the mean color of what it is sent; says `busy` to the first requests."""

    def __init__(self, busy=0, status=200, answer=None):
        self.busy, self.status, self.answer, self.asked = busy, status, answer, []
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        assert isinstance(server, Server)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.asked.append((self.path, dict(self.headers), body))
        busy = len(server.asked) <= server.busy
        answer = server.answer if server.answer is not None else {"data": [{"embedding": [1.0, len(server.asked)]}]}
        self.send_response(429 if busy else server.status)
        self.end_headers()
        self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    def log_message(self, *_):
        pass


def test_endpoint_is_asked_again_while_it_is_busy(monkeypatch):
    monkeypatch.setattr(posting.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("EVE_EMBED_KEY", "secret")
    server = Server(busy=3)
    found = open_embedder(config("endpoint", "m", server.url)).embed([np.asarray(scene(n)) for n in range(4)])
    assert found.shape == (4, 2)
    assert len(server.asked) == 7
    path, headers, body = server.asked[0]
    assert path == "/v1/embeddings"
    assert headers["Authorization"] == "Bearer secret"
    assert body["model"] == "m"
    assert body["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    server.shutdown()


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [(404, {"error": "no such model"}, "status 404: .*no such model"), (200, {"data": []}, r"no data\[0\].embedding")],
)
def test_endpoint_that_refuses_ends_the_run(status, answer, said):
    server = Server(status=status, answer=answer)
    with pytest.raises(UserError, match=said):
        open_embedder(config("endpoint", "m", server.url)).embed([np.asarray(scene(0))])
    server.shutdown()


def test_colors_tell_palettes_apart():
    embed = open_embedder(config("pixels")).embed
    images = [scene(0, (90, 60)), scene(0, (45, 30)), scene(1, (90, 60))]
    cosine = unit(embed([np.asarray(image) for image in images]))
    cosine = cosine @ cosine.T
    assert cosine[0, 1] > 0.98
    assert cosine[0, 2] < 0.7


def test_features_come_back_in_any_order(tmp_path):
    stage = Stage(tmp_path, "embed", "k" * 32)
    stage.folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    index = np.sort(random.choice(100, 40, replace=False))
    values = random.normal(size=(100, 6)).astype(np.float16)
    for number in range(10):
        own = np.arange(number * 10, number * 10 + 10)
        write_features(feature_file(stage, number), own, values[own])
    features = Features(stage, index, 10)
    assert features.width == 6
    rows = random.permutation(40)
    assert np.array_equal(features.rows(rows), unit(values[index[rows]]))
    assert np.array_equal(np.concatenate(list(features.blocks(7))), unit(values[index]))


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "000000.arrow").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"000000.arrow cannot be read .*; remove it, then rerun"):
        read_features(tmp_path / "000000.arrow")


def test_an_answer_that_is_no_json_is_named_at_once():
    server = Server(answer=b"<html>")
    with pytest.raises(UserError, match=r"\(m\): the answer has no data\[0\].embedding"):
        open_embedder(config("endpoint", "m", server.url)).embed([np.asarray(scene(0))])
    assert len(server.asked) == 1
    server.shutdown()
