"""Pictures whose shape is of one class and whose texture is of another, and for which of the two a network decides.

Their file names say both: ``cat7-elephant1.png`` is the shape of a cat with the texture of an elephant (Geirhos et al.
2019, arXiv:1811.12231). Of the decisions for either, the share of those for the shape is the shape bias.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convscope.errors import OptionError
from convscope.intervals import Interval, proportion

_END = re.compile(r"\d*$")


def cues(name: str, known: Sequence[str] = ()) -> tuple[str, str]:
    """(shape, texture) that a file name says: ``cat7-elephant1.png`` is ``("cat", "elephant")``.

    Where the classes have hyphens themselves, ``known`` tells where the shape ends. Raises :class:`OptionError` for a
    name that says no two classes.
    """
    stem = Path(name).stem
    parts = stem.split("-")
    splits = [("-".join(parts[:cut]), "-".join(parts[cut:])) for cut in range(1, len(parts))]
    found = [(_END.sub("", a), _END.sub("", b)) for a, b in splits]
    found = [pair for pair in found if all(pair)]
    best = [pair for pair in found if known and set(pair) <= set(known)] or found[:1]
    if not best:
        raise OptionError(
            f"{Path(name).name} does not say its shape and texture; name pictures as cat7-elephant1.png, shape first"
        )
    return best[0]


@dataclass(frozen=True)
class Decision:
    """What a network saw in a picture of that shape and texture."""

    shape: str
    texture: str
    answer: str


@dataclass(frozen=True)
class Count:
    """Decisions for the shape, for the texture, and for neither."""

    name: str
    shape: int
    texture: int
    neither: int

    @property
    def bias(self) -> Interval:
        """Share of the shape among decisions for either, with its 95 % interval; NaN where there is none."""
        return proportion(self.shape, self.shape + self.texture)

    @property
    def total(self) -> int:
        return self.shape + self.texture + self.neither


def counted(decisions: Sequence[Decision]) -> list[Count]:
    """By the class of the shape, in order of their names. Where shape and texture agree, nothing is decided."""
    conflicts = [d for d in decisions if d.shape != d.texture]
    found = []
    for name in sorted({d.shape for d in conflicts}):
        own = Counter(_kind(d) for d in conflicts if d.shape == name)
        found.append(Count(name, own["shape"], own["texture"], own["neither"]))
    return found


def _kind(decision: Decision) -> str:
    kinds = {decision.shape: "shape", decision.texture: "texture"}
    return kinds.get(decision.answer, "neither")


def over_all(counts: Sequence[Count]) -> Count:
    """All classes together."""
    sums = (sum(getattr(count, kind) for count in counts) for kind in ("shape", "texture", "neither"))
    return Count("all", *sums)
