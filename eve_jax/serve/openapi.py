"""The OpenAPI description of the endpoints, made of the bodies that they read."""

from typing import Any

from pydantic.json_schema import models_json_schema

from eve_jax.serve.fields import Body, ChatBody, CompletionBody, GridBody, TokenizeBody
from eve_jax.version import __version__

BODIES: dict[str, tuple[type[Body], str]] = {
    "/v1/chat/completions": (ChatBody, "The next answer in a chat"),
    "/v1/completions": (CompletionBody, "The continuation of a text"),
    "/v1/images/grid": (GridBody, "The grid of patches and the tokens of an image"),
    "/tokenize": (TokenizeBody, "The tokens of a text or of a chat's prompt"),
}
READS = {
    "/v1/models": "The names and facts of the model",
    "/v1/models/{name}": "The facts under one name",
    "/health": "Whether questions are taken",
    "/metrics": "Figures for Prometheus",
    "/openapi.json": "This description",
}
STATUS = {
    "200": "An answer",
    "400": "A body that cannot be used",
    "401": "No key, or a wrong one",
    "404": "No such model or path",
    "405": "No such method",
    "408": "The body did not arrive in time",
    "413": "The body is too large",
    "415": "The body is no JSON",
    "422": "An image that could not be fetched",
    "503": "Not now: starting, stopping, or the queue is full",
}
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "integer"},
            },
        }
    },
}


def description(root_path: str = "") -> dict[str, Any]:
    """Return the OpenAPI document of a server whose paths are below `root_path` for its clients."""
    reference = "#/components/schemas/{model}"
    models = [(kind, "validation") for kind, _ in BODIES.values()]
    names, schemas = models_json_schema(models, ref_template=reference)  # type: ignore[arg-type]
    responses = {code: _response(code, text) for code, text in STATUS.items()}
    paths: dict[str, Any] = {path: {"get": _operation(path, text, responses)} for path, text in READS.items()}
    for path, (kind, text) in BODIES.items():
        content = {"application/json": {"schema": names[kind, "validation"]}}
        paths[path] = {
            "post": _operation(path, text, responses) | {"requestBody": {"required": True, "content": content}}
        }
    components = {
        "schemas": {**schemas.get("$defs", {}), "Error": ERROR},
        "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
    }
    info = {"title": "eve_jax", "version": __version__}
    found = {"openapi": "3.1.0", "info": info, "paths": paths, "components": components}
    return found | {"servers": [{"url": root_path or "/"}], "security": [{"key": []}, {}]}


def _operation(path: str, text: str, responses: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"summary": text, "operationId": path.strip("/").replace("/", "_"), "responses": responses}
    if "{name}" in path:
        found["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]
    return found


def _response(code: str, text: str) -> dict[str, Any]:
    if code == "200":
        return {"description": text}
    return {"description": text, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
