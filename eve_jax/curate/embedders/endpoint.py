"""Image features of an endpoint: `/v1/embeddings` with an image in a chat message, as vLLM serves CLIP and SigLIP."""

import base64
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float32
from PIL import Image

from eve_jax.curate.embedders.form import Embedder, Images
from eve_jax.errors import UserError
from eve_jax.process.posting import Refused, post

KEYS = ("EVE_EMBED_KEY", "OPENAI_API_KEY")  # environment variables of the key, in this order
AT_ONCE = 16  # requests
SIDE, QUALITY = 448, 95  # pixels of the shorter side, and JPEG quality, of what is sent
PATIENCE = 600.0  # seconds until an endpoint that does not answer ends the run


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
    about = f"{address} ({model})"
    try:
        answer = post(about, address, _body(model, image), _headers(), PATIENCE, PATIENCE)
    except Refused as error:
        raise UserError(f"{about}: {error}") from None
    return _embedding(answer, about)


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


def _embedding(answer: bytes, about: str) -> list[float]:
    try:
        return [float(value) for value in json.loads(answer)["data"][0]["embedding"]]
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{about}: the answer has no data[0].embedding ({error})") from None
