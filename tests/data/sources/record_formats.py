"""The same records in the formats of other data sets: each function writes `samples` and names what to read."""

import base64
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.data.source_files import add_member


class Sample(NamedTuple):
    """Images (name, file) that stand before the first question, and the texts of questions and answers in turn."""

    images: list[tuple[str, bytes]]
    texts: list[str]


def talks(n: int) -> list[Sample]:
    """`n` conversations of one to three exchanges with none to two images; some questions begin with empty lines."""
    rng = np.random.default_rng(18)
    samples = []
    for number in range(n):
        texts = [
            f"{word} {number}.{turn}" for turn in range(1 + number % 3) for word in ("Was ist “das”? <b>", "Ein ö")
        ]
        texts[0] = "\n" * (number // 3 % 3) + texts[0]
        samples.append(Sample([picture(rng, f"{number} ü_{place}.png") for place in range(number % 3)], texts))
    return samples


def captions(n: int) -> list[Sample]:
    """`n` images with a caption each."""
    rng = np.random.default_rng(19)
    return [Sample([picture(rng, f"{number}.png")], ["", f"A picture of {number} ö."]) for number in range(n)]


def picture(rng: np.random.Generator, name: str) -> tuple[str, bytes]:
    """A small PNG file under that name."""
    height, width = rng.integers(20, 70, 2)
    stream = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(stream, "PNG")
    return name, stream.getvalue()


def marked(sample: Sample) -> list[str]:
    """The texts with the places of the images in the first."""
    return ["<image>\n" * len(sample.images) + sample.texts[0], *sample.texts[1:]]


def said(
    texts: Sequence[str], who: str = "from", what: str = "value", roles: str = "human gpt"
) -> list[dict[str, Any]]:
    """Turns of these texts under the given keys and roles."""
    return [{who: roles.split()[number % 2], what: text} for number, text in enumerate(texts)]


def parts(sample: Sample, image: Callable[[tuple[str, bytes]], dict[str, Any]]) -> list[dict[str, Any]]:
    """OpenAI's messages, with `image` of each image as a part of the first."""
    begins = "\n" if sample.images and sample.texts[0].startswith("\n") else ""  # else it is the one after an image
    first: list[Any] = [*map(image, sample.images), {"type": "text", "text": begins + sample.texts[0]}]
    return _contents(first, sample)


def cut(sample: Sample, image: Callable[[tuple[str, bytes]], dict[str, Any]]) -> list[dict[str, Any]]:
    """The same from LLaVA's text cut at its markers."""
    first: list[Any] = []
    for place, text in enumerate(marked(sample)[0].split("<image>")):
        first += [image(sample.images[place - 1])] if place else []
        first += [{"type": "text", "text": text}] if text else []
    return _contents(first, sample)


def _contents(first: list[Any], sample: Sample) -> list[dict[str, Any]]:
    contents: list[Any] = [first, *sample.texts[1:]]
    return said(contents, "role", "content", "user assistant")


def pairs(sample: Sample) -> list[tuple[str, str]]:
    """Questions with their answers."""
    return list(zip(sample.texts[::2], sample.texts[1::2], strict=True))


def data_uri(image: tuple[str, bytes]) -> str:
    """The image inside a URI."""
    return f"data:image/png;base64,{base64.b64encode(image[1]).decode()}"


def names(sample: Sample) -> list[str]:
    """The names of the images."""
    return [name for name, _ in sample.images]


def cells(sample: Sample) -> list[dict[str, Any]]:
    """The images as cells of the hub's Parquet files."""
    return [{"bytes": data, "path": name} for name, data in sample.images]


def _lines(folder: Path, records: Sequence[dict[str, Any]]) -> str:
    path = folder / "r.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def _parquet(folder: Path, **columns: list[Any]) -> str:
    pq.write_table(pa.table(columns), folder / "r.parquet", row_group_size=64)
    return str(folder / "r.parquet")


def llava(folder: Path, samples: Sequence[Sample]) -> str:
    return _lines(folder, [{"image": names(s), "conversations": said(marked(s))} for s in samples])


def url_encoded(folder: Path, samples: Sequence[Sample]) -> str:
    records = [{"image": [*map(quote, names(s))], "conversations": said(marked(s))} for s in samples]
    (folder / "r.json").write_text(json.dumps(records, indent=1))
    return str(folder / "r.json")


def openai(folder: Path, samples: Sequence[Sample]) -> str:
    def part(image: tuple[str, bytes]) -> dict[str, Any]:
        return {"type": "image_url", "image_url": {"url": data_uri(image), "detail": "auto"}}

    return _lines(folder, [{"messages": parts(s, part)} for s in samples])


def openai_files(folder: Path, samples: Sequence[Sample]) -> str:
    def part(image: tuple[str, bytes]) -> dict[str, Any]:
        return {"type": "image_url", "image_url": {"url": f"file://{quote(str(folder / 'images' / image[0]))}"}}

    return _lines(folder, [{"messages": cut(s, part)} for s in samples])


def trl(folder: Path, samples: Sequence[Sample]) -> str:
    def messages(sample: Sample) -> list[dict[str, Any]]:
        first, *later = parts(sample, lambda _: {"type": "image", "text": None})
        return [first, *({**one, "content": [{"type": "text", "text": one["content"]}]} for one in later)]

    return _parquet(folder, images=[cells(s) for s in samples], messages=[messages(s) for s in samples])


def finevision(folder: Path, samples: Sequence[Sample]) -> str:
    texts = [[{"user": ask, "assistant": say} for ask, say in pairs(s)] for s in samples]
    ratings = [[5] * len(own) for own in texts]
    return _parquet(
        folder, images=[cells(s) for s in samples], texts=texts, source=["x"] * len(samples), relevance_ratings=ratings
    )


def cauldron(folder: Path, samples: Sequence[Sample]) -> str:
    texts = [[{"user": ask, "assistant": say, "source": "x"} for ask, say in pairs(s)] for s in samples]
    images = [[{"bytes": data, "path": None} for _, data in s.images] for s in samples]
    return _parquet(folder, images=images, texts=texts)


def sharegpt(folder: Path, samples: Sequence[Sample]) -> str:
    roles = [["user assistant", "human assistant", "user gpt"][number % 3] for number in range(len(samples))]
    records = zip(samples, roles, strict=True)
    return _lines(folder, [{"images": names(s), "conversations": said(marked(s), roles=r)} for s, r in records])


def onevision(folder: Path, samples: Sequence[Sample]) -> str:
    talk = [said(marked(s)) for s in samples]
    ids = [str(number) for number in range(len(samples))]
    return _parquet(folder, id=ids, image=[cells(s) for s in samples], conversations=talk, data_source=["x"] * len(ids))


def infinity(folder: Path, samples: Sequence[Sample]) -> str:
    files = [[data for _, data in s.images] for s in samples]
    return _parquet(folder, image=files, conversations=[said(marked(s)) for s in samples])


def web_dataset(folder: Path, samples: Sequence[Sample]) -> str:
    return _tar(folder, [(s, {"conversations": said(marked(s))}) for s in samples])


def messages_in_tar(folder: Path, samples: Sequence[Sample]) -> str:
    return _tar(folder, [(s, {"messages": said(marked(s), "role", "content", "user assistant")}) for s in samples])


def swift(folder: Path, samples: Sequence[Sample]) -> str:
    records = []
    for sample in samples:
        *history, (query, response) = pairs(sample)
        if history:
            history[0] = (marked(sample)[0], history[0][1])
        else:
            query = marked(sample)[0]
        records.append({"query": query, "response": response, "history": history, "images": names(sample)})
    return _lines(folder, records)


def byte_lists(folder: Path, samples: Sequence[Sample]) -> str:
    records = [
        {"images": [{"bytes": list(data), "path": name} for name, data in s.images], "messages": said(marked(s))}
        for s in samples
    ]
    return _lines(folder, records)


def vqav2(folder: Path, samples: Sequence[Sample]) -> str:
    def record(number: int, sample: Sample) -> dict[str, Any]:
        ((question, answer),) = pairs(sample)
        answers = [{"answer": text, "answer_id": n} for n, text in enumerate(["no", answer, answer])]
        more = {} if number % 2 else {"multiple_choice_answer": answer}
        return {"question": question, "question_id": number, "answers": answers, "image": names(sample)[0], **more}

    return _lines(folder, [record(number, s) for number, s in enumerate(samples)])


def bare_captions(folder: Path, samples: Sequence[Sample]) -> str:
    return _lines(folder, [{"file_name": names(s)[0], "text": s.texts[1]} for s in samples])


def img2dataset(folder: Path, samples: Sequence[Sample]) -> str:
    """A folder with a tar file, its Parquet file and its statistics."""
    target = folder / "shards"
    target.mkdir()
    rows = [_told(number, s) for number, s in enumerate(samples)]
    with tarfile.open(target / "00000.tar", "w") as tar:
        for row, sample in zip(rows, samples, strict=True):
            files = (("png", sample.images[0][1]), ("txt", row["caption"].encode()), ("json", json.dumps(row).encode()))
            for ending, data in files:
                add_member(tar, f"{row['key']}.{ending}", data)
    _told_apart(target, rows)
    return str(target)


def img2dataset_files(folder: Path, samples: Sequence[Sample]) -> str:
    """A folder with a folder of images, and its Parquet file, which also tells of images that were not found."""
    target = folder / "shards"
    (target / "00000").mkdir(parents=True)
    rows = [_told(number, s) for number, s in enumerate(samples)]
    for row, sample in zip(rows, samples, strict=True):
        (target / "00000" / f"{row['key']}.png").write_bytes(sample.images[0][1])
    lost = _told(len(rows), samples[0]) | {"status": "failed_to_download", "error_message": "404"}
    _told_apart(target, [*rows, lost])
    return str(target)


def img2dataset_parquet(folder: Path, samples: Sequence[Sample]) -> str:
    rows = [_told(number, s) | {"png": s.images[0][1]} for number, s in enumerate(samples)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "00000.parquet")
    return str(folder / "00000.parquet")


def _told(number: int, sample: Sample) -> dict[str, Any]:
    """What img2dataset tells of an image."""
    told = {"key": f"{number:09}", "caption": sample.texts[1], "url": f"https://e.org/a/{number}_x.jpg"}
    return told | {"status": "success", "error_message": None, "width": 64, "original_width": 100, "exif": "{}"}


def _told_apart(folder: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), folder / "00000.parquet")
    (folder / "00000_stats.json").write_text(json.dumps({"count": len(rows), "successes": len(rows)}, indent=4))


def _tar(folder: Path, records: Sequence[tuple[Sample, dict[str, Any]]]) -> str:
    with tarfile.open(folder / "r.tar", "w") as tar:
        for number, (sample, record) in enumerate(records):
            for place, (_, data) in enumerate(sample.images):
                add_member(tar, f"{number:06}.{place}.png", data)
            add_member(tar, f"{number:06}.json", json.dumps(record).encode())
    return str(folder / "r.tar")


TALKS = {
    one.__name__: one
    for one in (
        *(url_encoded, openai, openai_files, trl, finevision, cauldron, sharegpt, onevision, infinity, web_dataset),
        *(messages_in_tar, swift, byte_lists),
    )
}
CAPTIONS = {one.__name__: one for one in (bare_captions, img2dataset, img2dataset_files, img2dataset_parquet)}
