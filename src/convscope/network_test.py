from __future__ import annotations

import math
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.errors import ConvscopeError, ImageError, NetworkError, UnknownLayer, UnknownTarget
from convscope.hooks import OUTPUT, observe
from convscope.network import Layout, Network, spatial_layout, to_maps
from convscope.registry import load

LABELS = ("tabby cat", "tiger cat", "red fox", "crane", "crane", "go-kart", "great_white shark", "shark")


def small(classes: int = 8) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(3, 4, 3, padding=1),
                relu=nn.ReLU(inplace=True),
                pool=nn.AdaptiveAvgPool2d(1),
                flat=nn.Flatten(),
                fc=nn.Linear(4, classes),
            )
        )


def labelled(**options: Any) -> Network:
    return Network(small(), **{"labels": LABELS, "name": "zoo", "input_size": (8, 8), **options})


class Answer(nn.Module):
    """Returns its scores in a wrapping."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.fc, self.wrap = nn.Linear(3, 5), wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.fc(x.mean((2, 3))))


# ---- pictures in, scores out


def test_pictures_are_normalised_inside() -> None:
    net = labelled(mean=torch.tensor([0.1, 0.2, 0.3]), std=torch.tensor([0.5, 0.25, 2.0]))
    pictures = torch.rand(2, 3, 8, 8)
    by_hand = torch.stack([(pictures[:, c] - m) / s for c, m, s in [(0, 0.1, 0.5), (1, 0.2, 0.25), (2, 0.3, 2.0)]], 1)
    torch.testing.assert_close(net.normalise(pictures), by_hand)
    torch.testing.assert_close(net(pictures), net.module(by_hand))
    torch.testing.assert_close(net.forward(pictures), net.module(by_hand))


def test_gradients_are_in_units_of_pixels() -> None:
    net = labelled(std=torch.full((3,), 0.25))
    pictures = torch.rand(1, 3, 8, 8, requires_grad=True)
    inside = (pictures.detach() / 0.25).requires_grad_()
    (found,) = torch.autograd.grad(net(pictures)[0, 1], pictures)
    (expected,) = torch.autograd.grad(net.module(inside)[0, 1], inside)
    torch.testing.assert_close(found, expected / 0.25)


def test_one_channel_networks_see_grey() -> None:
    net = Network(nn.Conv2d(1, 2, 8), mean=torch.tensor([0.5]), std=torch.tensor([0.5]), input_size=(8, 8))
    colours = torch.rand(2, 3, 8, 8)
    grey = 0.299 * colours[:, 0] + 0.587 * colours[:, 1] + 0.114 * colours[:, 2]
    torch.testing.assert_close(net.normalise(colours), (grey[:, None] - 0.5) / 0.5)
    torch.testing.assert_close(net(colours), net.module((grey[:, None] - 0.5) / 0.5).flatten(1))
    assert net.classes == 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_pictures_take_on_the_modules_precision(dtype: torch.dtype) -> None:
    pictures = torch.rand(2, 3, 8, 8)
    net = replace(labelled(), module=small().to(dtype))
    found = net(pictures)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), labelled()(pictures), rtol=0, atol=1e-2)
    assert net.normalise(pictures.double()).dtype == dtype


def test_a_module_without_parameters() -> None:
    net = Network(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), input_size=(4, 4))
    pictures = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(net(pictures), pictures.mean((2, 3)))
    assert net.device == torch.device("cpu")
    assert net.classes == 3


def test_bfloat16_is_close_to_float32(random_network: Callable[..., Network]) -> None:
    exact = random_network("resnet18")
    rough = replace(exact, precision="bfloat16")
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = exact(pictures), rough(pictures)
    assert found.dtype == torch.bfloat16
    assert torch.equal(expected, exact(pictures))
    assert not torch.equal(found.float(), expected)
    assert (found.float() - expected).norm() < 0.02 * expected.norm()
    assert rough.normalise(pictures).is_contiguous(memory_format=torch.channels_last)
    slopes = []
    for net in (exact, rough):
        images = pictures.clone().requires_grad_()
        slopes.append(torch.autograd.grad(net(images)[:, 3].sum(), images)[0])
    assert slopes[1].dtype == torch.float32
    # a rectifier that rounding opens or shuts changes single pixels, so that slopes agree as maps only
    assert F.cosine_similarity(slopes[0].flatten(), slopes[1].flatten(), dim=0) > 0.9


def test_gradients_in_bfloat16_after_a_pass_without_them(random_network: Callable[..., Network]) -> None:
    """Weights cast while no graph was wanted must not be used where one is."""
    net = replace(random_network("resnet18"), precision="bfloat16")
    pictures, weight = torch.rand(1, 3, 64, 64), net.module.conv1.weight
    (expected,) = torch.autograd.grad(net(pictures)[0, 0], weight)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            net(pictures)
        (found,) = torch.autograd.grad(net(pictures)[0, 0], weight)
    assert torch.equal(found, expected)
    assert found.abs().max() > 0


# ---- which output holds the scores

Named = namedtuple("Named", ["features", "scores"])


@dataclass
class Holder:
    embedding: Tensor
    scores: Tensor


@pytest.mark.parametrize(
    ("wrap", "output"),
    [
        (lambda y: y, None),
        (lambda y: (y, y + 1), None),
        (lambda y: [y, y + 1], None),
        (lambda y: (y + 1, y), "1"),
        (lambda y: Named(y + 1, y), "scores"),
        (lambda y: Named(y + 1, y), "1"),
        (lambda y: {"logits": y, "loss": 0}, None),
        (lambda y: OrderedDict(out=y, aux=y + 1), None),
        (lambda y: {"out": y + 1, "logits": y}, None),
        (lambda y: {"a": y + 1, "b": y}, "b"),
        (lambda y: {"logits": y + 1, "b": y}, "b"),
        (lambda y: Holder(y + 1, y), "scores"),
    ],
)
def test_the_scores_are_picked_from_what_the_module_returns(wrap: Callable[[Tensor], Any], output: str | None) -> None:
    module = Answer(wrap)
    net = Network(module, output=output, input_size=(4, 4))
    pictures = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(net(pictures), module.fc(pictures.mean((2, 3))))
    torch.testing.assert_close(observe(net, pictures, [OUTPUT])[OUTPUT], net(pictures).detach())
    assert net.classes == 5


@pytest.mark.parametrize(
    ("wrap", "output", "sentence"),
    [
        (lambda y: {"a": y, "b": y}, None, "net returns a dict with a, b; say which holds the class scores"),
        (lambda y: {"a": y}, "c", "net returns a dict with a; say which"),
        (lambda y: Named(y, y), "c", "net returns a Named with features, scores; say which"),
        (lambda y: (y, y), "2", "net returns a tuple; say which"),
        (lambda y: Holder(y, y), None, "net returns a Holder"),
        (lambda y: None, None, "net returns a NoneType"),
        (lambda y: y.tolist(), None, "net returns a list"),
    ],
)
def test_scores_that_cannot_be_found_are_a_sentence(
    wrap: Callable[[Tensor], Any], output: str | None, sentence: str
) -> None:
    with pytest.raises(NetworkError, match=sentence):
        Network(Answer(wrap), output=output, name="net")(torch.rand(1, 3, 4, 4))


def test_scores_of_another_shape_are_a_sentence() -> None:
    dense = Network(nn.Conv2d(3, 7, 3), name="dense", input_size=(8, 8))
    with pytest.raises(NetworkError, match=r"dense returns \(1, 7, 6, 6\) and not \(N, classes\).*wrap the network"):
        dense(torch.rand(1, 3, 8, 8))
    with pytest.raises(NetworkError, match="needs a classifier"):
        _ = dense.classes
    pooled = Network(nn.Conv2d(3, 7, 8), input_size=(8, 8))
    assert pooled(torch.rand(2, 3, 8, 8)).shape == (2, 7)
    assert pooled.classes == 7


# ---- what goes wrong inside


def fixed_size() -> Network:
    return Network(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), name="rigid", input_size=(4, 4))


def test_a_picture_of_another_size_is_a_sentence_with_a_remedy() -> None:
    with pytest.raises(
        NetworkError, match=r"rigid fails on pictures of 5x6 pixels \(.*\); it was made for 4x4.*prepare"
    ):
        fixed_size()(torch.rand(1, 3, 5, 6))
    unsaid = replace(fixed_size(), input_size=(224, 224))
    with pytest.raises(NetworkError, match=r"fails on pictures of 224x224 .*load_network\(\.\.\., input_size="):
        unsaid.layers()
    assert unsaid(torch.rand(2, 3, 4, 4)).shape == (2, 2)


@pytest.mark.parametrize("error", [RuntimeError(""), ValueError("a\nb"), AssertionError()], ids=repr)
def test_other_faults_are_one_line(error: Exception) -> None:
    class Faulty(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise error

    with pytest.raises(NetworkError) as caught:
        Network(Faulty(), name="faulty", input_size=(4, 4))(torch.rand(1, 3, 4, 4))
    assert str(caught.value).startswith("faulty fails on pictures of 4x4 pixels (")
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is error


def test_running_out_of_memory_is_no_fault_of_the_network() -> None:
    class Large(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        Network(Large())(torch.rand(1, 3, 4, 4))


@pytest.mark.parametrize("technique", ["saliency", "gradcam", "classify"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_inf_are_named_and_not_shown(technique: str, bad: float) -> None:
    pictures = torch.rand(1, 3, 8, 8)
    pictures[0, 1, 2, 3] = bad
    with pytest.raises(ImageError, match="NaN" if math.isnan(bad) else "Inf"):
        load(technique)(labelled(), pictures)
    broken = small()
    with torch.no_grad():
        broken.conv.weight[0] = bad
    with pytest.raises(ConvscopeError, match=r"NaN|Inf"):
        load(technique)(Network(broken, input_size=(8, 8)), torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize("technique", ["saliency", "gradcam", "classify"])
def test_overflow_inside_is_named(technique: str) -> None:
    large = small()
    with torch.no_grad():
        large.fc.weight.fill_(3e38)
        large.conv.weight.fill_(1e3)
    with pytest.raises(ConvscopeError, match=f"{technique} gave NaN or Inf: .* overflows on this picture in float32"):
        load(technique)(Network(large, input_size=(8, 8)), torch.rand(1, 3, 8, 8))


def test_prepare_scales_and_crops_as_trained() -> None:
    net = labelled(input_size=(4, 6), crop=0.5)
    wide = torch.rand(3, 20, 40)
    found = net.prepare(wide)
    scaled = F.interpolate(wide[None], (8, 16), mode="bilinear", antialias=True)[0]
    torch.testing.assert_close(found, scaled[:, 2:6, 5:11].clamp(0, 1))
    whole = replace(net, crop=1.0, input_size=(20, 40))
    torch.testing.assert_close(whole.prepare(wide), wide)
    assert net.prepare(wide[None].expand(2, -1, -1, -1)).shape == (2, 3, 4, 6)


# ---- targets


@pytest.mark.parametrize(
    ("target", "index"),
    [
        (0, 0),
        ("7", 7),
        (" 2 ", 2),
        ("tabby cat", 0),
        ("Tabby", 0),
        ("tabby", 0),
        ("red_fox", 2),
        ("FOX", 2),
        ("ox", 2),
        ("go kart", 5),
        ("go-kart", 5),
        ("kart", 5),
        ("great white", 6),
        ("shark", 7),  # the whole label, though another one holds the word
    ],
)
def test_targets_by_index_label_or_part(target: int | str, index: int) -> None:
    assert labelled().target(target) == index


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (8, "zoo has classes 0 to 7, not 8"),
        ("8", "zoo has classes 0 to 7, not 8"),
        (-1, "zoo has classes 0 to 7, not -1"),
        ("-1", "zoo has classes 0 to 7, not -1"),
        ("--5", "zoo knows no '--5'"),
        ("cat", r"'cat' fits 'tabby cat' \(0\), 'tiger cat' \(1\); say which"),
        ("crane", r"'crane' fits 'crane' \(3\), 'crane' \(4\); say which"),
        ("tigger cat", "zoo knows no 'tigger cat'; did you mean 'tiger cat'"),
        ("zebra", "zoo knows no 'zebra'"),
        ("", "zoo knows no ''"),
    ],
)
def test_targets_that_are_unclear_are_sentences(target: int | str, sentence: str) -> None:
    with pytest.raises(UnknownTarget, match=sentence):
        labelled().target(target)


def test_an_unclear_target_lists_at_most_five() -> None:
    net = labelled(labels=tuple(f"bird {i}" for i in range(8)))
    with pytest.raises(UnknownTarget, match=r"'bird 0' \(0\), .*'bird 4' \(4\) and 3 more; say which"):
        net.target("bird")


def test_targets_without_labels() -> None:
    net = labelled(labels=())
    assert net.target(3) == 3
    assert net.label(3) == "class 3"
    with pytest.raises(UnknownTarget, match="zoo has no labels, so 'cat' cannot be found; give an index, or --labels"):
        net.target("cat")
    assert labelled().label(2) == "red fox"
    assert labelled(labels=("one",)).label(2) == "class 2"


def test_targets_for_a_batch() -> None:
    net, logits = labelled(), torch.eye(8)[[2, 5]]
    assert net.targets(None, logits).tolist() == [2, 5]
    assert net.targets("fox", logits).tolist() == [2, 2]
    assert net.targets([7, "fox"], logits).tolist() == [7, 2]
    assert net.targets(torch.tensor([1, 0]), logits).tolist() == [1, 0]
    assert net.targets(torch.tensor(4), logits).tolist() == [4, 4]
    assert net.targets([3], logits).tolist() == [3, 3]
    with pytest.raises(UnknownTarget, match="3 targets for 2 pictures; give one, or one a picture"):
        net.targets([1, 2, 3], logits)


# ---- layers


def test_layers_as_a_pass_meets_them() -> None:
    found = {info.name: info for info in labelled(input_size=(8, 6)).layers()}
    assert list(found) == ["conv", "relu", "pool", "flat", "fc"]
    conv, pool, fc = found["conv"], found["pool"], found["fc"]
    assert (conv.kind, conv.shape, conv.parameters, conv.calls) == ("Conv2d", (4, 8, 6), 4 * 27 + 4, 1)
    assert (conv.layout, conv.grid, conv.channels, conv.spatial) == ("NCHW", (8, 6), 4, True)
    assert (pool.layout, pool.grid, pool.channels, pool.spatial) == ("NCHW", (1, 1), 4, False)
    assert (fc.shape, fc.layout, fc.grid, fc.channels, fc.spatial) == ((8,), "none", None, 8, False)


def test_a_channel_stands_for_a_class_where_no_weights_follow() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    net = Network(module.eval(), labels=("ant", "bee", "cat"), input_size=(8, 8))
    assert [net.class_of(str(place), 1) for place in range(6)] == [None, None, "bee", "bee", "bee", "bee"]
    assert Network(module, input_size=(8, 8)).class_of("3", 1) is None
    assert labelled().class_of("relu", 0) is None


def test_a_layer_by_name() -> None:
    net = labelled()
    assert net.layer("relu").kind == "ReLU"
    assert net.layer("relu:0").name == "relu"
    with pytest.raises(UnknownLayer, match=r"zoo has no layer 'rele'; did you mean 'relu'.*`convscope layers` lists"):
        net.layer("rele")


@pytest.mark.parametrize(
    ("shape", "picture", "layout", "grid"),
    [
        ((64, 56, 56), (224, 224), "NCHW", (56, 56)),
        ((512, 7, 7), (224, 224), "NCHW", (7, 7)),
        ((7, 7, 768), (224, 224), "NHWC", (7, 7)),
        ((56, 56, 96), (224, 224), "NHWC", (56, 56)),
        ((2, 2, 2), (64, 64), "NCHW", (2, 2)),
        ((1, 1, 768), (32, 32), "NHWC", (1, 1)),
        ((1000, 1, 1), (224, 224), "NCHW", (1, 1)),
        ((1, 28, 28), (28, 28), "NCHW", (28, 28)),
        ((64, 8, 32), (64, 256), "NCHW", (8, 32)),
        ((8, 32, 64), (64, 256), "NHWC", (8, 32)),
        ((32, 8, 64), (256, 64), "NHWC", (32, 8)),
        ((512, 1, 33), (32, 128), "NCHW", (1, 33)),  # a text reader that shrinks rows and columns differently
        ((196, 192), (224, 224), "tokens", (14, 14)),
        ((197, 192), (224, 224), "tokens", (14, 14)),  # a class token
        ((198, 192), (224, 224), "tokens", (14, 14)),  # and one for distillation
        ((201, 192), (224, 224), "tokens", (14, 14)),  # and four registers
        ((33, 64), (64, 128), "tokens", (4, 8)),
        ((129, 64), (128, 256), "tokens", (8, 16)),
        ((768, 384), (224, 224), "none", None),  # channels that mix tokens
        ((4096,), (224, 224), "none", None),
        ((), (224, 224), "none", None),
        ((2, 49, 49, 3), (224, 224), "none", None),
    ],
)
def test_spatial_layout(
    shape: tuple[int, ...], picture: tuple[int, int], layout: Layout, grid: tuple[int, int] | None
) -> None:
    assert spatial_layout(shape, picture) == (layout, grid)


def test_maps_of_every_layout_hold_the_same_units() -> None:
    maps = torch.arange(2 * 5 * 3 * 4.0).reshape(2, 5, 3, 4)
    rows = torch.stack([maps[:, :, r, c] for r in range(3) for c in range(4)], 1)  # (2, 12, 5)
    prefixed = torch.cat([torch.full((2, 2, 5), -1.0), rows], 1)
    assert torch.equal(to_maps(maps, "NCHW", (3, 4)), maps)
    assert torch.equal(to_maps(maps.permute(0, 2, 3, 1), "NHWC", (3, 4)), maps)
    assert torch.equal(to_maps(rows, "tokens", (3, 4)), maps)
    assert torch.equal(to_maps(prefixed, "tokens", (3, 4)), maps)
    assert torch.equal(to_maps(maps, "none", None), maps.flatten(1)[:, :, None, None])


class Patches(nn.Module):
    """A class token and patches of 4x4 pixels, of any square number."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.fc = nn.Conv2d(3, 6, 4, 4), nn.LayerNorm(6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = self.norm(torch.cat([x.mean(1, keepdim=True), x], 1))
        return self.fc(x.mean(1))


def test_maps_of_tokens_for_pictures_of_another_size() -> None:
    net = Network(Patches(), input_size=(16, 16))
    assert net.layer("norm").layout == "tokens"
    for side in (16, 24):
        pictures = torch.rand(2, 3, side, side)
        seen = observe(net, pictures, ["embed", "norm"])
        by_hand = F.layer_norm(seen["embed"].movedim(1, -1), (6,)).movedim(-1, 1)
        torch.testing.assert_close(net.maps("norm", seen["norm"]), by_hand)
    with pytest.raises(NetworkError, match="the 24 tokens of layer 'norm' stand in no square; give square pictures"):
        net.maps("norm", observe(net, torch.rand(1, 3, 16, 24), ["norm"])["norm"])


def test_a_layer_that_cuts_pictures_into_windows_has_no_maps() -> None:
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.conv, self.fc = nn.Linear(3, 3), nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            parts = x.unflatten(2, (2, -1)).unflatten(4, (2, -1)).permute(0, 2, 4, 3, 5, 1).flatten(0, 2)
            return self.fc(self.conv(x + self.inner(parts).mean()).mean((2, 3)))

    net = Network(Windows(), name="win", input_size=(8, 8))
    assert net.layer("inner").layout == "none"
    assert not net.layer("inner").spatial
    with pytest.raises(NetworkError, match="layer 'inner' puts 4 windows or positions where the pictures stand"):
        net.maps("inner", observe(net, torch.rand(1, 3, 8, 8), ["inner"])["inner"])
    assert net.default_layer == "conv"


# ---- the default layer


@pytest.mark.parametrize(
    ("name", "layer", "channels"),
    [
        ("resnet18", "avgpool", 512),
        ("vgg11", "classifier.5", 4096),  # the dropout behind the last ReLU, which does nothing here
        ("squeezenet1_0", "classifier.0", 512),
        ("mobilenet_v2", "classifier.0", 1280),
        ("swin_t", "flatten", 768),
    ],
)
def test_a_code_is_what_the_classifier_gets(
    name: str, layer: str, channels: int, random_network: Callable[..., Network]
) -> None:
    net = random_network(name)
    assert net.code_layer == layer
    images = torch.rand(2, 3, *net.input_size)
    with torch.no_grad():
        found = net.codes(layer, observe(net, images, [layer])[layer])
    assert found.shape == (2, channels)


def test_codes_are_means_over_positions() -> None:
    net = labelled()
    maps = torch.arange(2 * 4 * 8 * 8.0).view(2, 4, 8, 8)
    torch.testing.assert_close(net.codes("relu", maps), maps.flatten(2).mean(2))
    assert net.code_layer == "flat"
    with pytest.raises(NetworkError, match="no layer before a classifier"):
        _ = Network(nn.Sequential(nn.Conv2d(3, 5, 1)), input_size=(8, 8)).code_layer


@pytest.mark.parametrize(
    ("name", "layer", "layout"),
    [
        ("resnet18", "layer4", "NCHW"),
        ("vgg11", "features.19", "NCHW"),  # the last ReLU
        ("squeezenet1_0", "classifier.2", "NCHW"),  # the ReLU behind the convolution that scores classes
        ("densenet121", "features", "NCHW"),
        ("mobilenet_v2", "features", "NCHW"),
        ("swin_t", "permute", "NCHW"),
    ],
)
def test_default_layers(name: str, layer: str, layout: str, random_network: Callable[..., Network]) -> None:
    net = random_network(name)
    assert net.default_layer == layer
    assert net.layer(layer).layout == layout
    assert net.layer(layer).spatial


def test_the_default_layer_of_a_vit_is_the_last_whose_patches_matter(models: ModuleType) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vit = models.VisionTransformer(32, 8, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5)
        nn.init.normal_(vit.heads.head.weight)
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            assert Network(vit, input_size=(32, 32)).default_layer == "encoder.layers.encoder_layer_2.ln_1"
    net = Network(vit, input_size=(32, 32))
    images = torch.rand(1, 3, 32, 32)
    for layer, heard in ((net.default_layer, True), ("encoder.layers.encoder_layer_2", False), ("encoder.ln", False)):
        seen = observe(net, images, [OUTPUT], leaves=[layer])
        (slope,) = torch.autograd.grad(seen[OUTPUT].square().sum(), seen[layer])
        assert bool(slope[:, 1:].any()) is heard
    nn.init.zeros_(vit.heads.head.weight)  # as torchvision leaves it: nothing is heard at all
    assert Network(vit, input_size=(32, 32)).default_layer == "encoder"


def test_the_default_layer_of_averaged_tokens_is_the_last() -> None:
    assert Network(Patches(), input_size=(16, 16)).default_layer == "norm"


def test_a_network_without_maps_has_no_default_layer() -> None:
    net = Network(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), name="flat", input_size=(4, 4))
    with pytest.raises(NetworkError, match="no layer of flat has spatial extent"):
        _ = net.default_layer


def test_looking_at_layers_changes_nothing() -> None:
    module = small().train()
    net = Network(module, input_size=(8, 8))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert [len(net.layers()), net.default_layer, net.calls["relu"], net.classes] == [5, "relu", 1, 8]
    assert module.training
    assert not any(part._forward_hooks for part in module.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_a_pass_on_a_cpu_holds_no_more_than_its_caches_like() -> None:
    net = Network(nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), max_batch=20)
    sizes = [(64, 64), (112, 112), (224, 224), (224, 448), (800, 600)]
    assert [net.at_once(torch.empty(3, *size)) for size in sizes] == [20, 20, 8, 4, 1]
    assert [replace(net, max_batch=3).at_once(torch.empty(1, 3, *size)) for size in sizes] == [3, 3, 3, 3, 1]


@pytest.mark.parametrize(
    ("name", "count", "some"),
    [
        ("squeezenet1_1", 26, ["features.1", "features.3.squeeze_activation", "classifier.2"]),
        ("resnet18", 20, ["relu", "layer1.0.relu:0", "layer1.0.relu", "layer2.0.bn2", "layer2.0.relu"]),
        ("vgg11", 8, ["features.1", "features.19"]),
    ],
)
def test_every_convolutions_channels_once(
    random_network: Callable[..., Network], name: str, count: int, some: list[str]
) -> None:
    network = random_network(name)
    found = network.convolution_layers
    assert len(found) == len(set(found)) == count
    assert set(some) <= set(found)
    convolutions = [part for part in network.module.modules() if isinstance(part, nn.Conv2d)]
    assert sum(network.layer(layer).channels for layer in found) == sum(conv.out_channels for conv in convolutions)
