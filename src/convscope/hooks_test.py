from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.backward import gradient
from convscope.errors import NetworkError, UnknownLayer
from convscope.hooks import OUTPUT, Run, evaluation_mode, first_tensor, observe, outline, sequence, stream
from convscope.network import Network


def seeded(module: nn.Module, seed: int = 5) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter[0].numel() ** 0.5)
    return module


def network(module: nn.Module, **options: Any) -> Network:
    return Network(seeded(module), **{"input_size": (8, 8), "name": "net", **options})


def chain(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


def classifier(inplace: bool = True) -> nn.Sequential:
    return chain(
        conv1=nn.Conv2d(3, 4, 3, padding=1),
        relu1=nn.ReLU(inplace),
        conv2=nn.Conv2d(4, 6, 3, padding=1),
        relu2=nn.ReLU(inplace),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        fc=nn.Linear(6, 5),
    )


@pytest.fixture
def pictures() -> Tensor:
    return torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(2))


class Counter(nn.Module):
    """Hands on what it gets and counts how often it ran."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = 0

    def forward(self, x: Any) -> Any:
        self.runs += 1
        return x


# ---- what was observed is what the layer computed


def test_an_in_place_layer_behind_does_not_change_what_was_observed(pictures: Tensor) -> None:
    net = network(classifier())
    seen = observe(net, pictures, ["conv1", "relu1", "conv2", "relu2"])
    conv1 = F.conv2d(pictures, net.module.conv1.weight, net.module.conv1.bias, padding=1)
    conv2 = F.conv2d(conv1.clamp(min=0), net.module.conv2.weight, net.module.conv2.bias, padding=1)
    assert seen["conv1"].min() < 0
    assert seen["conv2"].min() < 0
    torch.testing.assert_close(seen["conv1"], conv1)
    torch.testing.assert_close(seen["relu1"], conv1.clamp(min=0))
    torch.testing.assert_close(seen["conv2"], conv2)
    torch.testing.assert_close(seen["relu2"], conv2.clamp(min=0))


def test_observing_leaves_the_output_as_it_is_bit_for_bit(pictures: Tensor) -> None:
    net = network(classifier())
    layers = [name for name, _ in net.module.named_modules() if name]
    assert torch.equal(observe(net, pictures, [*layers, OUTPUT])[OUTPUT], net.module(pictures))


@pytest.mark.parametrize("idle", [nn.Identity(), nn.Dropout(0.5), nn.Flatten()], ids=lambda m: type(m).__name__)
def test_layers_that_hand_on_their_input_are_observed_before_an_in_place_one(idle: nn.Module, pictures: Tensor) -> None:
    net = network(chain(conv=nn.Conv2d(3, 4, 3), idle=idle, again=nn.Identity(), relu=nn.ReLU(True), flat=nn.Flatten()))
    seen = observe(net, pictures, ["idle", "conv", "relu", "again"])
    assert seen["idle"].min() < 0
    assert torch.equal(seen["idle"].flatten(1), seen["conv"].flatten(1))
    assert torch.equal(seen["again"], seen["idle"])
    assert torch.equal(seen["relu"], seen["idle"].clamp(min=0))


def test_memory_that_others_hold_may_change_later(pictures: Tensor) -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.idle, self.relu = nn.Identity(), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            x = x - 0.5
            same = self.idle(x)
            x.mul_(-1)
            twice = self.relu(x)
            x.add_(3)
            return (same + twice).flatten(1)

    net = network(Residual())
    seen = observe(net, pictures, ["idle", "relu", OUTPUT])
    assert torch.equal(seen["idle"], pictures - 0.5)
    assert torch.equal(seen["relu"], (0.5 - pictures).clamp(min=0))
    assert torch.equal(seen[OUTPUT], net.module(pictures))  # for better or worse, one memory under three names
    seen = observe(net, pictures.clone().requires_grad_(), ["idle", "relu"])
    assert torch.equal(seen["idle"], pictures - 0.5)
    assert torch.equal(seen["relu"], (0.5 - pictures).clamp(min=0))


def test_only_the_container_or_only_the_layer_of_an_in_place_pair(pictures: Tensor) -> None:
    net = network(chain(block=chain(conv=nn.Conv2d(3, 4, 3), relu=nn.ReLU(True)), after=nn.ReLU(True)))
    with torch.no_grad():
        expected = net.module.block.conv(pictures)
    assert torch.equal(observe(net, pictures, ["block.conv"])["block.conv"], expected)
    assert torch.equal(observe(net, pictures, ["block"])["block"], expected.clamp(min=0))


Pair = namedtuple("Pair", ["first", "second"])


@pytest.mark.parametrize("make", [lambda a, b: (a, b), lambda a, b: [a, b], Pair], ids=["tuple", "list", "named tuple"])
def test_the_first_tensor_of_several_is_observed_and_the_others_go_on(make: Callable[..., Any]) -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return make(x - 0.5, x + 1)

    class Join(nn.Module):
        def forward(self, two: Any) -> Tensor:
            assert type(two) is type(make(0, 0))
            first, second = two if not isinstance(two, Pair) else (two.first, two.second)
            return (first.relu_() * second).flatten(1)

    net = network(chain(two=Two(), join=Join()))
    pictures = torch.rand(2, 3, 8, 8)
    seen = observe(net, pictures, ["two", OUTPUT])
    assert torch.equal(seen["two"], pictures - 0.5)
    torch.testing.assert_close(seen[OUTPUT], ((pictures - 0.5).clamp(min=0) * (pictures + 1)).flatten(1))


def test_a_layer_without_a_tensor_is_a_sentence() -> None:
    class Named(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"x": x}

    class Unnamed(nn.Module):
        def forward(self, named: dict[str, Tensor]) -> Tensor:
            return named["x"].flatten(1)

    net = network(chain(named=Named(), out=Unnamed()))
    with pytest.raises(NetworkError, match="layer 'named' returns a dict, not a tensor; observe a layer inside it"):
        observe(net, torch.rand(1, 3, 8, 8), ["named"])


def test_first_tensor() -> None:
    one, two = torch.zeros(1), torch.ones(1)
    assert first_tensor(one) is one
    assert first_tensor((one, two)) is one
    assert first_tensor([two]) is two
    assert first_tensor(((one,), two)) is None
    assert first_tensor(()) is None
    assert first_tensor({"a": one}) is None


# ---- layers that run several times


class Reused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.after = Counter()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x - 0.2)
        x = self.relu(0.5 - x)
        x = self.relu(x - 0.1)
        return self.after(x).flatten(1)


def test_a_reused_layer_gives_its_last_output_or_the_one_that_is_numbered(pictures: Tensor) -> None:
    net = network(Reused())
    first = (pictures - 0.2).clamp(min=0)
    second = (0.5 - first).clamp(min=0)
    third = (second - 0.1).clamp(min=0)
    assert net.calls["relu"] == 3
    for names in (["relu", "relu:0", "relu:1", "relu:2"], ["relu:2", "relu:1", "relu:0", "relu"], ["relu", "relu:0"]):
        seen = observe(net, pictures, names)
        for name, expected in {"relu:0": first, "relu:1": second, "relu:2": third, "relu": third}.items():
            if name in names:
                torch.testing.assert_close(seen[name], expected, rtol=0, atol=0)
    assert torch.equal(observe(net, pictures, ["relu"])["relu"], third)
    assert torch.equal(observe(net, pictures, ["relu:1"])["relu:1"], second)


def test_a_run_that_does_not_happen_is_a_sentence(pictures: Tensor) -> None:
    with pytest.raises(UnknownLayer, match="layer 'relu:3' of net did not run in this pass"):
        observe(network(Reused()), pictures, ["relu:3"])


def test_unknown_layers_name_the_nearest(pictures: Tensor) -> None:
    net = network(classifier())
    with pytest.raises(
        UnknownLayer, match=r"net has no layer 'conv3'; did you mean 'conv[12]' or .*`convscope layers`"
    ):
        observe(net, pictures, ["conv3"])
    with pytest.raises(UnknownLayer, match="net has no layer ''"):
        observe(net, pictures, [""])
    with pytest.raises(UnknownLayer, match="has no layer 'conv1:x'"):
        observe(net, pictures, ["conv1:x"])
    with pytest.raises(UnknownLayer, match=r"layer 'conv2' was not observed.*name it in observe"):
        observe(net, pictures, ["conv1"])["conv2"]


def test_a_layer_that_is_not_used_is_a_sentence(pictures: Tensor) -> None:
    module = Reused()
    module.add_module("spare", nn.ReLU())
    with pytest.raises(UnknownLayer, match="layer 'spare' of net did not run in this pass"):
        observe(network(module), pictures, ["spare"])


# ---- the pass ends where it may


def test_the_pass_ends_behind_the_deepest_layer(pictures: Tensor) -> None:
    counters = [Counter() for _ in range(4)]
    net = network(
        chain(a=nn.Conv2d(3, 3, 1), count0=counters[0], b=nn.Conv2d(3, 3, 1), count1=counters[1], c=Counter(),
              count2=counters[2], flat=nn.Flatten(), fc=nn.Linear(192, 4), count3=counters[3])
    )  # fmt: skip
    assert net.calls["a"] == 1  # one pass of its own

    def runs(layers: list[str]) -> list[int]:
        before = [counter.runs for counter in counters]
        observe(net, pictures, layers)
        return [counter.runs - was for counter, was in zip(counters, before, strict=True)]

    assert runs(["a"]) == [0, 0, 0, 0]
    assert runs(["b", "a"]) == [1, 0, 0, 0]
    assert runs(["c"]) == [1, 1, 0, 0]
    assert runs(["a", OUTPUT]) == [1, 1, 1, 1]
    assert runs([]) == [1, 1, 1, 1]


def test_the_pass_ends_behind_the_last_run_that_was_asked_for(pictures: Tensor) -> None:
    net = network(Reused())
    assert net.calls["after"] == 1
    before = net.module.after.runs
    observe(net, pictures, ["relu", "relu:0"])
    observe(net, pictures, ["relu:0"])
    assert net.module.after.runs == before


def test_the_whole_output_needs_no_second_pass() -> None:
    """Also for pictures of another size than the network was told, of which it may know none other."""
    net = Network(chain(count=Counter(), flat=nn.Flatten(), fc=nn.Linear(192, 4)), input_size=(224, 224))
    seen = observe(net, torch.rand(2, 3, 8, 8), ["flat", OUTPUT])
    assert net.module.count.runs == 1
    torch.testing.assert_close(seen[OUTPUT], net.module.fc(seen["flat"]))


# ---- graphs


def test_nothing_carries_a_graph_unless_it_was_asked_for(pictures: Tensor) -> None:
    net = network(classifier())
    for tensor in observe(net, pictures, ["conv1", "fc", OUTPUT]).values():
        assert tensor.grad_fn is None
        assert not tensor.requires_grad


def test_activations_can_be_differentiated_by_the_pictures(pictures: Tensor) -> None:
    net = network(classifier())
    images = pictures.clone().requires_grad_()
    seen = observe(net, images, ["conv2"])
    (found,) = torch.autograd.grad(seen["conv2"].square().sum(), images)
    images = pictures.clone().requires_grad_()
    again = net.module.conv2(F.relu(net.module.conv1(images)))
    (expected,) = torch.autograd.grad(again.square().sum(), images)
    torch.testing.assert_close(found, expected)


@contextmanager
def saved() -> Iterator[list[tuple[int, ...]]]:
    """The shapes of what autograd keeps for the way back."""
    shapes: list[tuple[int, ...]] = []

    def pack(tensor: Tensor) -> Tensor:
        shapes.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield shapes


def test_the_graph_starts_at_a_leaf(pictures: Tensor) -> None:
    net = network(classifier())
    with saved() as shapes:
        seen = observe(net, pictures, ["conv1", "relu1", "conv2", "relu2", OUTPUT], leaves=["conv2"])
    assert not seen["conv1"].requires_grad
    assert not seen["relu1"].requires_grad
    assert seen["conv2"].is_leaf
    assert seen["conv2"].requires_grad
    assert seen["relu2"].grad_fn is not None
    assert shapes
    assert not {tuple(pictures.shape), (3, 4, 8, 8)} & set(shapes)  # nothing from before the leaf is kept

    found = gradient(seen[OUTPUT][:, 2], seen["conv2"])
    leaf = net.module.conv2(F.relu(net.module.conv1(pictures))).detach().requires_grad_()
    score = net.module.fc(leaf.relu().mean((2, 3)))[:, 2]
    (expected,) = torch.autograd.grad(score.sum(), leaf)
    torch.testing.assert_close(seen["conv2"], leaf)
    torch.testing.assert_close(found, expected)
    assert all(parameter.grad is None for parameter in net.module.parameters())


def test_a_leaf_need_not_be_named_twice_and_frozen_parameters_are_no_hindrance(pictures: Tensor) -> None:
    net = network(classifier())
    net.module.requires_grad_(False)
    seen = observe(net, pictures, [OUTPUT], leaves=["relu1"])
    slope = gradient(seen[OUTPUT][:, 0], seen["relu1"])
    leaf = F.relu(net.module.conv1(pictures)).requires_grad_()
    score = net.module.fc(net.module.conv2(leaf).relu().mean((2, 3)))[:, 0]
    torch.testing.assert_close(slope, torch.autograd.grad(score.sum(), leaf)[0])


@pytest.mark.parametrize("frozen", [False, True])
def test_a_leaf_behind_another_stays_connected_with_it(frozen: bool, pictures: Tensor) -> None:
    net = network(classifier())
    net.module.requires_grad_(not frozen)
    seen = observe(net, pictures, [OUTPUT], leaves=["relu2", "conv1"])
    first, second = gradient(seen[OUTPUT][:, 1], [seen["conv1"], seen["relu2"]])
    leaf = net.module.conv1(pictures).detach().requires_grad_()
    behind = net.module.conv2(leaf.relu()).relu()
    score = net.module.fc(behind.mean((2, 3)))[:, 1].sum()
    expected = torch.autograd.grad(score, [leaf, behind])
    torch.testing.assert_close(first, expected[0])
    torch.testing.assert_close(second, expected[1])
    assert first.abs().max() > 0


@pytest.mark.parametrize("frozen", [False, True])
def test_leaves_on_two_branches(frozen: bool, pictures: Tensor) -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.fc = nn.Conv2d(3, 2, 3), nn.Conv2d(3, 2, 3), nn.Linear(2, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc((self.left(x) * self.right(x)).mean((2, 3)))

    net = network(Branches())
    net.module.requires_grad_(not frozen)
    seen = observe(net, pictures, [OUTPUT], leaves=["left", "right"])
    left, right = gradient(seen[OUTPUT][:, 3], [seen["left"], seen["right"]])
    weight = net.module.fc.weight[3].detach()[None, :, None, None] / 36  # 6x6 positions
    torch.testing.assert_close(left, weight * seen["right"].detach())
    torch.testing.assert_close(right, weight * seen["left"].detach())


def test_a_reused_layer_as_a_leaf(pictures: Tensor) -> None:
    net = network(Reused())
    for name, expected in {
        "relu": lambda leaf: leaf,
        "relu:1": lambda leaf: F.relu(leaf - 0.1),
        "relu:0": lambda leaf: F.relu(F.relu(0.5 - leaf) - 0.1),
    }.items():
        seen = observe(net, pictures, [OUTPUT], leaves=[name])
        found = gradient(seen[OUTPUT].square().sum(1), seen[name])
        leaf = seen[name].detach().requires_grad_()
        torch.testing.assert_close(found, torch.autograd.grad(expected(leaf).square().sum(), leaf)[0])


def test_a_layer_that_returns_several_as_a_leaf() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x * 2, x

    class Join(nn.Module):
        def forward(self, two: tuple[Tensor, Tensor]) -> Tensor:
            return (two[0].square() + two[1]).flatten(1)

    net, pictures = network(chain(two=Two(), join=Join())), torch.rand(2, 3, 8, 8)
    seen = observe(net, pictures, [OUTPUT], leaves=["two"])
    torch.testing.assert_close(gradient(seen[OUTPUT].sum(1), seen["two"]), 4 * pictures)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
def test_the_callers_gradient_mode_neither_matters_nor_changes(mode: Any, pictures: Tensor) -> None:
    net = network(classifier())
    with mode():
        before = torch.is_grad_enabled()
        seen = observe(net, pictures, [OUTPUT], leaves=["conv1"])
        assert torch.is_grad_enabled() is before
        assert observe(net, pictures, ["conv1"])["conv1"].grad_fn is None
        assert torch.is_grad_enabled() is before
        with torch.enable_grad():
            score = seen[OUTPUT][:, 0]
        assert gradient(score, seen["conv1"]).abs().max() > 0


# ---- nothing is left behind


def state_of(module: nn.Module) -> dict[str, Any]:
    """Everything about a module that a pass could change."""
    kept = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    hooks = [kind for kind in vars(nn.Module()) if "hook" in kind]
    assert len(hooks) > 5
    return {
        "tensors": kept,
        "identities": [(name, id(part)) for name, part in module.named_modules(remove_duplicate=False)],
        "parameters": [(n, id(p), p.data_ptr(), p.requires_grad, p._version) for n, p in module.named_parameters()],
        "buffers": [(name, id(buffer), buffer._version) for name, buffer in module.named_buffers()],
        "training": [part.training for part in module.modules()],
        "hooks": [[list(getattr(part, kind) or {}) for kind in hooks] for part in module.modules()],
        "attributes": [sorted(vars(part)) for part in module.modules()],
        "inplace": [getattr(part, "inplace", None) for part in module.modules()],
        "gradient mode": torch.is_grad_enabled(),
    }


class Trained(nn.Module):
    """In training mode, with everything that training mode would change: batch norm, dropout, gradients, own hooks."""

    def __init__(self, fault: BaseException | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4, momentum=0.5)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.frozen = nn.BatchNorm2d(4).eval()  # as in fine-tuning
        self.fc = nn.Linear(4, 5)
        self.fault, self.armed = fault, False
        self.conv.weight.requires_grad_(False)
        self.conv.register_forward_hook(lambda *_: None)
        self.train()
        self.frozen.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.frozen(self.drop(self.relu(self.norm(self.conv(x)))))
        if self.armed and self.fault is not None:
            raise self.fault
        return self.fc(x.mean((2, 3)))


def trained(fault: BaseException | None = None) -> Network:
    module = Trained(fault)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for tensor in (*module.parameters(), module.norm.running_mean):
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    for number, parameter in enumerate(module.parameters()):
        parameter.grad = torch.full_like(parameter, number)
    return Network(module, input_size=(8, 8), name="trained")


def gradients_of(module: nn.Module) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in module.parameters()]


def unchanged(module: nn.Module, before: dict[str, Any], slopes: list[Tensor]) -> None:
    after = state_of(module)
    tensors = before.pop("tensors")
    for name, tensor in after.pop("tensors").items():
        assert torch.equal(tensor, tensors[name]), name
    assert after == before
    assert all(torch.equal(p.grad, s) for p, s in zip(module.parameters(), slopes, strict=True))


def test_a_network_in_training_mode_gives_what_it_gives_in_evaluation_mode(pictures: Tensor) -> None:
    net = trained()
    module = net.module
    before, slopes = state_of(module), gradients_of(module)
    found = observe(net, pictures, ["norm", OUTPUT])
    again = net(pictures)
    unchanged(module, before, slopes)
    module.eval()
    expected = module(pictures)
    norm = (module.conv(pictures) - module.norm.running_mean[:, None, None]) / (
        module.norm.running_var[:, None, None] + module.norm.eps
    ).sqrt() * module.norm.weight[:, None, None] + module.norm.bias[:, None, None]
    torch.testing.assert_close(found["norm"], norm)
    assert torch.equal(found[OUTPUT], expected)
    assert torch.equal(again, expected)


@pytest.mark.parametrize("layers", [["conv"], ["norm", "relu", OUTPUT], []])
@pytest.mark.parametrize("leaves", [[], ["relu"]])
@pytest.mark.parametrize("by_pictures", [False, True])
def test_nothing_is_left_behind(layers: list[str], leaves: list[str], by_pictures: bool, pictures: Tensor) -> None:
    net = trained()
    before, slopes = state_of(net.module), gradients_of(net.module)
    seen = observe(net, pictures.clone().requires_grad_(by_pictures), [*layers, OUTPUT], leaves=leaves)
    if by_pictures or leaves:
        torch.autograd.grad(seen[OUTPUT].sum(), [seen["relu"] if leaves else seen[OUTPUT]])
    unchanged(net.module, before, slopes)


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        (RuntimeError("boom"), NetworkError),
        (ValueError("boom"), NetworkError),
        (KeyError("boom"), KeyError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (SystemExit(1), SystemExit),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
@pytest.mark.parametrize("leaves", [[], ["relu"]])
def test_nothing_is_left_behind_when_the_pass_is_broken_off(
    fault: BaseException, raised: type[BaseException], leaves: list[str], pictures: Tensor
) -> None:
    net = trained(fault)
    assert net.calls["conv"] == 1
    net.module.armed = True
    before, slopes = state_of(net.module), gradients_of(net.module)
    for mode in (torch.no_grad, torch.enable_grad):
        with mode():
            enabled = torch.is_grad_enabled()
            with pytest.raises(raised):
                observe(net, pictures, ["conv", "norm", OUTPUT], leaves=leaves)
            assert torch.is_grad_enabled() is enabled
            with pytest.raises(raised):
                net(pictures)
    unchanged(net.module, before, slopes)


def test_nothing_is_left_behind_by_an_outline_that_fails() -> None:
    net = trained(RuntimeError("boom"))
    net.module.armed = True
    before, slopes = state_of(net.module), gradients_of(net.module)
    with pytest.raises(NetworkError, match=r"trained fails on pictures of 8x8 pixels \(boom\)"):
        net.layers()
    unchanged(net.module, before, slopes)


def test_evaluation_mode_restores_each_flag_also_after_an_interrupt() -> None:
    module = Trained()
    flags = [part.training for part in module.modules()]
    assert True in flags
    assert False in flags

    def interrupted() -> None:
        with evaluation_mode(module):
            assert not any(part.training for part in module.modules())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [part.training for part in module.modules()] == flags


# ---- kinds of numbers and of memory


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_other_precisions(dtype: torch.dtype, pictures: Tensor) -> None:
    net = network(classifier())
    expected = observe(net, pictures, ["relu2"])["relu2"]
    module = seeded(classifier()).to(dtype)
    found = observe(Network(module, input_size=(8, 8)), pictures, ["relu2"])["relu2"]
    assert found.dtype == dtype
    tolerance = {torch.float64: 1e-5, torch.float16: 5e-3, torch.bfloat16: 5e-2}[dtype]
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=tolerance)


def test_channels_last_and_pictures_of_another_shape(pictures: Tensor) -> None:
    net = network(classifier())
    expected = observe(net, pictures, ["relu2", OUTPUT])
    found = observe(net, pictures.contiguous(memory_format=torch.channels_last), ["relu2", OUTPUT])
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])
    wide = torch.rand(2, 3, 5, 13)
    assert observe(net, wide, ["relu2"])["relu2"].shape == (2, 6, 5, 13)
    torch.testing.assert_close(observe(net, wide, [OUTPUT])[OUTPUT], net.module(wide))


def test_one_channel() -> None:
    net = network(chain(conv=nn.Conv2d(1, 2, 3), flat=nn.Flatten()), mean=torch.zeros(1), std=torch.ones(1))
    colours = torch.rand(2, 3, 8, 8)
    grey = (colours * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    torch.testing.assert_close(observe(net, colours, ["conv"])["conv"], net.module.conv(grey).detach())


def test_a_picture_does_not_see_its_neighbours(pictures: Tensor) -> None:
    net = network(classifier())
    together = observe(net, pictures, ["conv2", OUTPUT])
    for number in range(3):
        alone = observe(net, pictures[number : number + 1], ["conv2", OUTPUT])
        for name in alone:
            torch.testing.assert_close(together[name][number], alone[name][0], rtol=0, atol=1e-6)


# ---- a layer's output replaced


def test_the_network_goes_on_with_what_replaces_a_layers_output(pictures: Tensor) -> None:
    net = network(classifier())
    instead = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    before = instead.clone()
    seen = observe(net, pictures, ["conv1", "conv2", OUTPUT], replace={"conv1": instead})
    conv2 = F.conv2d(before.clamp(min=0), net.module.conv2.weight, net.module.conv2.bias, padding=1)
    torch.testing.assert_close(seen["conv1"], before)
    torch.testing.assert_close(seen["conv2"], conv2)
    torch.testing.assert_close(seen[OUTPUT], net.module.fc(conv2.clamp(min=0).mean((2, 3))))
    assert torch.equal(instead, before), "the in-place ReLU behind it changed the caller's tensor"
    assert not any(part._forward_hooks for part in net.module.modules())


def test_one_picture_and_many_replacements_give_many_outputs_past_a_sum(pictures: Tensor) -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
            self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
            self.fc = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv1(x)
            return self.fc((self.conv2(x) + x).mean((2, 3)))

    net = network(Residual())
    many = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    found = observe(net, pictures[:1], [OUTPUT], replace={"conv2": many})[OUTPUT]
    by_hand = torch.stack([net.module.fc((m + net.module.conv1(pictures[0])).mean((1, 2))) for m in many])
    torch.testing.assert_close(found, by_hand)
    assert found.shape == (5, 2)


def test_the_run_of_a_reused_layer_that_is_named_is_replaced_and_by_default_the_last(pictures: Tensor) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.ReLU()
            self.same = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return self.same(self.relu(self.relu(x) - 0.5) * 2)

    net = network(Twice(), input_size=(8, 8))
    half = torch.full_like(pictures, 0.75)
    assert float(observe(net, pictures, ["same"], replace={"relu": half})["same"].mean()) == 1.5
    assert float(observe(net, pictures, ["same"], replace={"relu:0": half})["same"].mean()) == 0.5


def test_a_replacement_can_be_differentiated(pictures: Tensor) -> None:
    net = network(classifier())
    instead = torch.randn(3, 6, 8, 8, generator=torch.Generator().manual_seed(3)).requires_grad_()
    score = observe(net, pictures, [OUTPUT], replace={"conv2": instead})[OUTPUT][:, 2]
    expected = net.module.fc.weight[2][None, :, None, None] / 64 * (instead > 0)
    torch.testing.assert_close(gradient(score, instead), expected.detach())


def test_replacing_what_does_not_run_or_is_not_there_is_an_error(pictures: Tensor) -> None:
    net = network(classifier())
    with pytest.raises(UnknownLayer, match="'conv2' of net did not run"):
        observe(net, pictures, ["relu1"], replace={"conv2": pictures})
    with pytest.raises(UnknownLayer, match="no layer 'conv9'"):
        observe(net, pictures, ["relu1"], replace={"conv9": pictures})


# ---- the outline


def test_outline_names_layers_in_the_order_in_which_they_last_finish() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Conv2d(3, 3, 1)
            self.block = chain(conv=nn.Conv2d(3, 4, 3), relu=nn.ReLU())
            self.relu = nn.ReLU()
            self.fc = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.relu(self.block(self.relu(x)))
            return self.fc(x.mean((2, 3)))

    module = Outer()
    runs = outline(module, lambda: module(torch.rand(2, 3, 6, 6)))
    assert runs == (
        Run("block.conv", "Conv2d", (2, 4, 4, 4), 1),
        Run("block.relu", "ReLU", (2, 4, 4, 4), 1),
        Run("block", "Sequential", (2, 4, 4, 4), 1),
        Run("relu", "ReLU", (2, 4, 4, 4), 2),
        Run("fc", "Linear", (2, 2), 1),
    )
    assert not any(part._forward_hooks for part in module.modules())


def test_a_sequence_has_every_run() -> None:
    module = chain(conv=nn.Conv2d(3, 3, 1), relu=nn.ReLU())
    runs = sequence(module, lambda: module(module(torch.rand(1, 3, 2, 2))))
    assert [(run.name, run.calls) for run in runs] == [("conv", 1), ("relu", 1), ("conv", 2), ("relu", 2)]


# ---- in the middle of the pass


def test_a_stream_shows_what_observe_keeps_also_in_front_of_an_in_place_layer(pictures: Tensor) -> None:
    net, shown = network(classifier(inplace=True)), {}
    names = ["conv1", "relu1", "conv2", "relu2"]
    logits = stream(net, pictures, names, lambda name, tensor: shown.update({name: tensor.clone()}))
    kept = observe(net, pictures, [*names, OUTPUT])
    assert list(shown) == names
    for name in names:
        torch.testing.assert_close(shown[name], kept[name], rtol=0, atol=0)
    assert float(shown["conv1"].min()) < 0
    torch.testing.assert_close(logits, kept[OUTPUT], rtol=0, atol=0)
    assert not logits.requires_grad


def test_a_stream_copies_nothing(pictures: Tensor) -> None:
    net, places = network(classifier(inplace=True)), {}
    stream(net, pictures, ["conv1", "relu1"], lambda name, tensor: places.update({name: tensor.data_ptr()}))
    assert places["conv1"] == places["relu1"]


def test_a_stream_shows_the_run_that_is_named_and_by_default_the_last(pictures: Tensor) -> None:
    class Thrice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(self.relu(self.relu(x.clone()) - 0.2) - 0.2).mean((2, 3))

    net, shown = network(Thrice()), {}
    stream(net, pictures, ["relu", "relu:1"], lambda name, tensor: shown.update({name: tensor.clone()}))
    torch.testing.assert_close(shown["relu:1"], (pictures - 0.2).clamp(min=0))
    torch.testing.assert_close(shown["relu"], ((pictures - 0.2).clamp(min=0) - 0.2).clamp(min=0))


def test_a_stream_leaves_the_module_as_it_was_also_when_the_receiver_fails(pictures: Tensor) -> None:
    net = network(classifier())
    net.module.train()
    with pytest.raises(ZeroDivisionError):
        stream(net, pictures, ["conv2"], lambda name, tensor: 1 / 0)
    assert net.module.training
    assert not any(part._forward_hooks for part in net.module.modules())
    with pytest.raises(UnknownLayer, match="no layer 'conv9'"):
        stream(net, pictures, ["conv9"], lambda name, tensor: None)
    with pytest.raises(UnknownLayer, match="'relu2:4' of net did not run"):
        stream(net, pictures, ["relu2:4"], lambda name, tensor: None)
