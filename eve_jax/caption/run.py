"""Captions for the records of any source, resumable at any moment: what `launch.caption` does.

    ask     every record's image, several shards under way: what became of each is a line of OUT/asked/
    same    images with a caption that many others have are asked about again, then rejected
    write   the captioned records as shards, what was rejected and why, the funnel

All three follow from the records and the answer log alone. A killed run asks again what was in flight, and writes the
same bytes.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

from eve_jax.caption.answers import AnswerLog
from eve_jax.caption.ask import ATTEMPTS, CHECK, READ, Asker, Outcome, Question
from eve_jax.caption.checks import Facts
from eve_jax.caption.config import CaptionConfig
from eve_jax.caption.endpoint import Pool, Stopping
from eve_jax.caption.folder import SAME, CaptionFolder, Line
from eve_jax.caption.prompts import Prompt, fill, parse_template, variables
from eve_jax.caption.replies import SERVER, TIMEOUT, Stop
from eve_jax.caption.same import RULE, caption_number, numbers_above
from eve_jax.caption.sent import prepare
from eve_jax.curate.experts.form import Findings, read_findings
from eve_jax.data.image_file import BadImage
from eve_jax.data.record import BadRecord, Record
from eve_jax.data.sources.records import Records
from eve_jax.errors import UserError, shorten
from eve_jax.process.cores import own_cores
from eve_jax.process.interrupt import Interrupted, StopRequest
from eve_jax.process.progress import ProgressBar

GRACE = 10.0  # seconds that requests in flight get when the run is told to stop
LOOK = 0.1  # seconds between two looks at whether it is
SHOW = 0.5  # seconds between two updates of the bar
FAILED_IN_A_ROW = 50  # images at which the endpoint failed, without one that it answered between
DOING = "stopping: requests in flight get 10 seconds"


class NotAsked(Exception):
    """A record that cannot be asked about: `rule` and `value` of its rejection."""

    def __init__(self, rule: str, value: str, id: str = "") -> None:
        super().__init__(value)
        self.rule, self.value, self.id = rule, value, id


def web_caption(record: Record) -> str:
    """Return what the web calls the image: `alt`, else the text of a record with one answer; "" for none."""
    answers = [turn.text for turn in record.turns if turn.role == "gpt"]
    alt = record.kept.get("alt")
    return alt if isinstance(alt, str) and alt else answers[0] if len(answers) == 1 else ""


def _findings(record: Record) -> Findings:
    try:
        return read_findings(record.kept.get("experts"), "experts")
    except UserError as error:
        raise NotAsked("experts", str(error), record.id) from None


class Asking:
    """What is asked about the records of a source, by a config; `question` may be called by several threads."""

    def __init__(self, config: CaptionConfig, records: Records) -> None:
        self.config, self.records = config, records
        prompt = config.prompt
        self._templates = [parse_template(text, "") for text in (prompt.system, prompt.text)]

    def question(self, index: int) -> Question:
        """Return what is asked about record `index`. Raises NotAsked, and UserError for what is no fault of it."""
        id = ""
        try:
            record, _ = self.records.read(index)
            id = record.id
            if len(record.images) != 1:
                raise NotAsked("images", f"{len(record.images)} images, not one", id)
            findings = _findings(record)
            sent = prepare(record.images[0], self.config.image)
        except BadImage as error:
            raise NotAsked("image", f"{error.path}: {error.reason}", id) from None
        except BadRecord as error:
            raise NotAsked("record", error.reason, id or error.id) from None
        values = variables(findings, web_caption(record), self.config.experts.block)
        system, text = (fill(template, values) for template in self._templates)
        return Question(sent, Prompt(system, text), Facts.of(findings, self.config.checks), id)


class Piece(NamedTuple):
    """A record to ask about: its number in the source, and the attempts that are made."""

    record: int
    attempts: Sequence[int] = range(ATTEMPTS)


@dataclass
class Watch:
    """Ends a run that cannot go well: all of its first images rejected, or the endpoint failing one after another."""

    first_bad: int
    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    example: str = ""

    def see(self, outcome: Outcome) -> None:
        """Take notice of an outcome. Raises Stop."""
        if outcome.stage == READ:
            return
        if outcome.is_kept:
            self.kept += 1
        else:
            self.rejected[outcome.rule] += 1
            self.example = self.example or shorten(f"{outcome.value}: {outcome.caption}".rstrip(": "), 200)
        self.failed = self.failed + 1 if outcome.rule in (SERVER, TIMEOUT) else 0
        if self.failed == FAILED_IN_A_ROW:
            raise Stop(
                f"the endpoint failed at {self.failed} images in a row ({outcome.value}); rerun the command when it "
                f"works, with --retry={outcome.rule} for those"
            )
        bad = self.rejected.total()
        if self.first_bad and not self.kept and bad == self.first_bad:
            rules = ", ".join(f"{rule}: {count}" for rule, count in self.rejected.most_common())
            raise Stop(
                f"the first {bad} answers were all rejected ({rules}), such as: {self.example}; change the prompt, the "
                "model or config.checks (config.checks.first_bad=0 continues); the answers are kept"
            )


class Captioner:
    """Asks about records through the endpoints of a config; the answers are those of `log`."""

    def __init__(self, asking: Asking, log: AnswerLog, key: str = "") -> None:
        self.asking, self.log, self.key = asking, log, key
        self.config = asking.config
        self._watch = Watch(self.config.checks.first_bad)

    def ask(self, pieces: Iterable[Piece], take: Callable[[Line], None], bar: ProgressBar, done: int = 0) -> None:
        """Call `take` with what became of each of `pieces`, in the order in which that is known.

        bar: shows how many of all records are done, `done` of them before. Raises UserError and OSError; Interrupted
        after a Ctrl-C or SIGTERM, when what was in flight is answered or GRACE is over.
        """
        with StopRequest(DOING) as stop:
            asyncio.run(self._ask(iter(pieces), take, _Shown(bar, done), stop))
            if stop.wanted:
                raise Interrupted("stopped; rerun the command to resume: what was answered is not asked again")

    async def _ask(
        self, pieces: Iterator[Piece], take: Callable[[Line], None], shown: "_Shown", stop: StopRequest
    ) -> None:
        cores = own_cores()
        with ThreadPoolExecutor(cores, "images") as threads:
            asyncio.get_running_loop().set_default_executor(threads)
            async with Pool(self.config.endpoint, self.key) as pool:
                asker = Asker(self.config, pool, self.log)
                count = len(pool.endpoints) * self.config.endpoint.concurrency + cores
                tasks = [asyncio.create_task(self._work(pieces, take, asker, shown)) for _ in range(count)]
                watch = asyncio.create_task(self._look(stop, pool, shown, tasks))
                grace, error = 0.0, None
                try:
                    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
                    error = next((one for task in done if not task.cancelled() and (one := task.exception())), None)
                    grace = GRACE if isinstance(error, UserError) else 0.0  # what is in flight is paid for
                finally:
                    pool.stop()
                    for task in (*tasks, watch):
                        task.cancel()
                    await asyncio.gather(*tasks, watch, return_exceptions=True)
                    await asker.close(grace)
                if error is not None:
                    raise error

    async def _work(self, pieces: Iterator[Piece], take: Callable[[Line], None], asker: Asker, shown: "_Shown") -> None:
        """Ask about one record after the other, until there are no more or the run is told to stop."""
        for piece in pieces:
            id = ""
            try:
                question = await asyncio.to_thread(self.asking.question, piece.record)
                id = question.id
                outcome = await asker.caption(question, piece.attempts)
            except NotAsked as error:
                outcome, id = Outcome("", 0, READ, error.rule, error.value), error.id
            except Stopping:
                return
            self._watch.see(outcome)
            take(Line(piece.record, id, outcome))
            shown.done += 1

    async def _look(self, stop: StopRequest, pool: Pool, shown: "_Shown", tasks: list[asyncio.Task[None]]) -> None:
        """Show how far it is; when told to stop, send no more, and after GRACE wait no longer."""
        while not stop.wanted:
            shown.show(pool)
            await asyncio.sleep(LOOK)
        pool.stop()
        await asyncio.sleep(GRACE)
        for task in tasks:
            task.cancel()


@dataclass
class _Shown:
    """What the bar shows: records that are done, images a second, requests."""

    bar: ProgressBar
    done: int
    began: float = field(default_factory=time.monotonic)
    last: float = 0.0
    first: int = -1

    def show(self, pool: Pool) -> None:
        """Update the bar, not too often."""
        now = time.monotonic()
        self.first = self.done if self.first < 0 else self.first
        if now - self.last >= SHOW:
            self.last = now
            rate = (self.done - self.first) / max(now - self.began, 1e-9)
            text = f"{rate:.1f} images/s, {pool.sent:,} requests, {pool.in_flight} of {pool.limit} in flight"
            self.bar.set(self.done, text)


def ask_shards(captioner: Captioner, folder: CaptionFolder, numbers: Iterable[int]) -> None:
    """Ask about the records of those of the shards `numbers` that are not asked yet, several of them at a time.

    One process may do this for some shards while others do it for the rest: each has its gate, and its file of answers.
    """
    todo = [number for number in numbers if not folder.asked_file(number).is_file()]
    spans = {number: folder.span(number) for number in todo}
    lines: dict[int, dict[int, Line]] = {}
    done = folder.n_records - sum(map(len, spans.values()))

    def take(line: Line) -> None:
        number = folder.shard_of(line.index)
        own = lines.setdefault(number, {})
        own[line.index] = line
        if len(own) == len(spans[number]):
            folder.write_asked(number, (own[index] for index in spans[number]))
            del lines[number]

    pieces = (Piece(index) for number in todo for index in spans[number])
    if todo:
        with ProgressBar("captioning", folder.n_records, done) as bar:
            captioner.ask(pieces, take, bar, done)


def settle_same(captioner: Captioner, folder: CaptionFolder, most: int) -> None:
    """Ask again, once each, about images whose caption more than `most` have; reject those that keep such a one."""
    if not most or folder.asked_file(SAME).is_file():
        return
    lines = list(_lines_of(folder, numbers_above(_numbers(folder), most)))
    found: dict[int, Line] = {}

    def take(line: Line) -> None:
        found[line.index] = line

    again = [Piece(line.index, (1,)) for line in lines if line.outcome.attempt == 0]
    if again:
        with ProgressBar("asking again about images with the same caption", len(again)) as bar:
            captioner.ask(again, take, bar)
    final = {line.index: found.get(line.index, line) for line in lines}
    counts = numbers_above(_numbers(folder, final), most)
    folder.write_asked(SAME, (_not_same(final[index], counts) for index in sorted(final)))


def _lines_of(folder: CaptionFolder, numbers: dict[int, int]) -> Iterator[Line]:
    """Yield the lines of captions that have one of the `numbers`."""
    for number in range(folder.shards) if numbers else ():
        for line in folder.read_asked(number):
            if line.outcome.is_kept and caption_number(line.outcome.caption) in numbers:
                yield line


def _numbers(folder: CaptionFolder, final: dict[int, Line] | None = None) -> Iterator[int]:
    """Yield the numbers of all captions, of those in `final` what they are now."""
    for number in range(folder.shards):
        for line in folder.read_asked(number):
            outcome = (final or {}).get(line.index, line).outcome
            if outcome.is_kept:
                yield caption_number(outcome.caption)


def _not_same(line: Line, counts: dict[int, int]) -> Line:
    outcome = line.outcome
    count = counts.get(caption_number(outcome.caption), 0) if outcome.is_kept else 0
    if not count:
        return line
    value = f"{count:,} images have this caption"
    return Line(line.index, line.id, Outcome(outcome.caption, outcome.attempt, CHECK, RULE, value))
