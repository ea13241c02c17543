"""Pictures made ready for a scan by several threads, in order, while the network works."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from convscope.errors import ConvscopeError
from convscope.images import read_image, resize, to_uint8
from convscope.network import Network
from convscope.scanning import attributes
from convscope.sources import Dataset, Entry, PictureSource


@dataclass(frozen=True)
class Loaded:
    """A picture ready for the network; or the reason why it is not."""

    entry: Entry
    label: str | None
    image: Tensor | None = None  # (3, H, W), prepared
    size: tuple[int, int] = (0, 0)  # (height, width), as it is stored
    attributes: np.ndarray | None = None
    thumbnail: bytes | None = None
    error: str | None = None


@dataclass(frozen=True)
class Loader:
    """Reads a picture of a source, prepares it, measures it and makes its thumbnail of ``side`` pixels."""

    source: PictureSource
    network: Network
    side: int

    def __call__(self, entry: Entry) -> Loaded:
        label = entry.label
        try:
            with torch.no_grad():
                if isinstance(self.source, Dataset):
                    given, label = self.source.item(entry)
                else:
                    given = self.source.read(entry)
                picture = read_image(given)
                image = self.network.prepare(picture)
                height, width = picture.shape[1:]
                found = attributes.measure(image, width / height)
                return Loaded(entry, label, image, (height, width), found, small(picture, self.side))
        except Exception as error:  # whatever one picture does, the others are still to be scanned
            said = str(error) if isinstance(error, ConvscopeError) else f"{type(error).__name__}: {error}"
            return Loaded(entry, label, error=" ".join(said.split()))


def small(picture: Tensor, side: int) -> bytes:
    """A WebP of (3, H, W), its longer side at most ``side`` pixels."""
    share = min(1.0, side / max(picture.shape[1:]))
    size = (max(1, round(picture.shape[1] * share)), max(1, round(picture.shape[2] * share)))
    pixels = to_uint8(resize(picture, size))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=75, method=0)
    return buffer.getvalue()


def prefetched(load: Callable[[Entry], Loaded], entries: Iterable[Entry], workers: int, ahead: int) -> Iterator[Loaded]:
    """What ``load`` makes of each entry, in order; up to ``ahead`` of them are loaded beforehand by other threads."""
    if workers == 0:
        yield from map(load, entries)
        return
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, "convscope-scan", initializer=_alone)
    waiting: deque[Future[Loaded]] = deque()
    try:
        for entry in entries:
            waiting.append(pool.submit(load, entry))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
            torch.set_num_threads(threads)  # which _alone() has changed for threads that are made later
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _alone() -> None:
    """What a loading thread computes, it computes alone; the other processors load other pictures."""
    torch.set_num_threads(1)
