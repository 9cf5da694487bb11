"""What a report shows of a folder that `launch.curate` made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eve_jax.curate.report.content import Card, Content, Group, Histogram, Loss, histogram, spread
from eve_jax.curate.report.records import card_of, file_of, record_cards
from eve_jax.curate.report.rejected import Line, picked_lines
from eve_jax.curate.stage import Stage
from eve_jax.data.sources.records import Records, open_records
from eve_jax.errors import UserError, amount
from eve_jax.process.files import read_json

CURATED, FUNNEL, REJECTED, RECORDS = "curated.json", "funnel.json", "rejected.jsonl", "records"
COPIES = ("near_copy", "same_caption")  # rules whose value is the id of the record that is kept
SAMPLES, CLUSTERS, OF_CLUSTER, PAIRS, OF_RULE = 12, 12, 9, 8, 8  # that are shown at most
SHARDS = 100  # whose values the histograms are made of, at most


@dataclass(frozen=True)
class Folder:
    """A finished curation: where it is, what curated.json says, the stages by name, and the source."""

    path: Path
    curated: Mapping[str, Any]
    records: Records

    @classmethod
    def open(cls, path: Path) -> "Folder":
        """Return the curation in the folder `path`. Raises UserError for another folder."""
        curated = read_json(path / CURATED)
        try:
            source = curated["source"]
            records = open_records(source["records"], source["images"], path / "index", texts=False)
        except KeyError as error:
            raise UserError(f"{path / CURATED} lacks {error}; run launch.curate again") from error
        return cls(path, curated, records)

    def stage(self, name: str) -> Stage | None:
        """Return a stage by its name; None if it was off."""
        folder = self.curated["stages"].get(name)
        return None if folder is None else Stage(self.path, name, Path(folder).name.removeprefix(f"{name}-"))

    def column(self, name: str, columns: list[str]) -> pa.Table:
        """Return columns of the shards of a stage, of SHARDS of them at equal distances."""
        stage = self.stage(name)
        assert stage is not None
        return pa.concat_tables(stage.tables(spread(self.curated["shards"], SHARDS), columns))


def curation_content(path: Path) -> Content:
    """Return what is shown of the curation in the folder `path`. Raises UserError."""
    folder = Folder.open(path)
    funnel = read_json(path / FUNNEL)
    losses = [
        Loss(stage["stage"], rule, count) for stage in funnel["stages"] for rule, count in stage["rejected"].items()
    ]
    source, config = folder.curated["source"], folder.curated["config"]
    picked = picked_lines(path / REJECTED, losses, dict.fromkeys(COPIES, PAIRS), OF_RULE)
    return Content(
        title=f"Curation {config['name']}",
        facts=[
            ("records", source["records"]),
            ("kept", f"{funnel['kept']:,} of {funnel['in']:,}"),
            *_settings(config),
        ],
        total=funnel["in"],
        losses=losses,
        kept=funnel["kept"],
        histograms=_histograms(folder),
        samples=record_cards(open_records(str(path / RECORDS)), SAMPLES),
        clusters=_clusters(folder),
        copies=_copies(folder, [line for loss, lines in picked.items() if loss.rule in COPIES for line in lines]),
        rejected=[
            Group(loss.title, [_rejected_card(folder, line) for line in lines])
            for loss, lines in picked.items()
            if loss.rule not in COPIES
        ],
    )


def _settings(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the settings that are on, a line for each section."""
    lines = []
    for section, values in config.items():
        if isinstance(values, Mapping) and section not in ("engine", "write", "plan", "experts"):
            told = ", ".join(f"{name}={value}" for name, value in values.items() if value not in (0, "", [], ()))
            lines.append((section, told or "off"))
    return lines


def _histograms(folder: Folder) -> list[Histogram]:
    """Return the histograms of what was measured of images that can be read, and of similarities to the centers."""
    table = folder.column("measure", ["rule", "width", "height", "caption"])
    table = table.filter(pc.equal(table["rule"], ""))
    wide, high = (table[name].to_numpy().astype(np.float64) for name in ("width", "height"))
    short, long = np.minimum(wide, high), np.maximum(wide, high)
    words = np.array([len(caption.split()) for caption in table["caption"].to_pylist()], np.float64)
    rules = folder.curated["config"]["filter"]
    found = [
        histogram("short side, pixels", short, rules["short_edge"], log=True),
        histogram("long side over short", long / np.maximum(short, 1), rules["aspect"]),
        histogram("words of the web caption", words),
    ]
    if (clusters := folder.stage("cluster")) is not None:
        found.append(histogram("cosine to the center", clusters.read(0, ["similarity"])["similarity"].to_numpy()))
    return [one for one in found if one is not None]


def _clusters(folder: Folder) -> list[Group]:
    """Return sheets of clusters from the largest to the smallest, at equal distances, the nearest records first."""
    stage = folder.stage("cluster")
    if stage is None:
        return []
    table = stage.read(0)
    index, cluster, similarity = (table[name].to_numpy() for name in ("index", "cluster", "similarity"))
    numbers, sizes = np.unique(cluster, return_counts=True)
    by_size = np.argsort(-sizes, kind="stable")
    groups = []
    for place in by_size[spread(len(numbers), CLUSTERS)]:
        own = np.flatnonzero(cluster == numbers[place])
        nearest = own[np.argsort(-similarity[own], kind="stable")[:OF_CLUSTER]]
        cards = [card_of(folder.records, int(index[k]), f"cosine {similarity[k]:.2f}") for k in nearest]
        groups.append(Group(f"cluster {numbers[place]}: {amount(int(sizes[place]), 'record')}", cards))
    return groups


def _copies(folder: Folder, lines: Sequence[Line]) -> list[Group]:
    """Return pairs: the record that is kept, and one that was left out for it."""
    places = _places(folder, {line["value"] for line in lines})
    groups = []
    for line in lines:
        if line["value"] in places:
            kept = card_of(folder.records, places[line["value"]], "kept")
            title = f"{line['rule']}: {line['value']} kept, {line['id']} left out"
            groups.append(Group(title, [kept, card_of(folder.records, line["index"], "left out")]))
    return groups


def _places(folder: Folder, ids: set[str]) -> dict[str, int]:
    """Return the index in the source of each of the `ids`, the first of those that several records have."""
    found: dict[str, int] = {}
    stage = folder.stage("measure")
    assert stage is not None
    wanted = pa.array(sorted(ids), pa.string())
    for table in stage.tables(range(folder.curated["shards"]), ["index", "id"]) if ids else ():
        some = table.filter(pc.is_in(table["id"], wanted))
        for index, id in zip(some["index"].to_pylist(), some["id"].to_pylist(), strict=True):
            found.setdefault(id, index)
    return found


def _rejected_card(folder: Folder, line: Line) -> Card:
    return Card(str(line["id"]), file_of(folder.records, line["index"]), (str(line["value"]),))
