from __future__ import annotations

import copy
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter, median_filter
from torch import Tensor, nn
from torch.testing import assert_close

import convscope
from convscope.backward import gradient
from convscope.defences import defence
from convscope.errors import NetworkError, OptionError
from convscope.hooks import observe
from convscope.network import Network
from convscope.perturb import Variations
from convscope.zoo.options import seeded


def pictures(count: int = 2, height: int = 20, width: int = 28) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network() -> Network:
    with seeded(0):
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    return Network(module.eval(), name="small", input_size=(20, 28), mean=torch.full((3,), 0.5))


# ---- what each does, against others that do it


def test_jpeg_is_pillows() -> None:
    images = pictures()
    for picture, found in zip(images, defence("jpeg:30")(images), strict=True):
        buffer = io.BytesIO()
        levels = (picture * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(levels).save(buffer, format="jpeg", quality=30)
        assert_close((found * 255).permute(1, 2, 0).numpy(), np.asarray(Image.open(buffer), dtype=np.float32))


@pytest.mark.parametrize("side", [2, 3, 4, 5])
def test_medians_are_scipys(side: int) -> None:
    images = pictures()
    expected = [[median_filter(plane, size=side, mode="reflect") for plane in picture] for picture in images.numpy()]
    assert np.array_equal(defence(f"median:{side}")(images).numpy(), np.array(expected))


def test_the_blur_is_scipys() -> None:
    images = pictures().double()
    expected = [
        [gaussian_filter(plane, 1.5, mode="nearest", radius=4) for plane in picture] for picture in images.numpy()
    ]
    assert_close(defence("blur:1.5")(images).numpy(), np.array(expected))


def test_bits_leave_so_many_values_the_nearest_ones() -> None:
    found = defence("bits:2")(torch.linspace(0, 1, 301).view(1, 1, 1, -1).expand(1, 3, 1, -1))
    assert_close(found.unique(), torch.tensor([0, 1 / 3, 2 / 3, 1]))
    assert_close(found[0, 0, 0, [49, 51, 149, 151]], torch.tensor([0, 1 / 3, 1 / 3, 2 / 3]))


def test_noise_is_normal_of_that_size_and_the_same_for_every_picture() -> None:
    images = torch.full((2, 3, 200, 200), 0.5)
    added = defence("noise:0.25")(images) - 0.5
    assert torch.equal(added[0], added[1])
    assert float(added[0].std()) == pytest.approx(0.25, rel=0.01)
    assert float(added[0].mean()) == pytest.approx(0, abs=0.005)
    assert float((added[0].abs() < 0.25).float().mean()) == pytest.approx(0.683, abs=0.01)


def test_resized_pictures_lie_somewhere_on_zeros() -> None:
    images, places = torch.ones(1, 3, 100, 80), set()
    for seed in range(40):
        found = defence("resize-pad:0.8", seed=seed)(images)[0, 0]
        rows, columns = found.amax(1).nonzero().flatten(), found.amax(0).nonzero().flatten()
        assert found.shape == (100, 80)
        assert 80 <= len(rows) <= 100
        assert abs(len(columns) - 0.8 * len(rows)) <= 1
        places.add((int(rows[0]), int(columns[0])))
    assert len(places) > 20


# ---- in front of a network


def test_a_network_behind_it_is_the_network_on_what_it_makes(network: Network) -> None:
    images = pictures()
    for spec in ("jpeg:40", "bits:3", "median:3+blur:1", "noise:0.2", "resize-pad:0.7"):
        assert torch.equal(network.defended(spec)(images), network(defence(spec)(images)))


def test_several_draws_are_averaged_as_probabilities(network: Network) -> None:
    images, found = pictures(), network.defended("noise:0.2:5", seed=3)
    generator = torch.Generator().manual_seed(3)
    draws = [images + 0.2 * torch.randn(3, 20, 28, generator=generator) for _ in range(5)]
    expected = torch.stack([network(draw).softmax(1) for draw in draws]).mean(0)
    assert_close(found(images).exp(), expected)
    assert found.views == 5
    assert found.max_batch == network.max_batch // 5
    assert found.undefended.max_batch >= network.max_batch // 2


def test_the_same_seed_draws_the_same_and_fresh_ones_draw_anew(network: Network) -> None:
    images, found = pictures(), network.defended("noise:0.2")
    assert torch.equal(found(images), found(images))
    assert not torch.equal(found(images), network.defended("noise:0.2", seed=1)(images))
    fresh = replace(found, defence=found.defence.fresh(7))
    first, second = fresh(images), fresh(images)
    assert not torch.equal(first, second)
    again = replace(found, defence=found.defence.fresh(7))
    assert torch.equal(again(images), first)
    assert torch.equal(again(images), second)


def test_a_picture_does_not_depend_on_its_neighbours(network: Network) -> None:
    images = pictures(3)
    for spec in ("jpeg:40", "noise:0.2:2", "resize-pad", "median:2"):
        found = network.defended(spec)
        assert_close(found(images)[1:2], found(images[1:2]))


@pytest.mark.parametrize("spec", ["jpeg:60", "bits:3", "median:3"])
def test_gradients_pass_what_has_none_as_if_it_did_nothing(network: Network, spec: str) -> None:
    images = pictures().requires_grad_()
    passed = defence(spec)(images.detach()).requires_grad_()
    expected = gradient(network(passed).amax(1), passed)
    assert_close(gradient(network.defended(spec)(images).amax(1), images), expected)


@pytest.mark.parametrize("spec", ["blur:1", "noise:0.1:3", "resize-pad:0.8"])
def test_other_gradients_are_those_of_finite_differences(network: Network, spec: str) -> None:
    network = replace(network, module=copy.deepcopy(network.module).double()).defended(spec)
    images = pictures(1).double().requires_grad_()
    slope = gradient(network(images)[:, 0], images)
    step = torch.randn(images.shape, generator=torch.Generator().manual_seed(5), dtype=torch.double)
    ends = [float(network((images + way * 1e-6 * step).detach())[0, 0].detach()) for way in (1, -1)]
    assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(float((slope * step).sum()), rel=1e-4)


def test_layers_and_their_activations_are_those_of_the_defended_picture(network: Network) -> None:
    found = network.defended("bits:2")
    assert [i.name for i in found.layers()] == [i.name for i in network.layers()]
    assert found.receptive_fields == network.receptive_fields
    seen = observe(found, pictures(), ["0"])["0"]
    assert torch.equal(seen, observe(network, defence("bits:2")(pictures()), ["0"])["0"])


def test_occlusion_runs_full_passes_behind_it(network: Network) -> None:
    picture = pictures()[0]
    outcome = Variations(network.defended("jpeg:50")).of(picture, boxes=[(2, 2, 6, 6)], content=torch.zeros(3, 1, 1))
    hidden = picture.clone()
    hidden[:, 2:8, 2:8] = 0
    assert outcome.engine == "full"
    assert "jpeg:50 stands in front of it" in outcome.reason
    assert_close(outcome.logits, network(defence("jpeg:50")(hidden[None])))


def test_several_draws_have_no_one_activation(network: Network) -> None:
    found = network.defended("noise:0.1:4")
    with pytest.raises(
        NetworkError, match=r"4 draws the layers of small have 4 answers .*; look inside behind one draw"
    ):
        observe(found, pictures(), ["0"])
    with pytest.raises(NetworkError, match="averages over 4 draws"):
        convscope.lrp(found, pictures(1))


def test_relevance_is_that_of_the_defended_picture() -> None:
    pytest.importorskip("zennit")
    with seeded(0):
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 18 * 26, 3)).eval()
    network = Network(module, name="small", input_size=(20, 28))
    assert_close(
        convscope.lrp(network.defended("bits:2"), pictures()).values,
        convscope.lrp(network, defence("bits:2")(pictures())).values,
    )


def test_provenance_says_it() -> None:
    network = convscope.load_network("builtin", defence="jpeg:75")
    result = convscope.saliency(network, torch.rand(1, 3, 64, 64))
    assert result.provenance.defence == "jpeg:75"
    assert '"defence": "jpeg:75"' in result.to_json()
    assert convscope.saliency(network.undefended, torch.rand(1, 3, 64, 64)).provenance.defence is None


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("jpg:75", r"no defence 'jpg'.*did you mean.*jpeg"),
        ("jpeg:0", r"jpeg takes a quality, from 1 to 95; 'jpeg:0' says '0'"),
        ("bits:2.5", r"a depth, from 1 to 8"),
        ("noise:loud", r"a sigma, of values in \[0, 1\]"),
        ("blur:1:3", r"blur takes one number, a sigma in pixels; 'blur:1:3' has 2"),
        ("noise:0.1:0", r"the number of draws, from 1"),
        ("", r"a defence is jpeg:QUALITY"),
    ],
)
def test_a_wrong_spec_gets_a_sentence(spec: str, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        defence(spec)
