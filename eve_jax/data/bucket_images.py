"""Images that lie in buckets: their bytes, asked for ahead where records are read in order.

A request takes as long as the way to the bucket, and there is one for each image: one after the other, a million images
30 ms away would take eight hours.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from eve_jax.process import buckets, places

T = TypeVar("T")
AHEAD = 64  # images on their way or here, and records, that are not asked for yet
_coming: dict[str, Future[bytes | None]] = {}


def image_at(url: str) -> bytes | None:
    """Return the bytes of the object at `url`, None when there is none. Raises Refused."""
    coming = _coming.get(url)
    return _read(url) if coming is None else coming.result()


def _read(url: str) -> bytes | None:
    return buckets.read(url)[0]


def read_ahead(items: Iterable[T], images: Callable[[T], Iterable[object]]) -> Iterator[T]:
    """Yield `items`, whose `images` in buckets come meanwhile: those of the next ones, too.

    `image_at` has those of an item until the next one is asked for. Items without such images pass at once.
    """
    waiting: deque[tuple[T, list[str]]] = deque()
    pool: ThreadPoolExecutor | None = None
    count = 0
    try:
        for item in items:
            urls = []
            for url in filter(None, map(_url, images(item))):
                if url not in _coming:
                    pool = pool or ThreadPoolExecutor(AHEAD // 2, "images")
                    _coming[url] = pool.submit(_read, url)
                    urls.append(url)
            waiting.append((item, urls))
            count += len(urls)
            while waiting and (not count or count >= AHEAD or len(waiting) >= AHEAD):
                count -= len(waiting[0][1])
                yield from _given(waiting)
        while waiting:
            yield from _given(waiting)
    finally:
        for _, urls in waiting:
            _drop(urls)
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def _given(waiting: deque[tuple[T, list[str]]]) -> Iterator[T]:
    item, urls = waiting.popleft()
    try:
        yield item
    finally:
        _drop(urls)


def _drop(urls: Iterable[str]) -> None:
    for url in urls:
        del _coming[url]


def _url(image: object) -> str | None:
    """The URL of an image that lies in a bucket and not here, else None."""
    if not isinstance(image, str | Path) or (url := places.url_of(image)) is None or Path(image).exists():
        return None
    return url
