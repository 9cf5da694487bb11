"""The OpenAI-style server: HTTP on one side, the scheduler of `eve_jax.infer` on the other.

body -> fields (checked) -> messages (turns, images) -> prompt -> scheduler -> streams (text) -> render (JSON, events)
"""
