"""Captions for records: every field of `launch.caption`, with its default and what it means.

    python -m launch.caption --config=caption --from=RECORDS --to=OUT \
        --config.endpoint.url=http://host:8000/v1 --config.endpoint.model=NAME
    --config=caption:densefusion      one call fuses what experts found (tags, boxes, OCR) with what is seen
    --config=caption:prompt=FILE      a prompt of your own

Prompts are texts with variables (docs/curation.md#prompts); those of this folder are in configs/prompts. What values a
field takes is stated in `eve_jax.caption.config`.
"""

from pathlib import Path

from ml_collections import ConfigDict

from configs.args import parse_args
from eve_jax.curate.experts.block import BlockLimits
from eve_jax.data.image.rule import MAX_PIXELS
from eve_jax.process.files import read_text
from eve_jax.process.paths import expand

PROMPTS = Path(__file__).parent / "prompts"


def get_config(arg: str = "") -> ConfigDict:
    a = parse_args("caption", arg, densefusion=False, prompt="")
    c = ConfigDict()
    c.name = "caption"

    c.engine = ConfigDict()
    c.engine.runner = "native"  # native: this process asks | ray: processes of a cluster do
    c.engine.address = ""  # ray: of the cluster; "" = the one this machine is part of, or a new one here
    c.engine.workers = 0  # ray: processes that ask, each with its part of endpoint.concurrency; 0 = one for each node

    c.endpoint = e = ConfigDict()
    # http://HOST:PORT/v1 of this project's server, vLLM, SGLang or any other OpenAI-style API; several with commas, of
    # the same model. The key is read from EVE_CAPTION_KEY or OPENAI_API_KEY in the environment.
    e.url = ""
    e.model = ""  # its name there
    e.max_tokens = 1024 if a["densefusion"] else 512  # of an answer; twice as many for one that is cut off
    e.temperature = 0.2
    e.again_temperature = 0.7  # of the second attempt, for an answer that the checks reject
    e.seed = 0  # of the first attempt; the second has the next one
    e.body = ""  # further fields of a request, as JSON: {"top_k": 20}; null leaves a field out
    e.concurrency = 64  # requests in flight at each URL, at most, by all processes: how many it takes is learned
    e.start = 4  # requests in flight at first
    e.timeout = 180.0  # seconds until an answer
    e.patience = 600.0  # seconds without any answer until the run ends, to be resumed
    e.tries = 5  # requests for an image at which the endpoint fails (500, a broken connection) until it is rejected

    c.prompt = p = ConfigDict()
    p.system = ""  # system message; "" = none
    p.text = _prompt(a["prompt"], "densefusion" if a["densefusion"] else "caption")  # next to the image
    p.json = ""  # field of a JSON answer that holds the caption; "" = the answer is the caption

    c.image = i = ConfigDict()
    i.max_side = 1344  # pixels of the longer side of what is sent; 0 = as the images are
    i.max_bytes = 10_000_000  # of the file that is sent
    i.quality = 90  # of the JPEG of an image that has to be shrunk or converted
    i.max_pixels = MAX_PIXELS  # of an image file; larger ones are rejected and not decoded

    c.experts = ConfigDict()
    # How much of what experts found the prompt holds: boxes, lines, tags, alt_characters, line_characters.
    c.experts.block = ConfigDict(BlockLimits().to_dict())

    c.checks = k = ConfigDict()  # of captions; one that fails is asked for once more, then rejected
    k.min_words = 8
    k.max_words = 400
    k.finished = True  # the last sentence ends; False for languages without punctuation
    k.refusals = True  # "I cannot help with that"
    k.leaks = True  # words of the prompt, headings of the block, "the provided information"
    k.coordinates = True  # [0.12, 0.30, 0.55, 0.91]
    k.repetition = 1.0  # shares of repeated n-grams that are allowed, as a factor; 0 = any
    k.same = 20  # images with the same caption; 0 = any number
    k.ocr = 0.3 if a["densefusion"] else 0.0  # share of the words read by OCR that the caption has to mention
    k.ocr_score = 0.9  # of lines that count for that
    k.classes = 0.25 if a["densefusion"] else 0.0  # the same of detected classes
    k.classes_score = 0.6
    k.first_bad = 50  # end the run when the first so many answers are all rejected; 0 = never

    c.write = w = ConfigDict()
    w.records_per_shard = 10_000  # of the source; smaller shards lose nothing, but are more files
    w.question = ""  # of the person, before the caption; "" = captions alone, for pre-training
    return c


def _prompt(file: str, name: str) -> str:
    """Return the text of the prompt in `file`, or of the one called `name` here."""
    return read_text(Path(expand(file, "prompt")) if file else PROMPTS / f"{name}.txt").strip()
