"""The pictures that the explorer has been given, by the hash of what the network sees of them.

A picture is read, bounded and decoded as everywhere else (``images.read_image``), scaled and cropped as the network
was trained, and kept as a PNG under its hash: what was sent is not kept.
"""

from __future__ import annotations

import hashlib
import io
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from convscope.errors import ImageError
from convscope.images import atomic_write, read_image, to_uint8
from convscope.network import Network

NAME = re.compile(r"[0-9a-f]{32}")
KEPT = 64  # decoded pictures in memory


@dataclass
class Pictures:
    """A folder of prepared pictures, the latest of them in memory."""

    folder: Path
    network: Network
    pixels: int
    titles: dict[str, str] = field(default_factory=dict)  # of this session's, in the order in which they came

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._memory: OrderedDict[str, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, source: bytes | Path | Tensor, title: str) -> str:
        """Read a picture and keep what the network sees of it; its name. :class:`ImageError` for what is none."""
        image = self.network.prepare(read_image(source, max_pixels=self.pixels))
        pixels = to_uint8(image)
        name = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()[:32]
        path = self.path(name)
        if not path.is_file():
            with atomic_write(path) as temporary:
                Image.fromarray(pixels).save(temporary, "PNG")
        with self._lock:
            self.titles.setdefault(name, title)
        return name

    def path(self, name: str) -> Path:
        """Its file; only names that :meth:`add` makes are taken."""
        if not NAME.fullmatch(name):
            raise ImageError(f"{name[:40]!r} is no picture of this explorer; add it first")
        return self.folder / f"{name}.png"

    def image(self, name: str) -> Tensor:
        """(3, H, W) in [0, 1]."""
        with self._lock:
            if name in self._memory:
                self._memory.move_to_end(name)
                return self._memory[name]
        path = self.path(name)
        if not path.is_file():
            raise ImageError(f"picture {name} is not there any more; add it again")
        image = read_image(path)
        with self._lock:
            self._memory[name] = image
            while len(self._memory) > KEPT:
                self._memory.popitem(last=False)
        return image

    def title(self, name: str) -> str:
        return self.titles.get(name, "picture")


def png(pixels: object) -> bytes:
    """(H, W, 3) or (H, W) uint8 as a PNG, quickly."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)  # type: ignore[arg-type]
    return buffer.getvalue()


def jpeg(image: Tensor) -> bytes:
    """(3, H, W) in [0, 1] as a JPEG, for pictures that are looked at for a moment."""
    buffer = io.BytesIO()
    Image.fromarray(to_uint8(image.detach().float().cpu().clamp(0, 1))).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def stacked(images: list[Tensor]) -> Tensor:
    """(N, 3, H, W) of prepared pictures, which have one size."""
    return torch.stack(images)
