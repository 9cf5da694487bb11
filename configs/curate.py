"""Curation of web images, as the papers select them.

    python -m launch.curate --config=curate:evev1 --from=RECORDS --images=DIR --to=OUT --config.embed.model=CLIP_FOLDER

Arguments, one of: evev1 (EVEv1's selection: resolution above 448 x 448, the 300 nearest of 50,000 clusters), evev2
(above 512 x 512, as EVEv2 takes Datacomp), tiny (every stage at test size). Without one: only images that cannot be
read and near-copies are left out. See docs/curation.md.
"""

from ml_collections import ConfigDict

from configs.args import parse_args
from eve_jax.data.image.rule import MAX_PIXELS
from eve_jax.errors import UserError


def get_config(arg: str = "") -> ConfigDict:
    chosen = [name for name, on in parse_args("curate", arg, evev1=False, evev2=False, tiny=False).items() if on]
    if len(chosen) > 1:
        raise UserError(f"--config=curate:{arg}: {' and '.join(chosen)} are different curations; choose one")
    c = ConfigDict()
    c.name = ":".join(["curate", *chosen])
    c.seed = 0
    c.shard_records = 1000  # records of the source that are one piece of work, and of resuming
    c.max_pixels = MAX_PIXELS  # of an image file; larger ones are not decoded

    c.engine = ConfigDict()
    c.engine.runner = "native"  # native: this machine | ray: a cluster
    c.engine.address = ""  # ray: of the cluster; "" = the one this machine is part of, or a new one here
    c.engine.workers = 0  # native: threads at work; 0 = one for each core

    c.filter = f = ConfigDict()  # the rules, in this order; 0 or "" switches one off
    f.short_edge = 0  # pixels that the shorter side has at least
    f.aspect = 0.0  # longer side over shorter, at most
    f.min_bytes = 0  # of the image file
    f.max_bytes = 0
    f.formats = ""  # only these, such as JPEG,PNG,WEBP
    f.entropy = 0.0  # bits of the histogram of gray values, at least; a blank image has 0
    f.min_words = 0  # of the caption
    f.max_words = 0
    f.languages = ""  # of the caption, ISO 639-1: only these, such as en,de
    f.language_words = 4  # captions of fewer words are in any language
    f.caption_similarity = 0.0  # captions of at least this Jaccard similarity (estimated by MinHash) are the same one
    f.caption_copies = 1  # images kept of the same caption: the largest

    c.embed = ConfigDict()
    c.embed.kind = "none"  # none | pixels | clip | lite0 | endpoint
    c.embed.model = ""  # clip: folder, of Hugging Face; endpoint: name of the model
    c.embed.url = ""  # endpoint: http://HOST:PORT/v1
    c.embed.batch = 64  # images at a time

    c.select = s = ConfigDict()
    s.rule = "all"  # all | nearest:N of each cluster | balanced:N over the clusters | random:N
    s.clusters = 0  # of spherical k-means; 0 = none
    s.iterations = 20
    s.start = "sample"  # sample | k-means++
    s.sample = 256  # records a cluster that the clusters are computed from, drawn at random
    s.batch = 0  # records of an iteration, drawn at random; 0 = the complete sample
    s.mesh = ""  # devices, as config.mesh of training; "" = all of them

    c.dedup = ConfigDict()
    c.dedup.phash = 4  # bits in which the pHash of near-copies differs at most; -1 = off
    c.dedup.semantic = 0.0  # SemDeDup inside each cluster: cosine distance of duplicates, below; 0 = off

    c.experts = _experts()

    c.write = ConfigDict()
    c.write.form = "parquet"  # parquet | records (ArrayRecord shards, as launch.prepare_data writes them)
    c.write.shard_records = 1000

    c.plan = _plan()

    if chosen in (["evev1"], ["evev2"]):
        f.short_edge = 448 if chosen == ["evev1"] else 512
        f.aspect = 3.0
        f.entropy = 1.0
        c.embed.kind = "clip"
        s.rule, s.clusters = "nearest:300", 50_000
    if chosen == ["tiny"]:
        c.shard_records = c.write.shard_records = 16
        f.short_edge, f.aspect, f.min_words, f.max_words = 64, 3.0, 2, 60
        f.caption_similarity = 0.9
        c.embed.kind, c.embed.batch = "pixels", 8
        s.rule, s.clusters, s.iterations = "nearest:12", 4, 5
    return c


def _experts() -> ConfigDict:
    """Return who looks at the images that are left, and what of their findings is kept."""
    x = ConfigDict()
    x.run = ""  # who looks at the images that are left: any of ocr,boxes,tags
    x.timeout = 60.0  # seconds of a request to an endpoint
    x.patience = 600.0  # seconds that an endpoint may be away or busy until the run ends, to be resumed
    x.ocr = ConfigDict()
    x.ocr.url = ""  # of an endpoint (docs/curation.md#experts); "" = rapidocr in this process
    x.ocr.folder = ""  # of PP-OCR's networks; "" = those in rapidocr's wheel
    x.ocr.score = 0.9  # certainty of a line, at least
    x.ocr.short_side = 736  # pixels to which a shorter side is enlarged; less is faster, small writing is missed
    x.ocr.threads = 1  # CPU threads of an image; 0 = all cores
    x.boxes = ConfigDict()
    x.boxes.url = ""
    x.boxes.folder = ""  # node_modules/@vladmandic/human, or a folder with its centernet.json
    x.boxes.score = 0.4
    x.boxes.overlap = 0.5  # intersection over union at which two boxes of a class are one
    x.boxes.most = 100
    x.tags = ConfigDict()
    x.tags.url = ""
    x.tags.folder = ""  # with efficientnet-lite0*.pth and names.json; "" = the packages of the extra `experts`
    x.tags.score = 0.3
    x.tags.most = 5
    return x


def _plan() -> ConfigDict:
    """Return what `launch.curate plan` predicts a full run from."""
    p = ConfigDict()
    p.sample = 1000  # records that are looked at, drawn at random
    p.pilot = ""  # folder that launch.caption made of some records: what a caption costs; "" = what the next three say
    p.prompt_tokens = 3400.0  # of a record: an image of LLaVA-1.6 in five tiles (2,880), and DenseFusion's prompt
    p.answer_tokens = 250.0  # of a record: 190 words (DenseFusion)
    p.captions_per_gpu_day = 87_500.0  # DenseFusion, on an A100
    p.gpus = 1.0  # behind the endpoints of the pilot
    p.gpu_hour = 0.0  # price of an hour of a GPU
    p.prompt_price = 0.0  # of a million tokens of prompts, of answers
    p.answer_price = 0.0
    p.currency = "USD"
    return p
