"""Small faults, each with the tests that must find it."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """A fault: in `file`, the only place that says `old` says `new`; `tests` are pytest's arguments."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


# The first ones are of a review; those that were found then were found again, the others got tests.
REVIEWED = (
    Mutant(
        "A EXIF orientation 5 is not turned when sizes are measured",
        "eve_jax/data/image/patches.py",
        "return (height, width) if turn >= 5 else",
        "return (height, width) if turn > 5 else",
        ("tests/data/test_images.py", "tests/data/test_image_files.py"),
    ),
    Mutant(
        "B the token that reaches top_p is left out",
        "eve_jax/infer/choosing.py",
        "before < how.top_p[:, None]",
        "before + probability < how.top_p[:, None]",
        ("tests/infer/test_sampling.py", "-k", "distribution"),
    ),
    Mutant(
        "C shares of a source are rounded down",
        "eve_jax/data/plan/mixture.py",
        "due = round(repeat * len(stream.entries) * number / per_epoch)",
        "due = int(repeat * len(stream.entries) * number / per_epoch)",
        ("tests/data/test_mixture.py",),
    ),
    Mutant(
        "D a sample's first token is a target",
        "eve_jax/data/rows/build.py",
        "(label != IGNORE) & (index > 0)",
        "(label != IGNORE) & (index >= 0)",
        ("tests/data/test_rows.py",),
    ),
    Mutant(
        "E processes stop after the smallest number",
        "eve_jax/process/peers.py",
        "self._last = max(begun)",
        "self._last = min(begun)",
        ("tests/process/test_peers.py",),
    ),
    Mutant(
        "F twice as many v5e chips share parameters",
        "eve_jax/sharding.py",
        '("TPU v5 lite", 32)',
        '("TPU v5 lite", 64)',
        ("tests/test_sharding.py",),
    ),
    Mutant(
        "G the alias of v5e has another cap",
        "eve_jax/sharding.py",
        '("TPU v5e", 32)',
        '("TPU v5e", 16)',
        ("tests/test_sharding.py",),
    ),
    Mutant(
        "H sides of shrunk images are rounded down",
        "eve_jax/data/samples/too_long.py",
        "(2 * n * part + whole) // (2 * whole)",
        "(2 * n * part) // (2 * whole)",
        ("tests/data/test_too_long.py",),
    ),
    Mutant(
        "I frequencies of LLaMA-3.1 are interpolated without an end",
        "eve_jax/model/sight.py",
        "kept = jnp.clip((turns - low) / (high - low), 0, 1)",
        "kept = jnp.clip((turns - low) / (high - low), 0, 2)",
        ("tests/model/test_golden_llama.py",),
    ),
    Mutant(
        "J sums of chunks of the vocabulary keep an old peak",
        "eve_jax/model/loss.py",
        "total * jnp.exp(peak - new_peak)",
        "total",
        ("tests/train/test_loss.py", "-k", "plain_cross_entropy"),
    ),
    Mutant(
        "K max_bad stops a record early",
        "eve_jax/data/rows/bad_records.py",
        "if self.count > self.most:",
        "if self.count >= self.most:",
        ("tests/data/test_bad_records.py",),
    ),
    Mutant(
        "L unused targets pass a gradient on",
        "eve_jax/model/loss.py",
        "hits = (idx[:, None] == slots) & real[:, None]",
        "hits = idx[:, None] == slots",
        ("tests/train/test_loss.py", "-k", "picked"),
    ),
    Mutant(
        "M gated deltas do not decay",
        "eve_jax/model/weight.py",
        'DECAYED = ("matrix", "table", "delta", "lora_a", "lora_b")',
        'DECAYED = ("matrix", "table", "lora_a", "lora_b")',
        ("tests/train/test_groups.py", "-k", "decay"),
    ),
    Mutant(
        "N seconds of a block are those of each of its steps",
        "eve_jax/train/metrics_log.py",
        "seconds = (now - self.clock) / len(records)",
        "seconds = now - self.clock",
        ("tests/train/test_metrics.py",),
    ),
    Mutant(
        "O the second token is drawn by the first one's place",
        "eve_jax/infer/programs.py",
        "length + i + 1, choice.sampling",
        "length + i, choice.sampling",
        ("tests/infer/test_sampling.py", "-k", "place"),
    ),
    Mutant(
        "P steps of text alone where groups with images are as many as steps",
        "eve_jax/data/plan/step_order.py",
        "spare = (~text_only).sum() >= n_steps",
        "spare = (~text_only).sum() > n_steps",
        ("tests/data/test_step_order.py", "-k", "just_enough"),
    ),
)

OWN = (
    Mutant(
        "1 bfloat16 weights are rounded to the nearest",
        "eve_jax/train/rounding.py",
        "bits + noise, LOST",
        "bits + 0x8000, LOST",
        ("tests/train/test_rounding.py", "-k", "average"),
    ),
    Mutant(
        "2 every step rounds with the same noise",
        "eve_jax/train/rounding.py",
        'impl="threefry2x32"), step)',
        'impl="threefry2x32"), 0)',
        ("tests/train/test_rounding.py", "-k", "noise"),
    ),
    Mutant(
        "3 moments have the type of the weights",
        "eve_jax/train/optimizer.py",
        "return tx.init(in_float32(trainable))",
        "return tx.init(trainable)",
        ("tests/train/test_rounding.py", "-k", "moves_them"),
    ),
    Mutant(
        "4 a skipped step changes the optimizer",
        "eve_jax/train/step.py",
        'finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])',
        'finite = jnp.isfinite(metrics["loss"])',
        ("tests/train/test_nonfinite.py", "-k", "leaves_weights"),
    ),
    Mutant(
        "5 warm-up is rounded down",
        "eve_jax/train/schedule.py",
        "math.ceil(optim.warmup * steps)",
        "math.floor(optim.warmup * steps)",
        ("tests/train/test_stages.py", "-k", "warms_up"),
    ),
    Mutant(
        "6 the last chunk of a vocabulary counts rows twice",
        "eve_jax/model/loss.py",
        "jnp.arange(x.shape[1]) >= chunk.fresh",
        "jnp.arange(x.shape[1]) >= chunk.start",
        ("tests/train/test_loss.py", "-k", "plain_cross_entropy"),
    ),
    Mutant(
        "7 the best checkpoint of equal ones is the older",
        "eve_jax/checkpoint/best.py",
        "(sign * value, -index)",
        "(sign * value, index)",
        ("tests/train/test_checkpoint.py", "-k", "what_is_kept"),
    ),
    Mutant(
        "8 query heads of a copied key head are cut off",
        "eve_jax/model/head_groups.py",
        "-(-heads // (kv_heads * copies))",
        "(heads // (kv_heads * copies))",
        ("tests/model/test_attention_meshes.py", "-k", "groups"),
    ),
    Mutant(
        "9 a tensor that overlaps another is read",
        "eve_jax/hf/safetensors_io.py",
        "        if start != at:",
        "        if start > at:",
        ("tests/weights/test_errors.py",),
    ),
    Mutant(
        "10 bytes behind the last tensor are no damage",
        "eve_jax/hf/safetensors_io.py",
        "    if size != at:",
        "    if size < at:",
        ("tests/weights/test_errors.py",),
    ),
    Mutant(
        "11 a stop token is part of the answer",
        "eve_jax/infer/engine.py",
        "return tokens[:end]",
        "return tokens[: end + 1]",
        ("tests/infer/test_generate.py", "-k", "stop"),
    ),
    Mutant(
        "12 top_k keeps one more",
        "eve_jax/infer/choosing.py",
        "rank = jnp.clip(how.top_k - 1,",
        "rank = jnp.clip(how.top_k,",
        ("tests/infer/test_choosing.py", "-k", "drawn_from"),
    ),
    Mutant(
        "13 positive logits are multiplied by the penalty",
        "eve_jax/infer/choosing.py",
        "jnp.where(logits > 0, logits / r, logits * r)",
        "jnp.where(logits > 0, logits * r, logits / r)",
        ("tests/infer/test_choosing.py", "-k", "divided"),
    ),
    Mutant(
        "14 a sample of just max_tokens is too long",
        "eve_jax/data/samples/too_long.py",
        "if n_text + n_image <= max_tokens:",
        "if n_text + n_image < max_tokens:",
        ("tests/data/test_too_long.py",),
    ),
    Mutant(
        "15 a grid has no end of its last row of patches",
        "eve_jax/data/rows/spell.py",
        "kind = np.full(1 + h * (w + 1), PATCH, np.int8)",
        "kind = np.full(h * (w + 1), PATCH, np.int8)",
        ("tests/data/test_rows.py",),
    ),
    Mutant(
        "16 empty answers are learned",
        "eve_jax/data/text/encode.py",
        "        if answer:\n",
        "        if answer is not None:\n",
        ("tests/data/test_encode.py",),
    ),
    Mutant(
        "17 a long side is squeezed by the whole ratio",
        "eve_jax/data/image/rule.py",
        "change = math.sqrt(ratio / self.max_aspect)",
        "change = ratio / self.max_aspect",
        ("tests/data/test_images.py",),
    ),
    Mutant(
        "18 a number may be as large as its open end",
        "eve_jax/process/section.py",
        "else rule.low < value < rule.high",
        "else rule.low < value <= rule.high",
        ("tests/config/test_fields.py", "-k", "optim"),
    ),
    Mutant(
        "19 a cast to a smaller type makes infinities",
        "eve_jax/weights/not_finite.py",
        "if count(other) > count(piece):",
        "if count(other) < count(piece):",
        ("tests/weights/test_not_finite.py",),
    ),
    Mutant(
        "20 sequences that cuDNN is given end with the row",
        "eve_jax/model/gpu_attention.py",
        "jnp.where(number < count[:, None], starts, -1)",
        "jnp.where(number <= count[:, None], starts, -1)",
        ("tests/model/test_gpu_attention.py", "-k", "sequences"),
    ),
    Mutant(
        "21 moments are rounded down",
        "eve_jax/train/moments.py",
        "codes = below + up",
        "codes = below",
        ("tests/train/test_moments.py", "-k", "average"),
    ),
    Mutant(
        "22 a mean of weighed targets is divided by their number",
        "eve_jax/train/step.py",
        "return self.targets if self.weight is None else self.weight",
        "return self.targets",
        ("tests/train/test_sample_weights.py", "-k", "packed"),
    ),
)
MUTANTS = (*REVIEWED, *OWN)
