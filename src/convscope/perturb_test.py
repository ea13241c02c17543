from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from convscope import winograd
from convscope.errors import OptionError
from convscope.network import Network
from convscope.perturb import Box, Outcome, Variations, batch, perturbed, plan, rules
from convscope.perturb import variations as asking
from convscope.techniques.contract_test import state
from convscope.zoo.torchvision_models import blueprint, import_torchvision

SIZE = (33, 42)
EVERYTHING = "almost every activation depends on every box"


def network(module: nn.Module, size: tuple[int, int] = SIZE, seed: int = 0, **options: Any) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.uniform_(-0.2, 0.2)
                part.running_var.uniform_(0.5, 1.5)
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4])
    return Network(module, mean=mean, std=std, input_size=size, **options)


def picture(size: tuple[int, int] = SIZE, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(1)).to(dtype)


def everywhere(size: tuple[int, int] = SIZE, window: tuple[int, int] = (7, 5), stride: int = 6) -> list[Box]:
    """Boxes all over the picture, corners and borders included."""
    tops = sorted({min(t, size[0] - window[0]) for t in range(0, size[0], stride)})
    lefts = sorted({min(v, size[1] - window[1]) for v in range(0, size[1], stride)})
    return [(top, left, *window) for top in tops for left in lefts]


def by_hand(net: Network, image: Tensor, boxes: Sequence[Box], fill: Tensor) -> Tensor:
    """One full pass a box."""
    rows = []
    for top, left, height, width in boxes:
        altered = image.clone()
        altered[:, top : top + height, left : left + width] = fill
        with torch.no_grad():
            rows.append(net(altered[None])[0])
    return torch.stack(rows)


def compare(module: nn.Module, size: tuple[int, int] = SIZE, engine: str = "incremental", **options: Any) -> Outcome:
    net = network(module, size, **options)
    image, boxes = picture(size, next(module.parameters()).dtype), everywhere(size)
    fill = image.mean((1, 2), keepdim=True)
    outcome = perturbed(net, image, boxes, fill)
    expected = by_hand(net, image, boxes, fill)
    assert outcome.engine == engine, outcome.reason
    largest = float((expected - outcome.clean).abs().max())
    assert_close(outcome.logits, expected, rtol=0, atol=1e-4 * largest)
    return outcome


def head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5)]


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever can be computed in a box is, and with fewer products, also where neither would pay."""
    for module in (plan, asking):
        monkeypatch.setattr(module, "WHOLE", math.inf)
    monkeypatch.setattr(winograd, "suits", lambda *sizes: True)


# ---- chains


def test_a_plain_chain_saves_most_of_the_arithmetic() -> None:
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(True), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU6()]
    outcome = compare(nn.Sequential(*layers, *head(8)))
    assert outcome.saved > 0.85
    assert outcome.reason == ""


def test_the_multiply_adds_are_those_of_the_textbook() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), *head(8))
    outcome = perturbed(network(module), picture(), [(10, 10, 7, 5)] * 4, torch.zeros(3, 1, 1))
    assert outcome.full_multiply_adds == 4 * (33 * 42 * 8 * 27 + 8 * 5)
    assert outcome.multiply_adds == 4 * (9 * 7 * 8 * 27 + 8 * 5)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize(
    ("stride", "padding", "dilation"), [(1, 1, 1), (2, 2, 1), (3, 0, 1), (1, 3, 2), ((2, 1), 2, 3)]
)
@pytest.mark.usefixtures("local")
def test_convolutions(mode: Any, stride: Any, padding: int, dilation: int) -> None:
    first = nn.Conv2d(3, 8, 3, stride, padding, dilation, padding_mode=mode)
    second = nn.Conv2d(8, 8, (3, 2), padding=1, groups=4, padding_mode=mode)
    compare(nn.Sequential(first, nn.ReLU(), second, *head(8)))


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 1), ((3, 2), (2, 3), (1, 1))])
@pytest.mark.parametrize("kind", ["max", "average", "average without padding", "average divided by 5"])
@pytest.mark.usefixtures("local")
def test_pools(kind: str, kernel: Any, stride: Any, padding: Any, ceil: bool) -> None:
    pools: dict[str, Callable[[], nn.Module]] = {
        "max": lambda: nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil),
        "average": lambda: nn.AvgPool2d(kernel, stride, padding, ceil),
        "average without padding": lambda: nn.AvgPool2d(kernel, stride, padding, ceil, count_include_pad=False),
        "average divided by 5": lambda: nn.AvgPool2d(kernel, stride, padding, ceil, divisor_override=5),
    }
    compare(nn.Sequential(nn.Conv2d(3, 8, 3), pools[kind](), nn.Conv2d(8, 8, 3, padding=1), *head(8)))


@pytest.mark.usefixtures("local")
def test_dilated_max_pool_and_adaptive_pools() -> None:
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(3, 2, 1, dilation=2), nn.AdaptiveAvgPool2d((5, 10))]
    compare(nn.Sequential(*layers, nn.Conv2d(8, 8, 3), *head(8)))
    compare(nn.Sequential(nn.Conv2d(3, 8, 2), nn.AdaptiveAvgPool2d((7, 9)), *head(8)), size=(33, 37))
    compare(nn.Sequential(nn.Conv2d(3, 8, 2), nn.AdaptiveMaxPool2d(4), nn.Flatten(), nn.Linear(128, 3)))


@pytest.mark.parametrize(
    "layer",
    [nn.LeakyReLU(0.2), nn.PReLU(8), nn.ELU(), nn.GELU(), nn.SiLU(), nn.Hardswish(), nn.Softplus(), nn.Softmax2d()],
    ids=lambda layer: type(layer).__name__,
)
def test_pointwise_layers(layer: nn.Module) -> None:
    compare(nn.Sequential(nn.Conv2d(3, 8, 3), layer, nn.Conv2d(8, 8, 3), *head(8)).double())


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.usefixtures("local")
def test_enlarging(mode: str) -> None:
    layers = [nn.Conv2d(3, 8, 3, 2), nn.Upsample(scale_factor=1.5, mode=mode), nn.Conv2d(8, 8, 3, padding=1)]
    compare(nn.Sequential(*layers, *head(8)))


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 8), nn.InstanceNorm2d(8), nn.LocalResponseNorm(3)])
def test_norms_over_space_end_locality_but_stay_right(norm: nn.Module) -> None:
    compare(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), norm, nn.ReLU(), nn.Conv2d(8, 4, 1), *head(4)))


# ---- branches, written with functions


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.narrow, self.wide = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 5, padding=2)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.gate, self.fc = nn.Conv2d(24, 24, 1), nn.Linear(24, 5)

    def stages(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x), inplace=True)
        x = x + torch.relu_(self.deep(x)) * 0.5
        return torch.cat([self.narrow(x), self.wide(x), F.max_pool2d(x, 3, 1, 1)], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.stages(x).mean((2, 3)))


class Gated(Branches):
    """Squeeze and excitation: a gate looks at the whole map and changes all of it."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(x)
        x = x * torch.sigmoid(self.gate(F.adaptive_avg_pool2d(x, 1)))
        return self.fc(F.conv2d(x, self.gate.weight).amax((2, 3)))


class Shuffled(Branches):
    """A channel shuffle and a split, as in ShuffleNet."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(x)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        left, right = x.chunk(2, 1)
        x = torch.cat([left[:, 2:4], right, left[:, :2], left[:, 4:].flip(3)], 1)
        return self.fc(x.sum((2, 3)) / 300)


class Last(nn.Module):
    """Channels last, as in ConvNeXt: layer norm and linear layers between permutations."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.scale = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8), nn.Parameter(torch.rand(8, 1, 1))
        self.up, self.down, self.fc = nn.Linear(8, 16), nn.Linear(16, 8, bias=False), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(x.permute(0, 2, 3, 1))
        x = x + self.scale * self.down(F.gelu(self.up(y))).permute(0, 3, 1, 2)
        return self.fc(x.flatten(2).mean(2))


@pytest.mark.parametrize("make", [Branches, Gated, Shuffled, Last])
def test_branches(make: Callable[[], nn.Module]) -> None:
    assert compare(make()).saved > 0.3


@pytest.mark.parametrize("make", [Branches, Gated, Shuffled, Last])
@pytest.mark.usefixtures("local")
def test_branches_where_boxes_cover_almost_everything(make: Callable[[], nn.Module]) -> None:
    compare(make(), size=(16, 20))


class Late(Branches):
    """What looks far comes before what looks near, and both read the same."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        far = F.avg_pool2d(x, 17, 1, 8)
        near = torch.relu(self.deep(x))
        return self.fc(torch.cat([far, near, near], 1).mean((2, 3)))


class Residual(nn.Module):
    """Blocks of a residual network with batch norms and strides."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16)
        self.first, self.second = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 32, 3, 2, 1)
        self.short, self.fc = nn.Conv2d(16, 32, 1, 2), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(x + self.first(x))
        return self.fc(F.relu(self.short(x) + self.second(x)).mean((2, 3)))


def test_what_needs_whole_maps_may_come_before_what_does_not() -> None:
    assert compare(Late(), size=(40, 40)).saved > 0.3


def test_wide_convolutions_take_fewer_products(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    convolved = winograd.convolved
    monkeypatch.setattr(winograd, "convolved", lambda *given: taken.append(len(given[0])) or convolved(*given))
    layers = [nn.Conv2d(3, 128, 3), nn.ReLU(), nn.Conv2d(128, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 8, 3)]
    compare(nn.Sequential(*layers, *head(8)), size=(29, 31))
    assert sum(taken) > 8
    seen = len(taken)
    net = network(nn.Sequential(*layers, *head(8)).bfloat16(), (29, 31))
    perturbed(net, picture((29, 31)), everywhere((29, 31)), torch.zeros(3, 1, 1))
    assert len(taken) == seen  # too coarse a precision for sums before products


class Tokens(nn.Module):
    """Patches and a class token through attention: batch-sized constants, nothing local after the stem."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 8, 8)
        self.token, self.places = nn.Parameter(torch.rand(1, 1, 16)), nn.Parameter(torch.rand(1, 21, 16))
        self.attend, self.fc = nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
        return self.fc(self.attend(x, x, x, need_weights=False)[0][:, 0])


def test_attention() -> None:
    compare(Tokens())


# ---- a random graph


def layer(draw: Any, channels: int) -> nn.Module:
    kind = draw(st.sampled_from(["conv", "conv", "depthwise", "max", "average", "norm", "relu", "up", "shrink"]))
    kernel, stride = draw(st.integers(1, 4)), draw(st.integers(1, 2))
    padding, dilation = draw(st.integers(0, kernel // 2)), draw(st.integers(1, 2))
    mode = draw(st.sampled_from(["zeros", "reflect", "replicate"]))
    made: dict[str, Callable[[], nn.Module]] = {
        "conv": lambda: nn.Conv2d(channels, channels, kernel, stride, padding, dilation, padding_mode=mode),
        "depthwise": lambda: nn.Conv2d(channels, channels, kernel, stride, padding, groups=channels),
        "max": lambda: nn.MaxPool2d(kernel, stride, padding, ceil_mode=bool(dilation - 1)),
        "average": lambda: nn.AvgPool2d(kernel, stride, padding, bool(dilation - 1), mode == "zeros"),
        "norm": lambda: nn.BatchNorm2d(channels),
        "relu": lambda: nn.ReLU(inplace=True),
        "up": lambda: nn.Upsample(scale_factor=2),
        "shrink": lambda: nn.ZeroPad2d((1, 0, 2, 1)),
    }
    return made[kind]()


class Drawn(nn.Module):
    """Stages of one to three branches, added or put side by side where their sizes fit, cropped where they do not."""

    def __init__(self, stages: list[tuple[str, list[nn.Sequential]]]) -> None:
        super().__init__()
        self.joins = [join for join, _ in stages]
        self.branches = nn.ModuleList(nn.ModuleList(parts) for _, parts in stages)
        self.stem, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for join, branches in zip(self.joins, self.branches, strict=True):
            parts = [branch(x) for branch in branches]  # type: ignore[union-attr]
            height, width = (min(part.shape[dim] for part in parts) for dim in (2, 3))
            parts = [part[:, :, :height, :width] for part in parts]
            x = sum(parts[1:], parts[0]) if join == "add" else torch.cat(parts, 1)[:, : x.shape[1]]
        return self.fc(x.mean((2, 3)))


@st.composite
def graphs(draw: Any) -> nn.Module:
    seed = draw(st.integers(0, 2**16))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        stages = [
            (
                draw(st.sampled_from(["add", "cat"])),
                [
                    nn.Sequential(*(layer(draw, 4) for _ in range(draw(st.integers(1, 3)))))
                    for _ in range(draw(st.integers(1, 3)))
                ],
            )
            for _ in range(draw(st.integers(1, 3)))
        ]
        return Drawn(stages)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(module=graphs(), height=st.integers(1, 9), width=st.integers(1, 9))
@pytest.mark.usefixtures("local")
def test_random_graphs_equal_full_passes(module: nn.Module, height: int, width: int) -> None:
    net, image = network(module.double()), picture(dtype=torch.float64)
    boxes = everywhere(window=(height, width), stride=13)
    try:
        with torch.no_grad():
            net(image[None])
    except Exception:
        return  # shrunk away
    outcome = perturbed(net, image, boxes, torch.zeros(3, 1, 1))
    assert outcome.engine == "incremental", outcome.reason
    assert_close(outcome.logits, by_hand(net, image, boxes, torch.zeros(3, 1, 1)), rtol=0, atol=1e-9)


# ---- what cannot be followed


class Deciding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = x * 2 if float(x.sum()) > 0 else x
        return self.fc(x.mean((2, 3)))


class Outside(Deciding):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.from_numpy(self.conv(x).detach().numpy()).mean((2, 3)))


class Dice(Deciding):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.dropout(self.conv(x), 0.5, training=True).mean((2, 3)))


class Mixing(Deciding):
    """The pictures of a batch see each other."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.fc((x - x.mean((0, 2, 3), keepdim=True)).amax((2, 3)))


@pytest.mark.parametrize(("make", "reason"), [(Deciding, "decides by"), (Outside, "outside torch")])
def test_full_passes_where_it_cannot_be_followed(make: Callable[[], nn.Module], reason: str) -> None:
    net, image, boxes = network(make(), max_batch=1), picture(), everywhere()
    outcome = perturbed(net, image, boxes, torch.zeros(3, 1, 1))
    assert outcome.engine == "full"
    assert reason in outcome.reason
    assert (outcome.saved, outcome.multiply_adds) == (0.0, None)
    assert_close(outcome.logits, by_hand(net, image, boxes, torch.zeros(3, 1, 1)))


@pytest.mark.parametrize("make", [Dice, Mixing])
def test_a_network_that_rolls_dice_or_mixes_pictures_is_noticed(make: Callable[[], nn.Module]) -> None:
    outcome = perturbed(network(make()), picture(), everywhere(), torch.zeros(3, 1, 1))
    assert outcome.engine == "full"


def test_small_pictures_get_full_passes() -> None:
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)]
    outcome = perturbed(
        network(nn.Sequential(*layers, *head(8)), (7, 6)), picture((7, 6)), [(0, 0, 6, 6)], picture((7, 6))
    )
    assert (outcome.engine, outcome.reason) == ("full", EVERYTHING)


# ---- the ways to ask


def test_boxes_of_many_sizes_with_contents_of_their_own_come_back_in_order() -> None:
    net, image = network(Branches()), picture()
    boxes = [(0, 0, 4, 4), (20, 30, 1, 1), (29, 38, 4, 4), (5, 5, 10, 3), (7, 8, 1, 1), (0, 0, 33, 42)]
    content = [torch.rand(3, h, w, generator=torch.Generator().manual_seed(h)) for _, _, h, w in boxes]
    outcome = perturbed(net, image, boxes, content)
    assert outcome.engine == "incremental"
    expected = [by_hand(net, image, [box], patch)[0] for box, patch in zip(boxes, content, strict=True)]
    assert_close(outcome.logits, torch.stack(expected), rtol=1e-5, atol=1e-5)


def test_many_windows_are_planned_by_their_distance_from_the_border() -> None:
    net, image, boxes = network(Branches()), picture(), everywhere(window=(3, 3), stride=1)
    assert len(boxes) > 4 * asking.MOST_AT_ONCE
    outcome = perturbed(net, image, boxes, torch.zeros(3, 1, 1))
    some = list(range(0, len(boxes), 97))
    expected = by_hand(net, image, [boxes[i] for i in some], torch.zeros(3, 1, 1))
    assert outcome.engine == "incremental"
    assert_close(outcome.logits[some], expected, rtol=1e-5, atol=1e-5)


def test_a_network_is_followed_once_for_each_size_of_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    followed: list[torch.Size] = []
    follow = asking._followed
    monkeypatch.setattr(asking, "_followed", lambda net, image: followed.append(image.shape) or follow(net, image))
    variations = Variations(network(Branches()))
    for size in (SIZE, SIZE, (20, 24)):
        variations.of(picture(size), [(0, 0, 4, 4)], torch.zeros(3, 1, 1))
    assert followed == [(3, *SIZE), (3, 20, 24)]


def test_two_windows_prove_a_network_once_for_each_size_of_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    proofs: list[int] = []
    compared = Variations._compare

    def counted(self: Variations, found: Tensor, which: int, *more: Any) -> None:
        proofs.append(which)
        compared(self, found, which, *more)

    monkeypatch.setattr(Variations, "_compare", counted)
    variations = Variations(network(Branches()))
    for window, size in (((7, 5), SIZE), ((4, 4), SIZE), ((7, 5), (24, 28))):
        variations.of(picture(size), everywhere(size, window, stride=3), torch.zeros(3, 1, 1))
    assert proofs == [0, -1, 0, -1]


def test_one_window_does_not_prove_that_pictures_do_not_mix() -> None:
    variations = Variations(network(Mixing()))
    alone = variations.of(picture(), [(5, 5, 4, 4)], torch.zeros(3, 1, 1))
    assert alone.engine == "incremental"
    assert variations.of(picture(), everywhere(), torch.zeros(3, 1, 1)).engine == "full"


def test_a_wrong_rule_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    behind = rules._behind
    monkeypatch.setattr(rules, "_behind", lambda span, kernel, *more: behind(span, 1, *more))
    outcome = perturbed(network(Branches()), picture(), everywhere(), torch.zeros(3, 1, 1))
    assert (outcome.engine, outcome.reason) == ("full", "its boxes do not give its scores")


def test_memory_running_out_halves_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    net, image, boxes = network(Branches()), picture(), everywhere()
    expected = perturbed(net, image, boxes, torch.zeros(3, 1, 1))
    seen: list[int] = []
    whole = batch.Batch.logits

    def small(self: batch.Batch) -> Tensor:
        seen.append(self.count)
        if self.count > 7:
            raise torch.OutOfMemoryError("out of memory")
        return whole(self)

    monkeypatch.setattr(batch.Batch, "logits", small)
    outcome = perturbed(net, image, boxes, torch.zeros(3, 1, 1))
    assert outcome.engine == "incremental"
    assert min(seen) <= 7 < max(seen)
    assert_close(outcome.logits, expected.logits)


def test_the_budget_bounds_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    whole = batch.Batch.logits
    monkeypatch.setattr(batch.Batch, "logits", lambda self: seen.append(self.count) or whole(self))
    net, image, boxes = network(Branches()), picture(), everywhere()
    Variations(net, budget=1).of(image, boxes, torch.zeros(3, 1, 1))
    assert seen == [1] * len(boxes)


class Meter(TorchDispatchMode):
    """Bytes of the tensors that are made under it, and the most that lived at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = op(*args, **(kwargs or {}))
        for made in result if isinstance(result, (list, tuple)) else [result]:
            if isinstance(made, Tensor):
                self._add(made.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            weakref.finalize(storage, self._remove, key, size)
            self.live += size
            self.peak = max(self.peak, self.live)

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


@pytest.mark.parametrize("make", [Branches, Gated, Residual])
@pytest.mark.usefixtures("local")
def test_memory_stays_within_the_budget_at_any_number_of_windows(make: Callable[[], nn.Module]) -> None:
    net, image, budget = network(make().eval(), (36, 36)), picture((36, 36)), 600_000
    variations = Variations(net, budget=budget)
    peaks = {}
    for stride in (36, 2):
        boxes = everywhere((36, 36), (6, 6), stride)
        with Meter() as meter:
            variations.of(image, boxes, torch.zeros(3, 1, 1), read=lambda logits: logits[:, 0])
        peaks[len(boxes)] = meter.peak
    one, *_, many = peaks
    assert many > 200 * one
    assert peaks[many] < peaks[one] + budget


def test_what_is_read_off_the_scores_comes_back_in_the_order_of_the_boxes() -> None:
    net, image, boxes, fill = network(Branches()), picture(), everywhere(stride=3), torch.zeros(3, 1, 1)
    whole = perturbed(net, image, boxes, fill).logits
    for incremental in (True, False):
        variations = Variations(net, incremental=incremental)
        found = variations.of(image, boxes, fill, clean=whole[0], read=lambda logits: logits[:, 2] * 3)
        assert found.clean is not None
        assert_close(found.logits, whole[:, 2] * 3, rtol=1e-5, atol=1e-5)


def test_incremental_can_be_turned_off() -> None:
    outcome = Variations(network(Branches()), incremental=False).of(picture(), [(0, 0, 4, 4)], picture())
    assert (outcome.engine, outcome.reason) == ("full", "full passes were asked for")


@pytest.mark.parametrize("precision", ["double", "bfloat16", "autocast"])
def test_other_precisions(precision: str) -> None:
    module: nn.Module = Branches().eval()
    dtype = {"double": torch.float64, "bfloat16": torch.bfloat16}.get(precision, torch.float32)
    options: dict[str, Any] = {"precision": "bfloat16"} if precision == "autocast" else {}
    net, image, boxes = network(module.to(dtype), **options), picture(dtype=dtype), everywhere()
    outcome = perturbed(net, image, boxes, torch.zeros(3, 1, 1))
    assert outcome.engine == "incremental", outcome.reason
    expected = by_hand(net, image, boxes, torch.zeros(3, 1, 1, dtype=dtype))
    tolerance = 1e-12 if precision == "double" else 0.03
    assert_close(outcome.logits.double(), expected.double(), rtol=tolerance, atol=tolerance)


def test_channels_last_networks_and_grey_ones() -> None:
    compare(Branches().to(memory_format=torch.channels_last))
    module = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), *head(8))
    net = Network(module, mean=torch.tensor([0.5]), std=torch.tensor([0.2]), input_size=SIZE)
    outcome = perturbed(net, picture(), everywhere(), torch.zeros(3, 1, 1))
    assert outcome.engine == "incremental"
    assert_close(outcome.logits, by_hand(net, picture(), everywhere(), torch.zeros(3, 1, 1)), rtol=1e-5, atol=1e-5)


def test_the_module_is_bitwise_as_it_was() -> None:
    module = Branches().train()
    before = state(module)
    perturbed(network(module), picture(), everywhere(), torch.zeros(3, 1, 1))
    assert state(module) == before


@pytest.mark.parametrize(
    ("boxes", "content", "remedy"),
    [
        ([], torch.zeros(3, 1, 1), "at least one"),
        ([(0, 0, 34, 4)], torch.zeros(3, 1, 1), "does not lie in"),
        ([(-1, 0, 4, 4)], torch.zeros(3, 1, 1), "does not lie in"),
        ([(0, 0, 0, 4)], torch.zeros(3, 1, 1), "does not lie in"),
        ([(0, 0, 4, 4)], torch.zeros(3, 5, 5), "does not fit a picture"),
        ([(0, 0, 4, 4)], [torch.zeros(3, 5, 5)], "does not fit a box"),
        ([(0, 0, 4, 4)], [torch.zeros(3, 4, 4)] * 2, "give as many"),
    ],
)
def test_bad_boxes_get_a_remedy(boxes: Any, content: Any, remedy: str) -> None:
    with pytest.raises(OptionError, match=remedy):
        perturbed(network(Branches()), picture(), boxes, content)


# ---- several boxes a variation


def scattered(count: int, each: int, side: tuple[int, int], seed: int = 0) -> list[Box]:
    """Anywhere; the last variation's boxes lie over each other."""
    generator = torch.Generator().manual_seed(seed)
    room = torch.tensor([SIZE[0] - side[0] + 1, SIZE[1] - side[1] + 1])
    places = (torch.rand(count, each, 2, generator=generator) * room).long()
    places[-1] = places[-1, :1] + torch.arange(each)[:, None] % 2
    places = places.clamp(max=room - 1)
    return [(*place, *side) for place in places.flatten(0, 1).tolist()]


def together(module: nn.Module, each: int, side: tuple[int, int] = (1, 1), **options: Any) -> Outcome:
    """Several boxes of their own content at once, against full passes."""
    net, image, count = network(module, **options), picture(), 12
    image = image.to(next(module.parameters()).dtype)
    boxes = scattered(count, each, side)
    content = torch.rand(count * each, 3, *side, generator=torch.Generator().manual_seed(2)).to(image)
    outcome = Variations(net).of(image, boxes, content, each=each)
    altered = image.expand(count, *image.shape).clone()
    for number, (top, left, height, width) in enumerate(boxes):
        altered[number // each, :, top : top + height, left : left + width] = content[number]
    with torch.no_grad():
        expected = net(altered)
    assert outcome.engine == "incremental", outcome.reason
    largest = float((expected - outcome.clean).abs().max())
    assert_close(outcome.logits, expected, rtol=0, atol=1e-4 * largest)
    return outcome


SCATTERED: dict[str, Callable[[], nn.Module]] = {
    "chain": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(True), nn.Conv2d(8, 8, 5, 2, 2), nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(8, 8, 3, padding=1), *head(8),
    ),
    "mirrored": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 2, padding_mode="reflect"), nn.ReLU(), nn.AvgPool2d(3, 2, 1), nn.Upsample(scale_factor=2),
        nn.Conv2d(8, 8, 3), *head(8),
    ),
    "flattened": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 31 * 40, 5)
    ),
    "branches": Branches, "gated": Gated, "shuffled": Shuffled, "channels last": Last,
}  # fmt: skip


@pytest.mark.parametrize("each", [2, 5])
@pytest.mark.parametrize("name", SCATTERED)
@pytest.mark.usefixtures("local")
def test_several_pixels_of_a_variation_equal_full_passes(name: str, each: int) -> None:
    together(SCATTERED[name]().double(), each)


@pytest.mark.parametrize("budget", [1, 300_000])
@pytest.mark.parametrize("side", [(1, 1), (3, 2), (7, 9)])
def test_several_boxes_of_a_variation_in_small_batches(
    side: tuple[int, int], budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Variations.__init__, "__kwdefaults__", {"budget": budget, "incremental": True})
    together(SCATTERED["chain"](), 3, side)


def test_several_boxes_cost_as_many_times_one() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), *head(8))
    outcome = Variations(network(module)).of(
        picture(), [(5, 5, 1, 1), (20, 30, 1, 1)] * 4, torch.zeros(3, 1, 1), each=2
    )
    assert outcome.logits.shape == (4, 5)
    assert outcome.full_multiply_adds == 4 * (33 * 42 * 8 * 27 + 8 * 5)
    assert outcome.multiply_adds == 4 * (2 * 3 * 3 * 8 * 27 + 8 * 5)


@pytest.mark.parametrize("boxes", [[(0, 0, 2, 2)] * 3, [(0, 0, 2, 2), (0, 0, 2, 3)]])
def test_variations_of_unlike_boxes_get_a_remedy(boxes: list[Box]) -> None:
    with pytest.raises(OptionError, match="as many for each, and all of one size"):
        Variations(network(Branches())).of(picture(), boxes, torch.zeros(3, 1, 1), each=2)


def test_full_passes_of_several_boxes_are_the_same() -> None:
    net, boxes = network(Branches()), scattered(6, 3, (2, 2))
    found = [
        Variations(net, incremental=on).of(picture(), boxes, torch.ones(3, 1, 1), each=3).logits for on in (True, False)
    ]
    assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


# ---- the zoo

#: those with more parameters would take a minute each to draw weights for in double precision
LARGEST = 150e6
SIDES = {"inception_v3": 96, "maxvit_t": 224}
torchvision = import_torchvision().models
EVERY = {
    name: torchvision.get_model_weights(name).DEFAULT.meta["num_params"]
    for name in torchvision.list_models(module=torchvision)
}


def calibrated(module: nn.Module, size: tuple[int, int]) -> nn.Module:
    """With the batch norms' own statistics: with random weights and none, a window's trace fades to rounding."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    if not norms:
        return module.eval()
    for part in norms:
        part.momentum = None  # the plain mean
    with torch.no_grad():
        module.train()(torch.randn(4, 3, *size, dtype=next(module.parameters()).dtype))
    return module.eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in EVERY if EVERY[name] <= LARGEST])
def test_torchvision_networks_equal_full_passes(name: str) -> None:
    size = (SIDES.get(name, 64),) * 2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = calibrated(blueprint(name, size).build(10).double(), size)
    net, image = Network(module, input_size=size, name=name), picture(size, torch.float64)
    boxes = [(0, 0, 6, 6), (30, 17, 6, 6), (size[0] - 6, size[1] - 6, 6, 6)]
    outcome = perturbed(net, image, boxes, torch.zeros(3, 1, 1))
    expected = by_hand(net, image, boxes, torch.zeros(3, 1, 1).double())
    assert outcome.reason in ("", EVERYTHING)
    assert_close(outcome.logits, expected, rtol=0, atol=1e-4 * float((expected - outcome.clean).abs().max()))


class Unfilled(TorchFunctionMode):
    """Weights are made without values."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*args, **((kwargs or {}) | ({"device": "meta"} if function is torch.empty else {})))


def tiled(name: str, size: tuple[int, int]) -> nn.Module:
    """The network in float32, its weights cut from one short list of random numbers."""
    with Unfilled():
        module = blueprint(name, size).build(10)
    module = module.to_empty(device="cpu").requires_grad_(False)
    numbers = torch.randn(1_000_003, generator=torch.Generator().manual_seed(0))
    for key, values in (*module.named_parameters(), *module.named_buffers()):
        if values.ndim > 1:
            values.copy_(numbers.repeat(values.numel() // len(numbers) + 1)[: values.numel()].view_as(values))
            values.div_(math.sqrt(values[0].numel()))
        else:
            values.fill_(float("bias" not in key and "mean" not in key and "num" not in key))
    return module


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in EVERY if EVERY[name] > LARGEST])
def test_the_largest_torchvision_networks_equal_full_passes(name: str) -> None:
    size = (70, 70) if name == "vit_h_14" else (64, 64)
    net, image = Network(calibrated(tiled(name, size), size), input_size=size, name=name), picture(size)
    boxes = [(0, 0, 6, 6), (30, 17, 6, 6)]
    outcome = perturbed(net, image, boxes, torch.zeros(3, 1, 1))
    expected = by_hand(net, image, boxes, torch.zeros(3, 1, 1))
    assert outcome.reason in ("", EVERYTHING)
    assert_close(outcome.logits, expected, rtol=0, atol=1e-4 * float((expected - outcome.clean).abs().max()))
