"""Measure the built-in network and write its model card.

    python training/report_builtin.py DATA runs/builtin/builtin.safetensors

DATA holds train.tar, test.tar and classes.json. The test split is read here and nowhere else; statistics of channels
are taken on the train split. Pictures go through the package, exactly as a user's do.
"""

from __future__ import annotations

import argparse
import json
import math
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import convscope
from convscope.images import read_image
from convscope.network import Network


def photographs(archive: Path, labels: tuple[str, ...], every: int = 1) -> Iterator[tuple[Tensor, int]]:
    """(picture, class index) of every ``every``-th photograph."""
    with tarfile.open(archive) as tar:
        members = sorted((m for m in tar if m.isfile()), key=lambda m: m.name)
        for member in members[::every]:
            name = Path(member.name).parent.name
            handle = tar.extractfile(member)
            if name in labels and handle is not None:
                yield read_image(handle.read()), labels.index(name)


def batches(network: Network, pairs: Iterator[tuple[Tensor, int]], size: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
    """Prepared pictures and labels, ``size`` at a time."""
    images, labels = [], []
    for image, label in pairs:
        images.append(network.prepare(image))
        labels.append(label)
        if len(images) == size:
            yield torch.stack(images), torch.tensor(labels)
            images, labels = [], []
    if images:
        yield torch.stack(images), torch.tensor(labels)


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    share = right / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return centre - half, centre + half


@dataclass
class Accuracy:
    """What the test split says."""

    logits: Tensor
    labels: Tensor

    @property
    def right(self) -> Tensor:
        """(N,) whether the best class is the true one."""
        return self.logits.argmax(1) == self.labels

    def top(self, k: int) -> int:
        """How often the true class is among the best ``k``."""
        return int((self.logits.topk(k, 1).indices == self.labels[:, None]).any(1).sum())

    def per_class(self) -> Tensor:
        """(classes,) share of right answers."""
        count = self.logits.shape[1]
        hits = torch.zeros(count).index_add(0, self.labels, self.right.float())
        return hits / torch.bincount(self.labels, minlength=count)

    def confusions(self, most: int = 12) -> list[tuple[int, int, int]]:
        """(count, true, answered) of the commonest mistakes."""
        count = self.logits.shape[1]
        table = torch.bincount(self.labels * count + self.logits.argmax(1), minlength=count * count).view(count, count)
        table.fill_diagonal_(0)
        best = table.flatten().topk(most)
        return [(int(n), int(i) // count, int(i) % count) for n, i in zip(best.values, best.indices, strict=True)]

    def calibration_error(self, bins: int = 15) -> float:
        """Expected calibration error (Guo 2017): the mean gap between confidence and accuracy."""
        confidence = self.logits.softmax(1).amax(1)
        which = (confidence * bins).long().clamp(max=bins - 1)
        gaps = [
            abs(float(confidence[which == b].mean() - self.right[which == b].float().mean())) * int((which == b).sum())
            for b in range(bins)
            if bool((which == b).any())
        ]
        return sum(gaps) / len(self.labels)


def measure(network: Network, archive: Path) -> Accuracy:
    """Run the test split."""
    found = [(network(images), labels) for images, labels in batches(network, photographs(archive, network.labels))]
    return Accuracy(torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found]))


def silent_channels(network: Network, archive: Path) -> dict[str, tuple[int, int]]:
    """Layer -> (channels that no photograph moves, channels), over every fourth training photograph."""
    names = [i.name for i in network.layers() if i.kind == "ReLU"]
    peaks: dict[str, Tensor] = {}
    for images, _ in batches(network, photographs(archive, network.labels, every=4)):
        for name, found in convscope.observe(network, images, names).items():
            peak = found.flatten(2).amax(2).amax(0) if found.ndim == 4 else found.amax(0)
            peaks[name] = torch.maximum(peaks.get(name, peak), peak)
    return {name: (int((peak == 0).sum()), len(peak)) for name, peak in peaks.items()}


def card(network: Network, accuracy: Accuracy, silent: dict[str, tuple[int, int]], smooth: dict, size: int) -> str:
    """The model card, as Markdown."""
    labels, count = network.labels, len(accuracy.labels)
    top = accuracy.top(1) / count
    low, high = wilson(accuracy.top(1), count)
    shares = accuracy.per_class()
    order = shares.argsort()
    worst = "\n".join(f"| {labels[i]} | {shares[i]:.0%} | {int((accuracy.labels == i).sum())} |" for i in order[:12])
    mistakes = "\n".join(f"| {labels[t]} | {labels[a]} | {n} |" for n, t, a in accuracy.confusions())
    dead = ", ".join(f"{name} {n} of {of}" for name, (n, of) in silent.items())
    code = network.layer("fc5").channels
    parameters = sum(p.numel() for p in network.module.parameters())
    return f"""# The built-in network

Written by `training/report_builtin.py`; every number below comes from that one run.

| | |
|---|---|
| top-1 on the test split | **{top:.1%}** (95 % Wilson interval {low:.1%} to {high:.1%}; {accuracy.top(1)} of {count}) |
| top-5 | {accuracy.top(5) / count:.1%} |
| mean over classes | {float(shares.mean()):.1%} |
| expected calibration error | {accuracy.calibration_error():.3f} |
| parameters | {parameters:,}, stored in half precision, {size / 1e6:.1f} MB |
| first-layer filters | {smooth["verdict"]}, mean smoothness {smooth["mean_smoothness"]:.2f} (independent noise: 0) |
| channels that no training photograph moves | {dead} |

## What it is

A plain chain: a 7×7 first layer on colour, then 3×3 convolutions, ReLUs and max-pools in blocks, a fully connected
ReLU code layer of {code} units (`fc5`, `relu5`) and the classifier (`fc6`). Batch norms were folded into the
convolutions; of the 512 units that the code layer had in training, those that never fired were cut off. Pictures of
128×128 px: the shorter side scaled to 128, then the centre cut out.

## Data and its licence

Caltech-101 (Fei-Fei, Fergus and Perona 2004), CC BY 4.0: 100 of its classes, `Faces_easy` left out because it holds
the same photographs as `Faces`. 6,593 photographs trained it and {count} tested it, split by a hash of the name. No
photograph is part of this package. Recipe and seed are stored in the file's metadata, and
`training/train_builtin.py` makes it again; the test split was not used to choose anything.

## Limits

- It knows 100 classes and answers one of them whatever it sees. A cat becomes `wild_cat` or `cougar_face`.
- The classes are uneven: airplanes, motorbikes and faces are a quarter of the photographs, and lift the top-1; the
  mean over classes is the fairer number.
- Caltech-101 shows one centred object, often on an empty ground, some rotated with black corners, many left–right
  flipped to face one way: the network may rely on any of that.
- It is a teaching network. Do not build on its answers.

## Weakest classes

| class | right | test photographs |
|---|---|---|
{worst}

## Commonest mistakes

| true | answered | times |
|---|---|---|
{mistakes}
"""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--card", type=Path, default=Path("docs/builtin.md"))
    options = parser.parse_args()
    network = convscope.load_network("builtin", weights=options.weights)
    with torch.no_grad():
        accuracy = measure(network, options.data / "test.tar")
        silent = silent_channels(network, options.data / "train.tar")
    smooth = convscope.filters(network).summary
    options.card.write_text(card(network, accuracy, silent, smooth, options.weights.stat().st_size))
    count = len(accuracy.labels)
    print(json.dumps({"top1": accuracy.top(1) / count, "interval": wilson(accuracy.top(1), count), "silent": silent}))


if __name__ == "__main__":
    main()
