"""Image features of an endpoint: `/v1/embeddings` with an image in a chat message, as vLLM serves CLIP and SigLIP."""

import base64
import io
import json
import os
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Float32
from PIL import Image

from eve_jax.curate.embedders.form import Embedder, Images
from eve_jax.errors import UserError, shorten

KEYS = ("EVE_EMBED_KEY", "OPENAI_API_KEY")  # environment variables of the key, in this order
AT_ONCE = 16  # requests
SIDE, QUALITY = 448, 95  # pixels of the shorter side, and JPEG quality, of what is sent
PATIENCE, LONGEST = 600.0, 60.0  # seconds until an endpoint that does not answer ends the run; between two tries
BUSY = (408, 425, 429, 500, 502, 503, 504)


def endpoint_embedder(url: str, model: str) -> Embedder:
    """Return the embedder that asks the endpoint at `url`, up to and including /v1, for features of `model`.

    It raises UserError when the endpoint refuses, or does not answer for PATIENCE seconds.
    """
    address = f"{url.rstrip('/')}/embeddings"

    def embed(images: Images) -> Float32[np.ndarray, "n D"]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = list(pool.map(lambda image: _ask(address, model, image), images))
        if len({len(one) for one in found}) > 1:
            raise UserError(f"{address}: the embeddings of {model} have different lengths")
        return np.array(found, np.float32)

    return Embedder(embed, SIDE)


def _ask(address: str, model: str, image: np.ndarray) -> list[float]:
    """Return the embedding of one image; waits while the endpoint is busy or away."""
    request = urllib.request.Request(address, _body(model, image), _headers())
    begun, pause = time.monotonic(), 0.5
    while True:
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return _embedding(json.loads(response.read()), address)
        except urllib.error.HTTPError as error:
            reason = f"status {error.code}: {shorten(error.read().decode(errors='replace'), 200)}"
            if error.code not in BUSY:
                raise UserError(f"{address} ({model}): {reason}") from None
        except (OSError, ValueError) as error:
            reason = shorten(str(error) or type(error).__name__, 200)
        if time.monotonic() + pause - begun > PATIENCE:
            raise UserError(f"{address} ({model}): no answer for {PATIENCE:.0f} s ({reason}); rerun to resume")
        time.sleep(pause)
        pause = min(pause * 2, LONGEST)


def _body(model: str, image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    picture = Image.fromarray(image)
    picture.thumbnail((4 * SIDE, 4 * SIDE))
    picture.save(stream, "JPEG", quality=QUALITY)
    data = f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
    message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": data}}]}
    return json.dumps({"model": model, "messages": [message], "encoding_format": "float"}).encode()


def _headers() -> dict[str, str]:
    key = next((os.environ[name] for name in KEYS if os.environ.get(name)), "")
    return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})


def _embedding(answer: Any, address: str) -> list[float]:
    try:
        return [float(value) for value in answer["data"][0]["embedding"]]
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(f"{address}: the answer has no data[0].embedding ({error})") from None
