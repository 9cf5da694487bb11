"""The records of `synthetic.write_records` in the files of every other kind of source."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core import example_serializer

Sample = dict[str, Any]


def samples_of(folder: Path) -> list[Sample]:
    """The records in `folder`/records.jsonl, each with `files`: the bytes of its images."""
    samples = []
    for line in (folder / "records.jsonl").read_text(encoding="utf-8").splitlines():
        sample = json.loads(line)
        paths = sample.get("image", [])
        paths = paths if isinstance(paths, list) else [paths]
        samples.append({**sample, "files": [(path, (folder / "images" / path).read_bytes()) for path in paths]})
    return samples


def write_parquet(path: Path, samples: list[Sample], row_group_size: int = 4, several: bool = True) -> Path:
    """Columns id, image ({bytes, path}, or a list of those) and conversations."""
    images: list[Any] = [[{"bytes": data, "path": name} for name, data in sample["files"]] for sample in samples]
    if not several:
        images = [own[0] if own else None for own in images]
    columns = {
        "id": [sample["id"] for sample in samples],
        "image": images,
        "conversations": [sample["conversations"] for sample in samples],
        "data_source": ["test"] * len(samples),
    }
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path


def write_tar(path: Path, samples: list[Sample]) -> Path:
    """`key.json` with the conversations, and `key.0.png`, `key.1.png` ... next to it."""
    with tarfile.open(path, "w") as tar:
        for sample in samples:
            members = [(f"{n}.png", data) for n, (_, data) in enumerate(sample["files"])]
            text = json.dumps({"id": sample["id"], "conversations": sample["conversations"]})
            for ending, data in [*members, ("json", text.encode())]:
                add_member(tar, f"part/{sample['id']}.{ending}", data)
    return path


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """A file of a tar file."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def write_tfds(folder: Path, features: dict[str, Any], examples: list[dict[str, Any]], name: str = "talk") -> Path:
    """A prepared data set of one split, `train`, in `folder`/name/1.0.0; returns that folder."""
    target = folder / name / "1.0.0"
    target.mkdir(parents=True)
    spec = tfds.features.FeaturesDict(features)
    serializer = example_serializer.ExampleSerializer(spec.get_serialized_info())
    template = f"{name}-train.array_record-00000-of-00001"
    writer = ArrayRecordWriter(str(target / template), "group_size:1")
    for example in examples:
        writer.write(serializer.serialize_example(spec.encode_example(example)))
    writer.close()
    split = tfds.core.SplitInfo(
        name="train",
        shard_lengths=[len(examples)],
        num_bytes=(target / template).stat().st_size,
        filename_template=tfds.core.ShardedFileTemplate(
            data_dir=target, dataset_name=name, split="train", filetype_suffix="array_record"
        ),
    )
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=name, version=tfds.core.Version("1.0.0"), data_dir=str(target), module_name="tests"
    )
    info = tfds.core.DatasetInfo(builder=identity, features=spec)
    info.set_file_format("array_record")
    info.set_splits(tfds.core.splits.SplitDict([split]))
    info.write_to_directory(target)
    return target
