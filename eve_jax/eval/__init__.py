"""Benchmarks: prompts, scorers and data of each, without a model; see docs/eval.md."""
