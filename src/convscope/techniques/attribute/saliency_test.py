from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convscope.errors import NetworkError, OptionError, RuleError, UnknownLayer, UnknownTarget
from convscope.network import Network
from convscope.registry import load
from convscope.techniques.attribute.saliency import reduce_colours

saliency: Any = load("saliency")


def small(*, dtype: torch.dtype = torch.float32, train: bool = False) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Dropout(0.5),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 5),
        )
        for part in (module[1].running_mean, module[1].bias):
            nn.init.normal_(part)
    return module.to(dtype).train(train)


def network(**options: Any) -> Network:
    return Network(small(**options), name="net", labels=("a", "b", "c", "d", "e"), input_size=(12, 12))


@pytest.fixture
def pictures() -> Tensor:
    return torch.rand(5, 3, 12, 12, generator=torch.Generator().manual_seed(8))


def by_hand(net: Network, pictures: Tensor, target: int | None = None) -> Tensor:
    """(N, 3, H, W): autograd without any of ours, one picture at a time, in evaluation mode."""
    module, found = small().double(), []
    module.load_state_dict({name: tensor.double() for name, tensor in net.module.state_dict().items()})
    module.eval()
    for picture in pictures.double():
        image = ((picture - net.mean[:, None, None]) / net.std[:, None, None])[None].requires_grad_()
        logits = module(image)[0]
        logits[logits.argmax() if target is None else target].backward()
        found.append(image.grad[0] / net.std[:, None, None])
    return torch.stack(found).float()


# ---- known numbers


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("plain", ["0111", "0111", "0111", "0000"]),
        ("guided", ["0111", "1332", "1332", "1221"]),
        ("deconvnet", ["2331", "3552", "3552", "1221"]),
    ],
)
def test_the_toys_numbers(toy: Network, ramp: Tensor, rule: str, expected: list[str]) -> None:
    result = saliency.function(toy, ramp, target=0, rule=rule)
    assert toy(ramp).tolist() == [[54.0] * 4]
    assert result.values.tolist() == [[[float(c) for c in row] for row in expected]]


def test_the_toys_numbers_through_the_front_door(toy: Network, ramp: Tensor) -> None:
    """A grey picture in [0, 1]: of each colour the luma's share, and fifteen times the slope."""
    scaled = Network(toy.module, mean=torch.zeros(1), std=torch.tensor([1 / 15]), input_size=(4, 4))
    slope = torch.tensor([[0.0, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0]])
    for options, share in (({"reduce": "sum"}, 1.0), ({"reduce": "max"}, 0.587), ({"reduce": "l2"}, 0.668554)):
        result = saliency(scaled, ramp[0] / 15, target=2, **options)
        torch.testing.assert_close(result.values, 15 * share * slope[None], rtol=1e-5, atol=1e-6)
        assert result.summary["score"] == pytest.approx(54, rel=1e-5)


def test_a_linear_network_has_its_weights_for_a_map() -> None:
    weights = torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    linear = nn.Sequential(nn.Flatten(), nn.Linear(90, 4))
    with torch.no_grad():
        linear[1].weight.copy_(weights.flatten(1))
    std = torch.tensor([0.2, 0.5, 0.1])
    net = Network(linear, std=std, input_size=(5, 6))
    slopes = weights[3] / std[:, None, None]
    pictures = torch.rand(2, 3, 5, 6)
    expected = {
        ("max", False): slopes.abs().amax(0),
        ("sum", False): slopes.abs().sum(0),
        ("l2", False): slopes.square().sum(0).sqrt(),
        ("sum", True): slopes.sum(0),
        ("max", True): torch.where(slopes.amax(0) >= -slopes.amin(0), slopes.amax(0), slopes.amin(0)),
    }
    for (reduce, signed), heat in expected.items():
        found = saliency(net, pictures, target=3, reduce=reduce, signed=signed)
        torch.testing.assert_close(found.values, heat.expand(2, -1, -1))
        assert found.signed is signed
        assert found.quantity == "score per unit of pixel value"


def test_probability_and_loss_in_closed_form() -> None:
    weights = torch.randn(4, 12, generator=torch.Generator().manual_seed(2))
    linear = nn.Sequential(nn.Flatten(), nn.Linear(12, 4, bias=False))
    with torch.no_grad():
        linear[1].weight.copy_(weights)
    net, pictures = Network(linear, input_size=(2, 2)), torch.rand(3, 3, 2, 2)
    shares = (pictures.flatten(1) @ weights.T).softmax(1)
    for target in range(4):
        mixed = weights[target] - shares @ weights  # the softmax mixes the other classes in
        for of, factor in (("probability", shares[:, target, None]), ("loss", -1.0)):
            found = saliency(net, pictures, target=target, of=of, reduce="sum", signed=True)
            torch.testing.assert_close(found.values, (factor * mixed).reshape(3, 3, 2, 2).sum(1), rtol=1e-4, atol=1e-6)
            assert found.quantity == f"{of} per unit of pixel value"


def test_reduce_colours_keeps_the_sign_of_the_strongest() -> None:
    slopes = torch.tensor([[1.0, -3.0], [-2.0, 0.0], [0.5, 2.0]]).reshape(1, 3, 1, 2)
    assert reduce_colours(slopes, "max", True).tolist() == [[[-2.0, -3.0]]]
    assert reduce_colours(slopes, "max", False).tolist() == [[[2.0, 3.0]]]
    assert reduce_colours(slopes, "sum", True).tolist() == [[[-0.5, -1.0]]]
    assert reduce_colours(slopes, "sum", False).tolist() == [[[3.5, 5.0]]]
    torch.testing.assert_close(reduce_colours(slopes, "l2", False), torch.tensor([[[5.25**0.5, 13**0.5]]]))


# ---- against autograd and captum


def test_equals_autograd_one_picture_at_a_time(pictures: Tensor) -> None:
    net = network()
    slopes = by_hand(net, pictures)
    found = saliency(net, pictures)
    torch.testing.assert_close(found.values, slopes.abs().amax(1), rtol=1e-4, atol=1e-7)
    for number in range(5):
        alone = saliency(net, pictures[number])
        torch.testing.assert_close(alone.values[0], found.values[number], rtol=0, atol=1e-6)
        assert alone.summary["target"] == found.summary[number]["target"]


@pytest.mark.parametrize("rule", ["plain", "guided", "deconvnet"])
def test_equals_captum_on_squeezenet(rule: str, random_network: Callable[..., Network]) -> None:
    attr = pytest.importorskip("captum.attr")
    net = random_network("squeezenet1_0")
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(6))
    method = {"plain": attr.Saliency, "guided": attr.GuidedBackprop, "deconvnet": attr.Deconvolution}[rule]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = method(net.module).attribute(pictures.clone().requires_grad_(), target=7).abs().amax(1)
    found = saliency(net, pictures, target=7, rule=rule).values
    assert found.max() > 0
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-6 * float(expected.max()))


# ---- what is asked about


def test_targets(pictures: Tensor) -> None:
    net = network()
    slopes = {index: by_hand(net, pictures, index).abs().amax(1) for index in range(5)}
    for target in (2, "2", "c", [2], torch.tensor(2), [2, "c", "2", 2, 2], torch.full((5,), 2)):
        found = saliency(net, pictures, target=target)
        torch.testing.assert_close(found.values, slopes[2], rtol=1e-4, atol=1e-7)
        assert [s["target"] for s in found.summaries] == [{"label": "c", "index": 2}] * 5
        assert list(found.titles) == ["c"] * 5
    own = [4, 0, 3, 3, 1]
    expected = torch.stack([slopes[index][number] for number, index in enumerate(own)])
    for batch in (1, 2, 3, 5, 32):  # a target a picture goes with its picture, however they are batched
        batched = Network(net.module, labels=net.labels, input_size=(12, 12), max_batch=batch)
        torch.testing.assert_close(saliency(batched, pictures, target=own).values, expected, rtol=1e-4, atol=1e-7)
    predicted = net(pictures).argmax(1).tolist()
    assert [s["target"]["index"] for s in saliency(net, pictures).summaries] == predicted


def test_more_or_fewer_targets_than_pictures_are_refused(pictures: Tensor) -> None:
    for batch in (1, 2, 32):
        net = Network(small(), input_size=(12, 12), max_batch=batch)
        for targets in ([0, 1], [0, 1, 2, 3], [0, 1, 2, 3, 4, 0], []):
            with pytest.raises(UnknownTarget, match=f"{len(targets)} targets for 5 pictures"):
                saliency(net, pictures, target=targets)


def test_a_unit_inside(pictures: Tensor) -> None:
    net = network()
    images = pictures.clone().requires_grad_()
    maps = net.module[:3].eval()(images)
    net.module.train(False)
    (at,) = torch.autograd.grad(maps[:, 5, 2, 3].sum(), images, retain_graph=True)
    found = saliency(net, pictures, layer="2", unit="5,2,3")
    torch.testing.assert_close(found.values, at.abs().amax(1), rtol=1e-4, atol=1e-7)
    assert found.values[:, 4:].abs().max() == 0  # a 3x3 kernel around row 2, column 3
    assert found.layer == "2"
    assert found.summary[0]["target"] == {"label": "2 unit 5,2,3", "index": None}
    assert found.quantity == "activation per unit of pixel value"
    (best,) = torch.autograd.grad(maps[:, 5].flatten(1).amax(1).sum(), images)
    torch.testing.assert_close(saliency(net, pictures, layer="2", unit=5).values, best.abs().amax(1))
    assert saliency(net, pictures, unit=5).layer == "6"


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"reduce": "l2", "signed": True}, OptionError, "reduce l2 has no sign"),
        ({"target": "z"}, UnknownTarget, "net knows no 'z'"),
        ({"target": 5}, UnknownTarget, "net has classes 0 to 4, not 5"),
        ({"layer": "11", "unit": 0}, UnknownLayer, "net has no layer '11'"),
        ({"layer": "2", "unit": 8}, OptionError, "layer '2' has channels 0 to 7, not 8"),
        ({"layer": "2"}, OptionError, "layer needs unit"),
        ({"rule": "lrp"}, OptionError, "rule should be"),
        ({"layer": "0", "unit": 0, "rule": "guided"}, RuleError, "the guided rule found no rectifier"),
    ],
)
def test_what_cannot_be_asked_is_a_sentence(
    options: dict[str, Any], error: type[Exception], sentence: str, pictures: Tensor
) -> None:
    with pytest.raises(error, match=sentence):
        saliency(network(), pictures, **options)


def test_what_is_said_about_the_map(pictures: Tensor) -> None:
    found = saliency(network(), pictures, signed=True)
    for heat, summary in zip(found.values, found.summaries, strict=True):
        assert summary["minimum"] == float(heat.min())
        assert summary["maximum"] == float(heat.max())
        row, column = summary["strongest"]["row"], summary["strongest"]["column"]
        assert abs(float(heat[row, column])) == float(heat.abs().max())
    assert found.notes == []
    torch.testing.assert_close(found.images, pictures)


def test_a_constant_map_is_said_to_be_one(pictures: Tensor) -> None:
    blind = small()
    nn.init.zeros_(blind[9].weight)
    found = saliency(Network(blind, input_size=(12, 12)), pictures[:2], target=1)
    assert found.values.abs().max() == 0
    assert list(found.notes) == [
        f"picture {i}: the map for class 1 is constant (0): no pixel stands out" for i in (1, 2)
    ]


# ---- circumstances


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("rule", ["plain", "guided"])
def test_the_callers_gradient_mode_does_not_matter(mode: Any, rule: str, pictures: Tensor) -> None:
    net = network()
    expected = saliency(net, pictures, rule=rule).values
    with mode():
        inside = pictures * 1  # under inference mode a tensor that autograd refuses
        states = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        found = saliency(net, inside, rule=rule)
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == states
    assert torch.equal(found.values, expected)
    assert not found.values.requires_grad
    assert not found.values.is_inference()


def test_frozen_parameters(pictures: Tensor) -> None:
    free, frozen = network(), network()
    frozen.module.requires_grad_(False)
    for rule in ("plain", "guided", "deconvnet"):
        expected = saliency(free, pictures, rule=rule).values
        assert torch.equal(saliency(frozen, pictures, rule=rule).values, expected)
    assert not any(parameter.requires_grad for parameter in frozen.module.parameters())


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.float16, 0.02), (torch.bfloat16, 0.1)], ids=str
)
def test_other_precisions(dtype: torch.dtype, tolerance: float, pictures: Tensor) -> None:
    expected = by_hand(network(), pictures, 1).abs().amax(1)
    net = network(dtype=dtype)
    for images in (pictures, pictures.to(dtype)):
        found = saliency(net, images, target=1).values
        assert found.dtype == (torch.float64 if images.dtype == torch.float64 else torch.float32)
        assert (found - expected).norm() < tolerance * expected.norm()


def test_double_pictures_in_a_single_precision_network(pictures: Tensor) -> None:
    net = network()
    found = saliency(net, pictures.double(), target=1).values
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), by_hand(net, pictures, 1).abs().amax(1), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("rule", ["plain", "guided", "deconvnet"])
def test_channels_last(rule: str, pictures: Tensor) -> None:
    net = network()
    expected = saliency(net, pictures, rule=rule).values
    last = torch.channels_last
    turned = Network(small().to(memory_format=last), labels=net.labels, input_size=(12, 12))
    found = saliency(turned, pictures.contiguous(memory_format=last), rule=rule).values
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_pictures_that_are_not_square() -> None:
    net, wide = network(), torch.rand(2, 3, 9, 17)
    found = saliency(net, wide, target=0).values
    torch.testing.assert_close(found, by_hand(net, wide, 0).abs().amax(1), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("rule", ["plain", "guided", "deconvnet"])
def test_a_picture_does_not_see_its_neighbours(rule: str, pictures: Tensor) -> None:
    net = network()
    together = saliency(net, pictures, target=2, rule=rule).values
    for order in ([4, 3, 2, 1, 0], [0, 0, 2]):
        found = saliency(net, pictures[order], target=2, rule=rule).values
        torch.testing.assert_close(found, together[order], rtol=0, atol=1e-6)


@pytest.mark.parametrize("rule", ["plain", "guided"])
def test_a_network_in_training_mode_is_looked_at_as_in_evaluation_mode(rule: str, pictures: Tensor) -> None:
    rested, training = network(), network(train=True)
    buffers = {name: buffer.clone() for name, buffer in training.module.named_buffers()}
    found = saliency(training, pictures, rule=rule)
    assert torch.equal(found.values, saliency(rested, pictures, rule=rule).values)
    assert all(part.training for part in training.module.modules())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in training.module.named_buffers())


def fingerprint(module: nn.Module) -> list[Any]:
    return [
        [(name, id(part), part.training, len(part._forward_hooks), len(part._backward_hooks),
          len(part._forward_pre_hooks), sorted(vars(part))) for name, part in module.named_modules()],
        [(p.requires_grad, p.grad, p.data_ptr(), p._version, p.detach().clone().tolist()) for p in module.parameters()],
        [(name, buffer.tolist()) for name, buffer in module.named_buffers()],
    ]  # fmt: skip


@pytest.mark.parametrize("fault", [None, RuntimeError("boom"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("rule", ["plain", "guided", "deconvnet"])
def test_the_network_is_as_it_was(fault: BaseException | None, rule: str, pictures: Tensor) -> None:
    class Faulty(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fault: BaseException | None = None

        def forward(self, x: Tensor) -> Tensor:
            if self.fault is not None:
                raise self.fault
            return x

    part = Faulty()
    module = nn.Sequential(small(train=True), part)
    module[0][5].weight.requires_grad_(False)
    module[0][4].eval()
    net = Network(module, input_size=(12, 12))
    assert net.classes == 5
    before = fingerprint(module)
    part.fault = fault
    if fault is None:
        saliency(net, pictures, rule=rule)
    else:
        with pytest.raises(NetworkError if isinstance(fault, RuntimeError) else KeyboardInterrupt):
            saliency(net, pictures, rule=rule)
    assert fingerprint(module) == before


def test_it_is_computed_in_halves_when_memory_runs_out(pictures: Tensor) -> None:
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.tried = small(), list[int]()

        def forward(self, x: Tensor) -> Tensor:
            self.tried.append(len(x))
            if len(x) > 2:
                raise torch.OutOfMemoryError("full")
            return self.inner(x)

    net = network()
    tight = Network(Small(), labels=net.labels, input_size=(12, 12))
    assert tight.classes == 5
    found = saliency(tight, pictures, target=0).values
    assert tight.module.tried[-4:] == [5, 2, 2, 1]
    expected = [saliency(net, pictures[part], target=0).values for part in (slice(0, 2), slice(2, 4), slice(4, 5))]
    assert torch.equal(found, torch.cat(expected))


def test_provenance_says_how_to_make_it_again(pictures: Tensor) -> None:
    found = saliency(network(), pictures, target=torch.tensor([1, 0, 2, 3, 4]), rule="guided")
    assert found.provenance.technique == "saliency"
    assert found.provenance.options["target"] == [1, 0, 2, 3, 4]
    assert found.provenance.options["rule"] == "guided"
    assert found.provenance.network == "net"
    again = saliency(network(), pictures, **found.provenance.options)
    assert torch.equal(again.values, found.values)
