"""Work folders in buckets: a folder here is made equal to the bucket's when a run begins, and published as it goes.

An object takes the place of another in one piece, so each file is written anew as a whole where it was changed. A
checkpoint counts when its manifest is there, which is written last; what a run had in its other files when it was saved
is published before. So a run that is killed, here or with its machine, resumes on any machine from what the bucket has.

Each process of several has a folder of its own. Process 0 alone holds the lock and publishes files, which it hands out
to the others; of a checkpoint, each has its own part and what belongs to no part (`eve_jax.checkpoint.bucket_saves`).
"""

import fcntl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

from eve_jax.errors import UserError
from eve_jax.process import buckets, places
from eve_jax.process.fetched import fetch_step
from eve_jax.process.lock import LAPSE, LOCK, POLL, Lock, held_around, locked
from eve_jax.process.publishing import EVERY, Published, one_line, peers

_held: dict[str, "Published"] = {}  # work folders of this process by their URLs


def work_folder(url: str, field: str = "") -> str:
    """Return where the work folder at `url` lies here. Raises UserError."""
    return str(places.folder_of(url, places.WORK))


def own(folder: Path) -> Path:
    """Return where the work folder in a bucket whose place is `folder` lies for this process of a run; others as is."""
    url, others = places.url_of(folder, (places.WORK,)), peers()
    return folder if url is None or others is None else places.folder_of(url, places.work_of(others.index))


def published(folder: Path) -> "Published | None":
    """Return the work folder that holds `folder`, if it is one in a bucket that this process, or its run, holds."""
    url = places.url_of(folder, (places.WORK,))
    return next((work for at, work in _held.items() if url and f"{url}/".startswith(f"{at}/")), None)


@contextmanager
def in_bucket(folder: Path, what: str) -> Iterator[Lock | None]:
    """Hold the lock of a folder in a bucket, which is fetched first and published in the block.

    None for a local folder, one inside of another that is held so, and in other processes of a run than 0, all of
    which call this. what: what the block does, for messages. Raises UserError.
    """
    url = places.url_of(folder, (places.WORK,))
    around = published(folder)
    if url is None or around is not None:
        if around is not None:
            around.hand_out()
        yield around.lock if around is not None and around.url == url else None
        return
    from eve_jax.process.progress import spinner  # here, since every command imports this module

    others, folder = peers(), own(folder)
    leads = others is None or others.index == 0
    with ExitStack() as held:
        lock = held.enter_context(locked(folder, what)) if leads else None
        token = ""
        if others is not None:
            token = others.gather("bucket locked", "" if lock is None else lock.owner.token)[0]
        if not leads:
            held.enter_context(_alone(folder))
        work = Published(url, folder, lock, others, token)
        with one_line(url), spinner(f"fetching {url}", off=not leads):
            work.pull()
        if others is not None:
            others.gather("bucket fetched")
        _held[url] = work
        try:
            with _publishing(work, lock) if lock is not None else nullcontext():
                yield lock
        finally:
            del _held[url]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process of this machine has `folder`, the place of a process that holds no lock.

    Of a run whose process 0 was killed, the others live until they notice. Raises UserError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}{LOCK}").open("w") as file:
        limit, said = time.monotonic() + LAPSE, False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > limit:
                    raise UserError(f"{folder}: a process of an earlier run does not end; stop it") from None
                if not said:
                    print(f"{folder}: waiting for a process of an earlier run to end", flush=True)
                said = True
                time.sleep(POLL)
                continue
            except OSError:  # of network file systems without locks
                pass
            break
        yield


@contextmanager
def _publishing(work: "Published", lock: Lock) -> Iterator[None]:
    """Publish `work`, whose lock is held, in the block and at its end."""
    held_around[lock.store.place] = lock
    thread = threading.Thread(target=work.follow, name="publish", daemon=True)
    thread.start()
    try:
        yield
        with one_line(work.url):
            work.publish()
            if work.others is None:
                work.save_all()
            work.prune()
    except BaseException as error:
        if not _unanswered(error):  # which would take another minute
            with suppress(OSError):
                work.publish()
        raise
    finally:
        del held_around[lock.store.place]
        work.over.set()
        thread.join(timeout=EVERY)


def _unanswered(error: BaseException | None) -> bool:
    """Whether a bucket that does not answer is the reason of an error."""
    return error is not None and (
        isinstance(error, buckets.NoAnswer) or _unanswered(error.__cause__ or error.__context__)
    )


def bring(step: Path, wanted: Callable[[str], bool]) -> None:
    """Fetch the files of the checkpoint `step` that are `wanted` and not here, where each process has a part alone.

    Does nothing for other folders; a file that the bucket lacks is missing here, too. Raises UserError.
    """
    work = published(step)
    if work is not None and work.others is not None and step.is_dir():
        url = str(places.url_of(step))
        with one_line(url), suppress(FileNotFoundError):
            fetch_step(url, step, wanted)


@contextmanager
def sent(file: Path, *others: Path) -> Iterator[None]:
    """Write `file`, and `others` as far as they are there, to the bucket that they are of when the block has ended.

    Raises UserError; does nothing for local files.
    """
    if (url := places.url_of(file, (places.WORK,))) is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    yield
    with one_line(url):
        for path in (*(path for path in others if path.is_file()), file):
            buckets.upload(path, str(places.url_of(path)))
