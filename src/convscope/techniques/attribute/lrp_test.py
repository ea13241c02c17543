"""lrp: zennit's rules against matrices worked out slowly, zennit itself on a ResNet, and conservation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.errors import MissingExtra, NetworkError, OptionError
from convscope.network import Network
from convscope.techniques.attribute.lrp import lrp
from convscope.zoo.torchvision_models import import_torchvision

pytest_plugins = "convscope.techniques.attribute._examples_test"

# ---- the rules as matrices: R_j = sum over k of share_jk R_k


def matrix(layer: nn.Module, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """(inputs, outputs) and (outputs,) of a layer that is linear, found by asking it for each input alone."""
    bias = layer(torch.zeros(1, *shape)).flatten()
    inputs = torch.eye(shape.numel()).view(-1, *shape)
    return (layer(inputs).flatten(1) - bias).double(), bias.double()


def divided(shares: Tensor, total: Tensor, relevance: Tensor) -> Tensor:
    """(inputs,), from shares (inputs, outputs) of totals (outputs,); the steadying 1e-6 has the total's sign."""
    steady = total + 1e-6 * torch.where(total >= 0, 1.0, -1.0)
    return (shares * (relevance / steady)).sum(1)


def epsilon(a: Tensor, w: Tensor, b: Tensor, relevance: Tensor) -> Tensor:
    z = a[:, None] * w
    return divided(z, z.sum(0) + b, relevance)


def plus(a: Tensor, w: Tensor, b: Tensor, relevance: Tensor) -> Tensor:
    z = (a[:, None] * w).clamp(min=0)
    return divided(z, z.sum(0) + b.clamp(min=0), relevance)


def minus(a: Tensor, w: Tensor, b: Tensor, relevance: Tensor) -> Tensor:
    z = (a[:, None] * w).clamp(max=0)
    return divided(z, z.sum(0) + b.clamp(max=0), relevance)


def alpha2_beta1(a: Tensor, w: Tensor, b: Tensor, relevance: Tensor) -> Tensor:
    return 2 * plus(a, w, b, relevance) - minus(a, w, b, relevance)


def flat(a: Tensor, w: Tensor, b: Tensor, relevance: Tensor) -> Tensor:
    seen = (w != 0).double()
    return divided(seen, seen.sum(0), relevance)


def gamma(a: Tensor, w: Tensor, b: Tensor, relevance: Tensor) -> Tensor:
    """For activations that are never negative (Montavon 2019), where z is positive; zennit's other half where not."""
    z = a[:, None] * w
    found = torch.zeros_like(a)
    for sign in (1, -1):
        part = z + 0.25 * (z * sign).clamp(min=0) * sign
        total = part.sum(0) + b + 0.25 * (b * sign).clamp(min=0) * sign
        chosen = ((z.sum(0) + b) * sign > 0).double()
        found += divided(part, total, relevance * chosen)
    return found


def box(low: Tensor, high: Tensor) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    def rule(a: Tensor, w: Tensor, b: Tensor, relevance: Tensor) -> Tensor:
        z = a[:, None] * w - low[:, None] * w.clamp(min=0) - high[:, None] * w.clamp(max=0)
        total = z.sum(0) + b - b.clamp(min=0) - b.clamp(max=0)
        return divided(z, total, relevance)

    return rule


def by_matrices(net: Network, picture: Tensor, target: int, first: object, convolution: object) -> Tensor:
    """(H, W) of the network ``deep``: conv1 by ``first``, conv2 by ``convolution``, linear layers by epsilon."""
    module, inputs = net.module, net.normalise(picture[None])
    maps1 = module.conv1(inputs).relu()
    maps2 = module.conv2(maps1).relu()
    hidden = module.fc1(maps2.flatten(1)).relu()
    score = module.fc2(hidden)[0, target]
    relevance = F.one_hot(torch.tensor(target), 3).double() * score.double()
    for layer, a, rule in (
        (module.fc2, hidden[0], epsilon), (module.fc1, maps2[0].flatten(), epsilon),
        (module.conv2, maps1[0], convolution), (module.conv1, inputs[0], first),
    ):  # fmt: skip
        w, b = matrix(layer, a.shape)
        relevance = rule(a.flatten().double(), w, b, relevance)  # type: ignore[operator]
    return relevance.view(3, 8, 10).sum(0).float()


@pytest.mark.parametrize(
    ("composite", "first", "convolution"),
    [
        ("epsilon-plus-flat", flat, plus),
        ("epsilon-plus", plus, plus),
        ("epsilon-alpha2-beta1-flat", flat, alpha2_beta1),
        ("epsilon-alpha2-beta1", alpha2_beta1, alpha2_beta1),
        ("epsilon-gamma-box", None, gamma),
    ],
)
def test_equals_the_rules_as_matrices(
    composite: str, first: object, convolution: object, deep: Network, pictures: Tensor
) -> None:
    found = lrp(deep, pictures, target=[2, 0, 1], composite=composite)
    ends = [deep.normalise(torch.full((1, 3, 8, 10), end)).flatten().double() for end in (0.0, 1.0)]
    for number, target in enumerate([2, 0, 1]):
        expected = by_matrices(deep, pictures[number], target, first or box(*ends), convolution)
        torch.testing.assert_close(found.values[number], expected, rtol=1e-3, atol=1e-5)


# ---- zennit itself


@pytest.mark.parametrize(("name", "composite"), [("resnet18", "EpsilonPlusFlat"), ("vgg", "EpsilonAlpha2Beta1")])
def test_equals_zennit_with_its_own_canonizers(name: str, composite: str, models: ModuleType) -> None:
    from zennit import composites
    from zennit.attribution import Gradient
    from zennit.torchvision import ResNetCanonizer, VGGCanonizer

    with torch.random.fork_rng():
        torch.manual_seed(1)
        if name == "resnet18":
            module = models.resnet18(weights=None, num_classes=7).eval()
        else:
            layers = models.vgg.make_layers([8, "M", 12, "M", 16, 16, "M"], batch_norm=True)
            module = nn.Sequential(layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 7)).eval()
        for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.running_mean.uniform_(-0.2, 0.2)
            norm.running_var.uniform_(0.5, 1.5)
    images = torch.rand(2, 3, 48, 40, generator=torch.Generator().manual_seed(0))
    spelled = {"EpsilonPlusFlat": "epsilon-plus-flat", "EpsilonAlpha2Beta1": "epsilon-alpha2-beta1"}[composite]
    found = lrp(Network(module, input_size=(48, 40)), images, target=4, composite=spelled)
    canonizer = ResNetCanonizer() if name == "resnet18" else VGGCanonizer()
    inputs = images.clone().requires_grad_()
    with Gradient(module, getattr(composites, composite)(canonizers=[canonizer])) as attributor:
        output, expected = attributor(inputs, lambda logits: logits * F.one_hot(torch.tensor([4, 4]), 7))
    largest = float(expected.sum(1).abs().max())
    torch.testing.assert_close(found.values / largest, expected.sum(1).detach() / largest, rtol=1e-3, atol=1e-4)
    assert found.summaries[0]["score"] == pytest.approx(float(output[0, 4].detach()), abs=1e-3)


# ---- conservation


class Functional(nn.Module):
    """The network ``deep`` written with functions, and with one rectifier for all layers or none."""

    def __init__(self, whole: nn.Module) -> None:
        super().__init__()
        self.conv1, self.conv2, self.fc1, self.fc2 = whole.conv1, whole.conv2, whole.fc1, whole.fc2
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv1(x))
        x = F.relu(self.conv2(x), inplace=True)
        return self.fc2(self.act(self.fc1(x.flatten(1))))


def test_the_way_of_writing_does_not_matter(deep: Network, pictures: Tensor) -> None:
    other = Network(Functional(deep.module), mean=deep.mean, std=deep.std, input_size=deep.input_size)
    torch.testing.assert_close(lrp(other, pictures).values, lrp(deep, pictures).values)


@pytest.mark.parametrize("composite", ["epsilon-plus-flat", "epsilon-plus", "epsilon-gamma-box"])
def test_without_biases_nothing_is_lost(composite: str, deep: Network, pictures: Tensor) -> None:
    for summary in lrp(deep, pictures, composite=composite, biases=False).summaries:
        said = summary["conservation"]
        assert said["wanted"] == summary["score"]
        assert said["error"] == pytest.approx(said["sum"] - said["wanted"])
        assert abs(said["error"]) < 1e-3 * abs(summary["score"])
    with_biases = [s["conservation"]["error"] for s in lrp(deep, pictures, composite=composite).summaries]
    assert min(map(abs, with_biases)) > 1e-3


def test_sums_divide_relevance_in_proportion() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x[:, :, :1] + 2 * x[:, :, 1:]).mean((2, 3))

    picture = torch.rand(1, 3, 2, 6, generator=torch.Generator().manual_seed(0))
    found = lrp(Network(Two(), input_size=(2, 6)), picture, target=1)
    expected = torch.stack([picture[0, 1, 0], 2 * picture[0, 1, 1]]) / 6  # a channel is a class
    torch.testing.assert_close(found.values[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("unit", ["3,2,1", "3"])
def test_a_units_relevance_stays_in_its_receptive_field(unit: str, deep: Network, pictures: Tensor) -> None:
    found = lrp(deep, pictures, layer="conv2", unit=unit, biases=False)
    for summary in found.summaries:
        assert summary["conservation"]["sum"] == pytest.approx(summary["score"], rel=1e-3)
    if unit == "3,2,1":  # conv2 has stride 2: rows 2 to 6, columns 0 to 4
        outside = torch.ones(8, 10, dtype=torch.bool)
        outside[2:7, 0:5] = False
        assert not found.values[:, outside].any()


# ---- what it cannot do


def test_attention_and_a_missing_zennit_get_a_sentence(
    deep: Network, pictures: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(3, 1, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            tokens = x.flatten(2).transpose(1, 2)
            return self.attention(tokens, tokens, tokens)[0].mean(1)

    with pytest.raises(NetworkError, match="has MultiheadAttention, for which zennit has no rule"):
        lrp(Network(Attends().eval(), input_size=(8, 10)), pictures)
    with pytest.raises(OptionError, match="composite"):
        lrp(deep, pictures, composite="deconvnet")
    import_torchvision()
    monkeypatch.setitem(__import__("sys").modules, "zennit", None)
    with pytest.raises(MissingExtra, match=r"convscope\[lrp\]"):
        lrp(deep, pictures)


def test_no_hook_stays_when_a_rule_fails(deep: Network, pictures: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    import_torchvision()
    from zennit.core import BasicHook

    def fails(*_: object) -> None:
        raise RuntimeError("stop")

    monkeypatch.setattr(BasicHook, "backward", fails)
    with pytest.raises(NetworkError, match="stop"):
        lrp(deep, pictures)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in deep.module.modules())


def test_it_is_computed_in_float32_and_says_so(deep: Network, pictures: Tensor) -> None:
    found = lrp(replace(deep, precision="bfloat16"), pictures, target=1)
    expected = lrp(deep, pictures, target=1)
    assert found.provenance is not None
    assert found.provenance.precision == "float32"
    assert torch.equal(found.values, expected.values)
    assert found.summaries == expected.summaries
