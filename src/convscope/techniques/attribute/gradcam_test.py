from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from convscope.errors import OptionError, UnknownLayer, UnknownTarget
from convscope.network import Network
from convscope.registry import load

gradcam: Any = load("gradcam")


def by_loops(maps: Tensor, slopes: Tensor) -> Tensor:
    """(N, H, W) of (N, C, H, W), as the formula is written: a weight for each channel, then the sum."""
    found = torch.zeros(maps.shape[0], *maps.shape[2:], dtype=torch.float64)
    for n in range(maps.shape[0]):
        for k in range(maps.shape[1]):
            alpha = sum(float(value) for value in slopes[n, k].flatten()) / slopes[n, k].numel()
            found[n] += alpha * maps[n, k].double()
    return found


def small() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        module = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 7, 3, padding=1),
            nn.BatchNorm2d(7),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(7, 4),
        )
        for part in (module[0], module[3], module[4], module[9]):
            nn.init.normal_(part.bias, std=0.5)
        nn.init.normal_(module[9].weight)
        return module


def network(**options: Any) -> Network:
    return Network(small(), **{"name": "net", "labels": ("a", "b", "c", "d"), "input_size": (8, 8), **options})


def expected_cells(layer: int, pictures: Tensor, target: int) -> Tensor:
    """The small network cut in two by hand, no hooks."""
    module = small().double().eval()
    maps = module[: layer + 1](pictures.double()).detach().requires_grad_()
    module[layer + 1 :](maps.clone())[:, target].sum().backward()
    return by_loops(maps.detach(), maps.grad).float()


@pytest.fixture
def pictures() -> Tensor:
    return torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(12))


# ---- known numbers


@pytest.mark.parametrize(
    ("layer", "expected"), [("conv1", [[11.25, 13.5], [20.25, 22.5]]), ("relu1", [[0.0, 4.0], [28.0, 32.5]])]
)
def test_the_toys_numbers(toy: Network, ramp: Tensor, layer: str, expected: list[list[float]]) -> None:
    for target in range(4):
        result = gradcam.function(toy, ramp, target=target, layer=layer)
        assert result.cells.tolist() == [expected]
        assert result.layer == layer
        enlarged = F.interpolate(torch.tensor([[expected]]), (4, 4), mode="bilinear", align_corners=False)[0]
        assert torch.equal(result.values, enlarged)


def test_the_toys_numbers_through_the_front_door(toy: Network, ramp: Tensor) -> None:
    """The layers' own activations do not know that the picture came in [0, 1]."""
    scaled = Network(toy.module, mean=torch.zeros(1), std=torch.tensor([1 / 15]), input_size=(4, 4))
    result = gradcam(scaled, ramp[0] / 15)
    torch.testing.assert_close(result.cells, torch.tensor([[[0.0, 4.0], [28.0, 32.5]]]), rtol=1e-5, atol=1e-4)
    assert result.layer == "relu1"


@pytest.mark.parametrize("layer", range(6))
def test_equals_the_formula_at_every_layer(layer: int, pictures: Tensor) -> None:
    result = gradcam(network(), pictures, target=2, layer=str(layer))
    torch.testing.assert_close(result.cells, expected_cells(layer, pictures, 2), rtol=1e-4, atol=1e-6)
    enlarged = F.interpolate(result.cells[:, None], (8, 8), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(result.values, enlarged)
    assert result.signed


# ---- against captum


@pytest.mark.parametrize(("name", "layer"), [("resnet18", "layer4"), ("resnet18", "layer2"), ("vgg11", "features.19")])
def test_equals_captum(name: str, layer: str, random_network: Callable[..., Network]) -> None:
    attr = pytest.importorskip("captum.attr")
    net = random_network(name, 96)
    pictures = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(9))
    method = attr.LayerGradCam(net.module, net.module.get_submodule(layer))
    expected = method.attribute(pictures, target=3, relu_attributions=False)[:, 0].detach()
    found = gradcam(net, pictures, target=3, layer=layer).cells
    scale = expected.abs().max()
    assert scale > 0
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-5)
    if layer != "layer2":
        assert torch.equal(gradcam(net, pictures, target=3).cells, found)  # the default layer


# ---- transformers


def test_equals_the_formula_on_a_swin_in_both_of_its_layouts(random_network: Callable[..., Network]) -> None:
    net = random_network("swin_t")
    swin, pictures = net.module, torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(10))
    before = swin.features[:6](pictures)
    assert before.shape == (2, 4, 4, 384)  # rows, columns, channels
    leaf = before.detach().requires_grad_()
    maps = swin.norm(swin.features[6:](leaf)).movedim(-1, 1)
    score = swin.head(maps.mean((2, 3)))[:, 3].sum()
    slopes, late = torch.autograd.grad(score, [leaf, maps])
    for layer, activation, slope in (
        ("features.5", leaf.detach().movedim(-1, 1), slopes.movedim(-1, 1)),
        (net.default_layer, maps.detach(), late),
    ):
        found = gradcam(net, pictures, target=3, layer=layer).cells
        expected = by_loops(activation, slope).float()
        assert expected.abs().max() > 0
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_equals_the_formula_on_a_vit(pool: str) -> None:
    timm = pytest.importorskip("timm")
    with torch.random.fork_rng():
        torch.manual_seed(2)
        vit = timm.models.VisionTransformer(
            img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=2, num_classes=5, global_pool=pool
        ).eval()
        for parameter in vit.parameters():
            nn.init.normal_(parameter, std=0.3)
    net = Network(vit, name="vit", input_size=(32, 32))
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(11))

    tokens = vit.blocks[:2](vit.norm_pre(vit._pos_embed(vit.patch_embed(pictures))))
    normed = vit.blocks[2].norm1(tokens).detach().requires_grad_()  # what the last attention reads
    last = vit.blocks[2]
    x = tokens.detach() + last.attn(normed)
    x = x + last.mlp(last.norm2(x))
    pooled = vit.norm(x)[:, 0] if pool == "token" else vit.fc_norm(vit.norm(x)[:, 1:].mean(1))
    (slopes,) = torch.autograd.grad(vit.head(pooled)[:, 1].sum(), normed)

    def as_maps(values: Tensor) -> Tensor:
        return values.detach()[:, 1:].reshape(2, 4, 4, 24).permute(0, 3, 1, 2)  # no class token, rows by columns

    found = gradcam(net, pictures, target=1, layer="blocks.2.norm1").cells
    torch.testing.assert_close(found, by_loops(as_maps(normed), as_maps(slopes)).float(), rtol=1e-4, atol=1e-4)
    assert net.default_layer == ("blocks.2.norm1" if pool == "token" else "norm")
    assert gradcam(net, pictures).values.abs().max() > 0


# ---- nothing more is computed than the layer's gradient


class WeightGradients(TorchDispatchMode):
    """Notes which gradients convolutions are asked for, and counts matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[tuple[bool, ...]] = []
        self.products = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution_backward.default:
            self.masks.append(tuple(args[-1]))
        self.products += func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
        return func(*args, **(kwargs or {}))


def test_no_gradient_of_a_parameter_is_computed(pictures: Tensor) -> None:
    net = network()
    assert net.classes == 4
    with WeightGradients() as mode:
        gradcam(net, pictures, target=0, layer="1")
    assert mode.masks == [(True, False, False)]  # of the one convolution behind the layer, by its input alone
    assert mode.products == 2  # the classifier, there and back
    assert all(parameter.grad is None for parameter in net.module.parameters())
    assert all(parameter.requires_grad for parameter in net.module.parameters())


def test_frozen_parameters(pictures: Tensor) -> None:
    free, frozen = network(), network()
    frozen.module.requires_grad_(False)
    for layer in ("0", "3", None):
        found = gradcam(frozen, pictures, layer=layer)
        assert torch.equal(found.cells, gradcam(free, pictures, layer=layer).cells)
        assert found.cells.abs().max() > 0
        assert not found.cells.requires_grad


# ---- what is asked about


def test_each_picture_its_own_target(pictures: Tensor) -> None:
    own = [3, 0, 0, 2, 1]
    expected = torch.stack([expected_cells(5, pictures, t)[n] for n, t in enumerate(own)])
    for batch in (1, 2, 4, 32):
        found = gradcam(network(max_batch=batch), pictures, target=own)
        torch.testing.assert_close(found.cells, expected, rtol=1e-4, atol=1e-6)
        assert [s["target"]["index"] for s in found.summaries] == own
        assert list(found.titles) == ["d", "a", "a", "c", "b"]
    with pytest.raises(UnknownTarget, match="4 targets for 5 pictures"):
        gradcam(network(max_batch=4), pictures, target=[0, 1, 2, 3])


def test_the_predicted_class_is_the_default(pictures: Tensor) -> None:
    net = network()
    logits = net(pictures).detach()
    found = gradcam(net, pictures)
    assert [s["target"]["index"] for s in found.summaries] == logits.argmax(1).tolist()
    torch.testing.assert_close(torch.tensor([s["score"] for s in found.summaries]), logits.amax(1))


def test_the_first_run_of_a_reused_layer(pictures: Tensor) -> None:
    class Reused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            inner = small()
            self.one, self.two, self.relu, self.fc = inner[0], nn.Conv2d(6, 7, 3), nn.ReLU(True), inner[9]

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.relu(self.two(self.relu(self.one(x)))).mean((2, 3)))

    module = Reused()
    net = Network(module, input_size=(8, 8))
    first = module.one(pictures).relu().detach().requires_grad_()
    second = module.two(first).relu()
    slopes = torch.autograd.grad(module.fc(second.mean((2, 3)))[:, 1].sum(), [first, second])
    for name, maps, slope in (("relu:0", first, slopes[0]), ("relu:1", second, slopes[1]), ("relu", second, slopes[1])):
        found = gradcam(net, pictures, target=1, layer=name)
        torch.testing.assert_close(found.cells, by_loops(maps.detach(), slope).float(), rtol=1e-4, atol=1e-6)
        assert found.layer == name


def test_layers_without_a_map_are_sentences(pictures: Tensor) -> None:
    for layer in ("6", "7", "9"):
        with pytest.raises(OptionError, match=f"layer '{layer}' has no spatial extent, so it has no map; try '5'"):
            gradcam(network(), pictures, layer=layer)
    with pytest.raises(UnknownLayer, match="net has no layer 'layer4'"):
        gradcam(network(), pictures, layer="layer4")


def test_a_class_without_evidence_is_said_to_have_none(pictures: Tensor) -> None:
    module = small()
    with torch.no_grad():
        module[9].weight[1] = -1.0
        module[9].weight[2] = 0.0
    net = Network(module, name="net", labels=("a", "b", "c", "d"), input_size=(8, 8))
    against = gradcam(net, pictures[:2], target=1)
    assert against.values.max() <= 0
    assert against.values.min() < 0
    assert list(against.notes) == [f"picture {n}: no position speaks for b: the whole map is negative" for n in (1, 2)]
    nothing = gradcam(net, pictures[0], target="c")
    assert list(nothing.notes) == ["the map for c is constant (0): no pixel stands out"]
    assert nothing.summary["minimum"] == nothing.summary["maximum"] == 0


# ---- circumstances


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_callers_gradient_mode_does_not_matter(mode: Any, pictures: Tensor) -> None:
    expected = gradcam(network(), pictures, target=1).cells
    net = network()
    with mode():
        found = gradcam(net, pictures * 1, target=1)
        assert not torch.is_grad_enabled()
    assert torch.equal(found.cells, expected)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.float16, 0.02), (torch.bfloat16, 0.1)], ids=str
)
def test_other_precisions(dtype: torch.dtype, tolerance: float, pictures: Tensor) -> None:
    expected = expected_cells(3, pictures, 1)
    net = replace(network(), module=small().to(dtype))
    found = gradcam(net, pictures, target=1, layer="3")
    assert (found.cells.float() - expected).norm() < tolerance * expected.norm()
    assert found.values.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_autocast(pictures: Tensor, random_network: Callable[..., Network]) -> None:
    exact = random_network("resnet18")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(13))
    expected = gradcam(exact, images, target=3, layer="layer3").cells
    found = gradcam(replace(exact, precision="bfloat16"), images, target=3, layer="layer3").cells
    assert (found.float() - expected).norm() < 0.2 * expected.norm()


def test_channels_last_and_pictures_that_are_not_square(pictures: Tensor) -> None:
    wide = torch.rand(2, 3, 6, 14)
    for images in (pictures, wide):
        turned = images.contiguous(memory_format=torch.channels_last)
        net = replace(network(), module=small().to(memory_format=torch.channels_last))
        found = gradcam(net, turned, target=1, layer="5")
        torch.testing.assert_close(found.cells, expected_cells(5, images, 1), rtol=1e-4, atol=1e-6)
        assert found.values.shape == (len(images), *images.shape[2:])


def test_a_picture_does_not_see_its_neighbours(pictures: Tensor) -> None:
    together = gradcam(network(), pictures, target=2).values
    for number in range(5):
        alone = gradcam(network(), pictures[number], target=2).values
        torch.testing.assert_close(alone[0], together[number], rtol=0, atol=1e-6)


@pytest.mark.parametrize("interrupt", [False, True])
def test_the_network_is_as_it_was(interrupt: bool, pictures: Tensor) -> None:
    class Guard(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.armed = False

        def forward(self, x: Tensor) -> Tensor:
            if self.armed:
                raise KeyboardInterrupt
            return x

    module = nn.Sequential(small(), Guard()).train()
    net = Network(module, input_size=(8, 8))
    expected = gradcam(replace(net, module=nn.Sequential(small(), Guard()).eval()), pictures).cells
    assert net.default_layer == "0.5"
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module[1].armed = interrupt
    if interrupt:
        with pytest.raises(KeyboardInterrupt):
            gradcam(net, pictures)
    else:
        assert torch.equal(gradcam(net, pictures).cells, expected)
    assert all(part.training and not part._forward_hooks and not part._backward_hooks for part in module.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())
