from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from convscope import backward
from convscope.backward import DECONVNET, GUIDED, PLAIN, GradientRule, RuleWarning, gradient
from convscope.errors import NetworkError, RuleError
from convscope.hooks import OUTPUT, observe
from convscope.network import Network

aten = torch.ops.aten
RULES = pytest.mark.parametrize("rule", [DECONVNET, GUIDED], ids=lambda rule: rule.name)
ALL = pytest.mark.parametrize("rule", [PLAIN, DECONVNET, GUIDED], ids=lambda rule: rule.name)


# ---- two slow references: one on backward operators, one on autograd functions of our own


class ByOperator(TorchDispatchMode):
    """The rules where torch computes the derivative of a ReLU or ReLU6, whoever asked for it."""

    def __init__(self, rule: GradientRule) -> None:
        super().__init__()
        self.rule, self.rewritten = rule, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in (aten.threshold_backward.default, aten.hardtanh_backward.default):
            return func(*args, **(kwargs or {}))
        self.rewritten += 1
        arriving = args[0].clamp(min=0) if self.rule.rectify_gradient else args[0]
        return func(arriving, *args[1:]) if self.rule.forward_mask else arriving


class CountRectifiers(TorchDispatchMode):
    """How many ReLUs and ReLU6s a forward pass executes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name in ("aten::relu", "aten::relu_", "aten::hardtanh", "aten::hardtanh_"):
            self.found[func._schema.name] += 1
        return func(*args, **(kwargs or {}))


def by_operator(module: nn.Module, images: Tensor, target: int, rule: GradientRule) -> tuple[Tensor, int]:
    images = images.clone().requires_grad_()
    score = module(images)[:, target].sum()
    with ByOperator(rule) as mode:
        (found,) = torch.autograd.grad(score, images)
    return found, mode.rewritten


def rectifier(rule: GradientRule, top: float = float("inf")) -> Callable[[Tensor], Tensor]:
    """The rule's table row, as an autograd function."""

    class Rectify(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x.clamp(0, top)

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            open_forward, open_backward = (x > 0) & (x < top), g > 0
            return {
                "plain": g * open_forward,
                "deconvnet": g * open_backward,
                "guided": g * open_forward * open_backward,
            }[rule.name]

    return Rectify.apply


# ---- what is tested


def through(network: Network, images: Tensor, target: int, rule: GradientRule) -> Tensor:
    images = images.clone().requires_grad_()
    return gradient(observe(network, images, [OUTPUT])[OUTPUT][:, target], images, rule)


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The rewriters that ``gradient`` made, with their counts."""
    made: list[Any] = []

    class Recorded(backward._Rewriter):
        def __init__(self, rule: GradientRule) -> None:
            super().__init__(rule)
            made.append(self)

    with monkeypatch.context() as patch:
        patch.setattr(backward, "_Rewriter", Recorded)
        yield made


class Net(nn.Module):
    """Conv, activation, conv, activation, pooled and weighed; the activation is any function."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, 4)
        self.activation = activation
        self.double()
        for parameter in self.parameters():
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.conv1(x))
        x = self.activation(self.conv2(x))
        return self.fc(x.mean((2, 3)))


@pytest.fixture
def pictures() -> Tensor:
    return torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


RELUS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "functional": F.relu,
    "functional in place": lambda x: F.relu(x, inplace=True),
    "torch": torch.relu,
    "tensor method": lambda x: x.relu(),
    "tensor method in place": lambda x: x.relu_(),
    "clamp": lambda x: x.clamp(min=0),
    "clamp in place": lambda x: x.clamp_(min=0),
    "clamp by a tensor": lambda x: x.clamp(min=torch.tensor(0.0, dtype=torch.float64)),
    "clamp_min": lambda x: x.clamp_min(0),
    "clip": lambda x: x.clip(0),
    "threshold": lambda x: F.threshold(x, 0, 0),
    "threshold in place": lambda x: F.threshold_(x, 0, 0),
    "leak of zero": lambda x: F.leaky_relu(x, 0.0),
}
RELU6S: Mapping[str, Callable[[Tensor], Tensor]] = {
    "module": nn.ReLU6(),
    "module in place": nn.ReLU6(inplace=True),
    "functional": F.relu6,
    "hardtanh": lambda x: F.hardtanh(x, 0, 6),
    "hardtanh in place": lambda x: F.hardtanh_(x, 0, 6),
    "clamp": lambda x: x.clamp(0, 6),
    "clamp in place": lambda x: x.clamp_(0, 6),
}


@ALL
@pytest.mark.parametrize("way", RELUS)
def test_every_way_to_write_a_relu_gives_the_numbers_of_the_rule(
    way: str, rule: GradientRule, pictures: Tensor
) -> None:
    images = pictures.clone().requires_grad_()
    (expected,) = torch.autograd.grad(Net(rectifier(rule))(images)[:, 1].sum(), images)
    found = through(Network(Net(RELUS[way])), pictures, 1, rule)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


@ALL
@pytest.mark.parametrize("way", RELU6S)
def test_every_way_to_write_a_relu6_gives_the_numbers_of_the_rule(
    way: str, rule: GradientRule, pictures: Tensor
) -> None:
    images = pictures.clone().requires_grad_()
    (expected,) = torch.autograd.grad(Net(rectifier(rule, top=6))(images)[:, 1].sum(), images)
    found = through(Network(Net(RELU6S[way])), pictures, 1, rule)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


@ALL
def test_the_two_references_agree(rule: GradientRule, pictures: Tensor) -> None:
    for activation, top in ((F.relu, float("inf")), (F.relu6, 6.0)):
        images = pictures.clone().requires_grad_()
        (one,) = torch.autograd.grad(Net(rectifier(rule, top))(images)[:, 2].sum(), images)
        other, rewritten = by_operator(Net(activation), pictures, 2, rule)
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0)
        assert rewritten == 2


# ---- whole networks


CAPTUM_IS_RIGHT = ("vgg11", "resnet18", "alexnet", "squeezenet1_0")  # every rectifier a module nn.ReLU
CAPTUM_IS_WRONG = ("densenet121", "googlenet", "inception_v3", "mobilenet_v2")  # functional ones, and ReLU6


def by_captum(module: nn.Module, images: Tensor, target: int, rule: GradientRule) -> Tensor:
    attr = pytest.importorskip("captum.attr")
    method = {"guided": attr.GuidedBackprop, "deconvnet": attr.Deconvolution}[rule.name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return method(module).attribute(images.clone().requires_grad_(), target=target).detach()


def assert_same_map(found: Tensor, expected: Tensor) -> None:
    scale = expected.abs().max()
    assert scale > 0
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-6)


@RULES
@pytest.mark.parametrize("name", [*CAPTUM_IS_RIGHT, *CAPTUM_IS_WRONG])
def test_every_rectifier_of_a_whole_network_follows_the_rule(
    name: str, rule: GradientRule, random_network: Callable[..., Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, side = random_network(name), 80 if name == "inception_v3" else 64
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(4))
    with counted(monkeypatch) as rewriters:
        found = through(network, images, 5, rule)
    expected, rewritten = by_operator(network.module, images, 5, rule)
    assert_same_map(found, expected)
    if name in CAPTUM_IS_RIGHT:
        assert_same_map(found, by_captum(network.module, images, 5, rule))
    with CountRectifiers() as mode, torch.no_grad():
        network.module(images)
    assert rewriters[0].rewritten == rewritten == mode.found.total() > 0
    plain = through(network, images, 5, PLAIN)
    assert (found - plain).abs().max() > 1e-3 * plain.abs().max()  # the rule did something


# ---- rectifiers without a published rule

SMOOTH: Mapping[str, Callable[[Tensor], Tensor]] = {
    "leaky relu": lambda x: F.leaky_relu(x, 0.2),
    "leaky relu in place": lambda x: F.leaky_relu_(x + 0, 0.2),
    "rrelu": lambda x: F.rrelu(x, training=False),
    "prelu": lambda x: F.prelu(x, torch.tensor([0.3], dtype=x.dtype)),
    "elu": F.elu,
    "selu": F.selu,
    "celu": F.celu,
    "gelu": F.gelu,
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "silu in place": lambda x: F.silu(x + 0, inplace=True),
    "hard-swish": F.hardswish,
    "mish": F.mish,
    "softplus": F.softplus,
}


@pytest.mark.parametrize("way", SMOOTH)
def test_other_rectifiers_pass_the_positive_part_through_their_derivative(way: str) -> None:
    activation = SMOOTH[way]
    x = torch.linspace(-4.1, 4.1, 24, dtype=torch.float64)
    arriving = torch.linspace(-1, 1, 24, dtype=torch.float64)[torch.randperm(24, generator=torch.manual_seed(0))]
    slope = (activation(x + 1e-6) - activation(x - 1e-6)) / 2e-6  # no derivative of torch's own
    leaf = x.clone().requires_grad_()
    score = (activation(leaf) * arriving).sum()
    plain, guided, deconvnet = (gradient(score, leaf, rule, retain_graph=True) for rule in (PLAIN, GUIDED, DECONVNET))
    torch.testing.assert_close(plain, arriving * slope, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(guided, arriving.clamp(min=0) * slope, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(deconvnet, arriving.clamp(min=0), rtol=0, atol=0)


def test_a_clamp_at_another_bound_is_no_rectifier(pictures: Tensor) -> None:
    for activation in (lambda x: x.clamp(min=-1), lambda x: F.hardtanh(x), lambda x: x.clamp(max=0)):
        with pytest.raises(RuleError, match="no rectifier"):
            through(Network(Net(activation)), pictures, 0, GUIDED)


# ---- by hand


@ALL
def test_switches_of_max_pooling(rule: GradientRule) -> None:
    picture = torch.tensor(
        [
            [1.0, 5.0, 2.0, 0.0],
            [3.0, 2.0, 9.0, 1.0],
            [0.0, -1.0, -7.0, -2.0],
            [-3.0, -4.0, -6.0, -5.0],
        ]
    )[None, None].requires_grad_()
    pooled = F.max_pool2d(picture, 2)  # 5 9 / 0 -2
    arriving = torch.tensor([[[[2.0, -3.0], [4.0, 6.0]]]])
    expected = torch.zeros(4, 4)
    found = gradient((F.relu(pooled) * arriving).sum(), picture, rule)[0, 0]
    expected[0, 1] = 2.0  # x > 0 and g > 0: always
    expected[1, 2] = -3.0 if rule == PLAIN else 0.0  # x > 0, g < 0
    expected[2, 0] = 4.0 if rule == DECONVNET else 0.0  # x = 0, g > 0
    expected[2, 3] = 6.0 if rule == DECONVNET else 0.0  # x < 0, g > 0
    assert torch.equal(found, expected)


def test_at_exactly_zero_the_derivative_is_that_of_torch() -> None:
    x = torch.zeros(3, requires_grad=True)
    arriving = torch.tensor([2.0, -2.0, 0.0])
    for activation, slope in ((F.relu, 0.0), (F.relu6, 0.0), (lambda t: t.clamp(min=0), 1.0)):
        score = (activation(x) * arriving).sum()
        plain, guided, deconvnet = (gradient(score, x, rule, retain_graph=True) for rule in (PLAIN, GUIDED, DECONVNET))
        assert plain.tolist() == [2 * slope, -2 * slope, 0]
        assert guided.tolist() == [2 * slope, 0, 0]
        assert deconvnet.tolist() == [2, 0, 0]


@RULES
def test_one_relu_that_runs_twice_is_rewritten_twice(rule: GradientRule, monkeypatch: pytest.MonkeyPatch) -> None:
    relu = nn.ReLU(inplace=True)
    x = torch.tensor([2.0, -1.0, 3.0], requires_grad=True)
    first = relu(x * torch.tensor([1.0, 1.0, -1.0]))  # 2 0 0
    score = (relu(first - 1.0) * torch.tensor([5.0, 5.0, -5.0])).sum()
    with counted(monkeypatch) as rewriters:
        found = gradient(score, x, rule)
    assert rewriters[0].rewritten == 2
    # by hand: 5 passes where 1 > 0; deconvnet lets every positive signal through, and -5 never passes
    assert found.tolist() == ([5.0, 5.0, 0.0] if rule == DECONVNET else [5.0, 0.0, 0.0])


# ---- what cannot be rewritten


def test_a_network_without_rectifiers_is_refused(pictures: Tensor) -> None:
    linear = Network(Net(lambda x: x))
    for rule in (GUIDED, DECONVNET):
        with pytest.raises(RuleError, match=f"the {rule.name} rule found no rectifier.*use the plain rule"):
            through(linear, pictures, 0, rule)
    assert through(linear, pictures, 0, PLAIN).abs().max() > 0


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 2 * g * ctx.saved_tensors[0]


DISGUISES: Mapping[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "maximum": (lambda x: torch.maximum(x, torch.zeros_like(x)), "MaximumBackward0"),
    "max": (lambda x: torch.max(x, torch.zeros_like(x)), "MaximumBackward0"),
    "where": (lambda x: torch.where(x > 0, x, torch.zeros_like(x)), "WhereBackward0"),
    "own function": (Square.apply, "SquareBackward"),
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_what_may_be_a_rectifier_in_disguise_is_named(disguise: str, pictures: Tensor) -> None:
    activation, name = DISGUISES[disguise]
    with pytest.raises(RuleError, match=f"it met {name}, which it cannot look into"):
        through(Network(Net(activation)), pictures, 0, GUIDED)
    mixed = Network(Net(lambda x: F.relu(activation(x))))
    with pytest.warns(RuleWarning, match=f"guided rule left {name} as it is"):
        through(mixed, pictures, 0, GUIDED)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        through(mixed, pictures, 0, PLAIN)  # plain needs no rectifier, so nothing is said


def test_an_own_function_named_after_a_rectifier_is_one(pictures: Tensor) -> None:
    class FastReLU(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x.clamp(min=0)

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return g * (ctx.saved_tensors[0] > 0)

    for rule in (PLAIN, GUIDED, DECONVNET):
        expected = through(Network(Net(nn.ReLU())), pictures, 1, rule)
        torch.testing.assert_close(through(Network(Net(FastReLU.apply)), pictures, 1, rule), expected)


@ALL
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_checkpointed_layers_give_the_same_numbers_or_a_sentence(rule: GradientRule, pictures: Tensor) -> None:
    expected = through(Network(Net(F.relu)), pictures, 1, rule)
    kept = Network(Net(lambda x: checkpoint(F.relu, x, use_reentrant=False)))
    torch.testing.assert_close(through(kept, pictures, 1, rule), expected, rtol=0, atol=0)
    lost = Network(Net(lambda x: checkpoint(F.relu, x, use_reentrant=True)))
    with pytest.raises(NetworkError, match=r"cannot be differentiated: .*use_reentrant"):
        through(lost, pictures, 1, rule)


def test_a_score_without_a_graph_is_a_sentence() -> None:
    detached = Network(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).requires_grad_(False))
    images = torch.rand(1, 3, 2, 2)
    with pytest.raises(NetworkError, match="the score has no gradient"):
        gradient(observe(detached, images, [OUTPUT])[OUTPUT][:, 0], images.requires_grad_())


def test_a_graph_that_torch_cannot_go_back_through_is_a_sentence() -> None:
    x = torch.rand(3, requires_grad=True)
    y = x.exp()
    score = y.sum()
    y.add_(1)  # exp needs its own output on the way back
    with pytest.raises(NetworkError, match=r"cannot be differentiated: .*inplace operation") as caught:
        gradient(score, x)
    assert "\n" not in str(caught.value)


# ---- several tensors, several calls


@ALL
def test_several_tensors_at_once_equal_one_after_the_other(rule: GradientRule, pictures: Tensor) -> None:
    """A rectifier's output may itself be asked for: the rule still holds there for what lies before it."""
    network = Network(
        nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(True), nn.Flatten(), nn.Linear(150, 4)
        ).double()
    )
    images = pictures.clone().requires_grad_()
    seen = observe(network, images, ["0", "1", "2", "3", OUTPUT])
    several = [images, seen["0"], seen["1"], seen["2"], seen["3"]]
    score = seen[OUTPUT][:, 1]
    together = gradient(score, several[:4], rule, retain_graph=True)
    for tensor, found in zip(several[:4], together, strict=True):
        torch.testing.assert_close(found, gradient(score, tensor, rule, retain_graph=True), rtol=0, atol=0)
    expected, _ = by_operator(network.module, pictures, 1, rule)
    torch.testing.assert_close(together[0], expected, rtol=1e-12, atol=0)
    # behind the last rectifier every rule is the plain gradient, the weights of the last layer
    weights = network.module[5].weight[1].detach().reshape(1, 6, 5, 5).expand(2, -1, -1, -1)
    assert torch.equal(gradient(score, seen["3"], retain_graph=True), weights)


def test_no_rule_stays_in_the_graph(pictures: Tensor) -> None:
    images = pictures.clone().requires_grad_()
    score = Net(F.relu)(images)[:, 0]
    before = gradient(score, images, retain_graph=True)
    for rule in (GUIDED, DECONVNET):
        gradient(score, images, rule, retain_graph=True)
        assert torch.equal(gradient(score, images, retain_graph=True), before)
    (expected,) = torch.autograd.grad(score.sum(), images)
    assert torch.equal(before, expected)


def test_no_rule_stays_in_the_graph_after_an_error(pictures: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures.clone().requires_grad_()
    score = Net(F.relu)(images)[:, 0]
    before = gradient(score, images, retain_graph=True)
    with monkeypatch.context() as patch:
        patch.setattr(backward._Rewriter, "_behind", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            gradient(score, images, GUIDED, retain_graph=True)
    assert torch.equal(gradient(score, images, retain_graph=True), before)


def test_a_score_that_does_not_depend_on_a_tensor_gives_zeros() -> None:
    x, y = torch.rand(2, 3, requires_grad=True), torch.rand(4, requires_grad=True)
    found = gradient((x * x).sum(1), [x, y])
    assert torch.equal(found[0], 2 * x.detach())
    assert torch.equal(found[1], torch.zeros(4))


def test_a_frozen_layer_that_does_not_see_the_picture_has_a_gradient_of_zero() -> None:
    class Biased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias, self.relu, self.fc = nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.relu(x.mean((2, 3)) + self.bias(torch.ones(len(x), 2))))

    network = Network(Biased().requires_grad_(False), input_size=(4, 4))
    nn.init.ones_(network.module.bias.bias)
    images = torch.rand(2, 3, 4, 4).requires_grad_()
    seen = observe(network, images, ["bias", "relu", OUTPUT])
    score = seen[OUTPUT][:, 1]
    bias, relu = gradient(score, [seen["bias"], seen["relu"]], retain_graph=True)
    assert torch.equal(bias, torch.zeros(2, 3))
    assert torch.equal(relu, network.module.fc.weight[1].expand(2, -1))
    assert torch.equal(gradient(score, seen["bias"]), bias)


@ALL
def test_pictures_do_not_mix(rule: GradientRule, pictures: Tensor) -> None:
    network = Network(Net(F.relu))
    together = through(network, pictures, 3, rule)
    for number in range(2):
        torch.testing.assert_close(
            together[number : number + 1], through(network, pictures[number : number + 1], 3, rule), rtol=1e-12, atol=0
        )


def test_nothing_is_accumulated_on_parameters(pictures: Tensor) -> None:
    network = Network(Net(F.relu))
    for rule in (PLAIN, GUIDED, DECONVNET):
        found = through(network, pictures, 0, rule)
        assert found.grad_fn is None
    assert all(parameter.grad is None for parameter in network.module.parameters())
