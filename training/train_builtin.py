"""Train the built-in network on the train split of Caltech-101 and export it, batch norms folded.

    python training/train_builtin.py DATA --output runs/builtin            # trains, resumes where it was killed
    python training/report_builtin.py DATA runs/builtin/builtin.safetensors    # the test split, once

DATA holds train.tar and classes.json. One seed gives one network on one machine and one number of threads.
The recipe: SGD with Nesterov momentum, a linear warm-up and a cosine to zero; bf16 autocast, channels-last; pictures
grow from 96 to 128 px as training goes on (Tan & Le 2021, EfficientNetV2, section 4); random resized crops, rotation,
flip and colour (Szegedy 2015); mixup (Zhang 2018) and CutMix (Yun 2019) on part of the batches; label smoothing; an
exponential average of the weights.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import math
import os
import sys
import tarfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "src" / "convscope" / "zoo"))
from architecture import build  # the file alone: training needs nothing else of the package

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
STORED = 160  # px; every photograph is held squashed to this square, its aspect ratio beside it


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights beside the data; stored in the exported file."""

    seed: int = 0
    epochs: int = 90
    opening: tuple[int, int] = (53, 120)  # the first 53 epochs keep the slower schedule of a run of 120
    batch: int = 64
    sizes: tuple[tuple[float, int], ...] = ((0.55, 96), (0.85, 112), (1.0, 128))  # until this share of training, px
    rate: float = 0.08
    warmup: float = 0.04
    decay: float = 7e-4
    momentum: float = 0.9
    smoothing: float = 0.1
    dropout: float = 0.3
    mixing: float = 0.65  # share of batches that mixup or CutMix touches, until the last tenth
    average: float = 0.998  # of the weights, per step


@dataclass
class Photographs:
    """A split, decoded once."""

    pixels: Tensor  # (N, 3, STORED, STORED) uint8
    aspect: Tensor  # (N,) width / height as published
    labels: Tensor  # (N,)


def read_split(archive: Path, classes: list[str]) -> Photographs:
    pixels, aspect, labels = [], [], []
    with tarfile.open(archive) as tar:
        for member in sorted((m for m in tar if m.isfile()), key=lambda m: m.name):
            name = Path(member.name).parent.name
            handle = tar.extractfile(member)
            if name not in classes or handle is None:
                continue
            picture = Image.open(io.BytesIO(handle.read())).convert("RGB")
            aspect.append(picture.width / picture.height)
            pixels.append(np.asarray(picture.resize((STORED, STORED), Image.Resampling.BILINEAR)))
            labels.append(classes.index(name))
    stacked = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    return Photographs(stacked, torch.tensor(aspect), torch.tensor(labels))


def uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator) * (high - low) + low


def crops(aspect: Tensor, generator: torch.Generator) -> Tensor:
    """(N, 2, 3) affine maps of random resized crops, rotated and flipped, in the stored square's coordinates."""
    n = len(aspect)
    width, height = aspect.sqrt(), aspect.rsqrt()  # of area 1
    area, ratio = uniform(n, 0.25, 1, generator), uniform(n, math.log(3 / 4), math.log(4 / 3), generator).exp()
    w = torch.minimum((area * ratio).sqrt(), width)
    h = torch.minimum((area / ratio).sqrt(), height)
    x = uniform(n, -1, 1, generator) * (1 - w / width)
    y = uniform(n, -1, 1, generator) * (1 - h / height)
    flip = (torch.rand(n, generator=generator) < 0.5).float() * 2 - 1
    angle = uniform(n, -0.22, 0.22, generator) * (torch.rand(n, generator=generator) < 0.5)
    cos, sin = angle.cos(), angle.sin()
    rows = [cos * w * flip / width, -sin * h / width, x, sin * w * flip / height, cos * h / height, y]
    return torch.stack(rows, 1).view(n, 2, 3)


def recolour(images: Tensor, generator: torch.Generator) -> Tensor:
    n = len(images)
    brightness, contrast, saturation = (uniform(n, 0.6, 1.4, generator).view(n, 1, 1, 1) for _ in range(3))
    saturation = saturation * (torch.rand(n, 1, 1, 1, generator=generator) > 0.1)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * saturation
    mean = images.mean((1, 2, 3), keepdim=True)
    return ((images - mean) * contrast + mean * brightness).clamp(0, 1)


def augment(photographs: Photographs, chosen: Tensor, size: int, generator: torch.Generator) -> Tensor:
    images = photographs.pixels[chosen].float() / 255
    grid = F.affine_grid(
        crops(photographs.aspect[chosen], generator), [len(chosen), 3, size, size], align_corners=False
    )
    images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return (recolour(images, generator) - 0.5) / 0.25


def mix(images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """mixup on a third of the mixed batches, CutMix on the others."""
    order = torch.randperm(len(images), generator=generator)
    first, second, third, fourth = torch.rand(4, generator=generator).tolist()
    if first < 1 / 3:
        share = 0.5 + 0.5 * second
        images = share * images + (1 - share) * images[order]
    else:
        side = images.shape[-1]
        cut = int(side * math.sqrt(second))
        top, left = int(third * (side - cut + 1)), int(fourth * (side - cut + 1))
        images = images.clone()
        images[:, :, top : top + cut, left : left + cut] = images[order][:, :, top : top + cut, left : left + cut]
        share = 1 - (cut / side) ** 2
    return images, share * targets + (1 - share) * targets[order]


def learning_rate(progress: float, recipe: Recipe) -> float:
    if progress < recipe.warmup:
        return recipe.rate * progress / recipe.warmup
    return recipe.rate * 0.5 * (1 + math.cos(math.pi * (progress - recipe.warmup) / (1 - recipe.warmup)))


def progress_at(epochs: float, recipe: Recipe) -> float:
    """Share of the schedule that lies behind after so many epochs."""
    first, planned = recipe.opening
    return epochs / (planned if epochs < first and planned > recipe.epochs else recipe.epochs)


def picture_size(progress: float, recipe: Recipe) -> int:
    return next(size for until, size in recipe.sizes if progress < until)


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": recipe.decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=recipe.rate, momentum=recipe.momentum, nesterov=True)


def epoch(network, averaged, optimizer, photographs, classes: int, number: int, recipe: Recipe) -> float:
    generator = torch.Generator().manual_seed(recipe.seed * 100_000 + number)
    torch.manual_seed(recipe.seed * 100_000 + number)  # dropout
    order = torch.randperm(len(photographs.labels), generator=generator)
    steps, total = len(order) // recipe.batch, 0.0
    for step in range(steps):
        progress = progress_at(number + step / steps, recipe)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(progress, recipe)
        chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
        images = augment(photographs, chosen, picture_size(progress, recipe), generator)
        targets = F.one_hot(photographs.labels[chosen], classes).float()
        if progress < 0.9 and torch.rand(1, generator=generator).item() < recipe.mixing:
            images, targets = mix(images, targets, generator)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(images.to(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=recipe.smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        keep = min(recipe.average, (1 + number * steps + step) / (10 + number * steps + step))
        with torch.no_grad():
            for mine, theirs in zip(averaged.state_dict().values(), network.state_dict().values(), strict=True):
                mine.lerp_(theirs, 1 - keep) if mine.is_floating_point() else mine.copy_(theirs)
        total += loss.item()
    return total / steps


def fold(network: nn.Sequential, classes: int) -> nn.Sequential:
    """The same function without batch norms: each is an affine map of its convolution's output."""
    plain = build(classes).eval()
    named = dict(network.named_children())
    for name, layer in plain.named_children():
        if isinstance(layer, nn.Conv2d):
            norm = named["norm" + name.removeprefix("conv")]
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            layer.weight.data = named[name].weight * scale.view(-1, 1, 1, 1)
            layer.bias.data = norm.bias - norm.running_mean * scale
        elif isinstance(layer, nn.Linear):
            layer.load_state_dict(named[name].state_dict())
    return plain


@torch.no_grad()
def without_silent_codes(
    plain: nn.Sequential, photographs: Photographs, classes: int, passes: int = 3
) -> nn.Sequential:
    """The same function without the units of the code layer that no augmented training photograph moves."""
    generator = torch.Generator().manual_seed(0)
    named = dict(plain.named_children())
    to_code = plain[: list(named).index("relu5") + 1]
    peak = torch.zeros(named["fc5"].out_features)
    for _ in range(passes):
        for chosen in torch.arange(len(photographs.labels)).split(128):
            peak = torch.maximum(peak, to_code(augment(photographs, chosen, 128, generator)).amax(0))
    alive = peak > 0
    pruned = build(classes, code=int(alive.sum())).eval()
    state = plain.state_dict()
    state["fc5.weight"], state["fc5.bias"] = state["fc5.weight"][alive], state["fc5.bias"][alive]
    state["fc6.weight"] = state["fc6.weight"][:, alive]
    pruned.load_state_dict(state)
    print(f"{int(alive.sum())} of {len(alive)} units of the code layer ever fire; the others are cut off", flush=True)
    return pruned


def export(averaged: nn.Sequential, photographs: Photographs, classes: list[str], recipe: Recipe, path: Path) -> None:
    """Half precision on disk (twice the network in the same bytes); loaded as float32."""
    plain = without_silent_codes(fold(averaged, len(classes)), photographs, len(classes))
    weights = {name: value.detach().half().contiguous() for name, value in plain.state_dict().items()}
    metadata = {
        "labels": json.dumps(classes), "mean": json.dumps(MEAN), "std": json.dumps(STD),
        "input_size": json.dumps([128, 128]), "recipe": json.dumps(asdict(recipe)),
    }  # fmt: skip
    save_file(weights, path, metadata)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, default=Path("runs/builtin"))
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    options = parser.parse_args()
    recipe = Recipe(seed=options.seed, epochs=options.epochs)
    options.output.mkdir(parents=True, exist_ok=True)
    classes = json.loads((options.data / "classes.json").read_text())
    photographs = read_split(options.data / "train.tar", classes)
    print(f"{len(photographs.labels)} photographs of {len(classes)} classes", flush=True)

    torch.manual_seed(recipe.seed)
    network = build(len(classes), batch_norm=True, dropout=recipe.dropout).to(memory_format=torch.channels_last)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    averaged = copy.deepcopy(network).eval()
    optimizer = make_optimizer(network, recipe)
    checkpoint, start = options.output / "checkpoint.pt", 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(saved["network"])
        averaged.load_state_dict(saved["averaged"])
        optimizer.load_state_dict(saved["optimizer"])
        start = saved["epoch"]
    for number in range(start, recipe.epochs):
        began = time.time()
        loss = epoch(network.train(), averaged, optimizer, photographs, len(classes), number, recipe)
        print(f"epoch {number + 1}/{recipe.epochs}  loss {loss:.4f}  {time.time() - began:.0f} s", flush=True)
        state = {"network": network.state_dict(), "averaged": averaged.state_dict(),
                 "optimizer": optimizer.state_dict(), "epoch": number + 1}  # fmt: skip
        torch.save(state, checkpoint.with_suffix(".new"))
        os.replace(checkpoint.with_suffix(".new"), checkpoint)
    export(averaged, photographs, classes, recipe, options.output / "builtin.safetensors")


if __name__ == "__main__":
    main()
