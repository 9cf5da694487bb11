"""The form of `messages` of a chat in the OpenAPI document; `eve_jax.serve.messages` reads what they hold."""

from typing import Any

MESSAGES: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["role", "content"],
        "properties": {
            "role": {"enum": ["system", "developer", "user", "assistant"]},
            "content": {
                "oneOf": [
                    {"type": "string"},
                    {
                        "type": "array",
                        "items": {
                            "oneOf": [
                                {
                                    "type": "object",
                                    "required": ["type", "text"],
                                    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
                                },
                                {
                                    "type": "object",
                                    "required": ["type", "image_url"],
                                    "properties": {
                                        "type": {"const": "image_url"},
                                        "image_url": {
                                            "type": "object",
                                            "required": ["url"],
                                            "properties": {
                                                "url": {"type": "string"},
                                                "detail": {"enum": ["auto", "low", "high", "original"]},
                                            },
                                        },
                                    },
                                },
                            ]
                        },
                    },
                ]
            },
        },
    },
}
