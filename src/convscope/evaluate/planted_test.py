from __future__ import annotations

import pytest
import torch

from convscope.evaluate.planted import BACKGROUNDS, OBJECTS, REACH, SIDE, finds, planted, scenes, train
from convscope.intervals import Interval
from convscope.results import Comparison


def test_scenes_are_drawn_by_the_seed_and_say_what_is_in_them() -> None:
    one, two = scenes(40, seed=3), scenes(40, seed=3)
    assert torch.equal(one.images, two.images)
    assert not torch.equal(one.images, scenes(40, seed=4).images)
    assert one.images.shape == (40, 3, SIDE, SIDE)
    assert float(one.images.min()) >= 0
    assert float(one.images.max()) <= 1
    assert set(one.objects.tolist()) == set(range(len(OBJECTS)))
    assert set(one.backgrounds.tolist()) == set(range(len(BACKGROUNDS)))
    assert torch.equal(one.labels("both"), 4 * one.objects + one.backgrounds)
    areas = one.masks.flatten(1).sum(1)
    assert int(areas.min()) > 30
    assert int(areas.max()) < 4 * (1.15 * REACH) ** 2 + 1


def test_masks_are_the_shapes() -> None:
    """A disc's pixels by the distance to its centre of mass, one by one."""
    given = scenes(60, seed=0)
    for mask in given.masks[given.objects == 0][:5]:
        places = mask.nonzero().double()
        centre, reach = places.mean(0), (float(mask.sum()) / torch.pi) ** 0.5
        distances = (places - centre).norm(dim=1)
        assert float(distances.max()) < reach + 1.2
        outside = ((~mask).nonzero().double() - centre).norm(dim=1)
        assert float(outside.min()) > reach - 1.2


def test_only_what_is_asked_for_differs() -> None:
    """Without noise and texture a disc is of one colour inside its mask."""
    given = scenes(60, seed=0)
    place = int((given.objects == 0).nonzero()[0])
    inside = given.images[place][:, given.masks[place]]
    assert float(inside.std(1).max()) < 0.05
    outside = given.images[place][:, ~given.masks[place]]
    assert float(outside.std(1).max()) > 0.05


def test_finding_the_cause_in_words() -> None:
    def sure(low: float, high: float) -> Interval:
        return Interval((low + high) / 2, low, high)

    above, below, around = sure(0.3, 0.4), sure(0.05, 0.08), sure(0.1, 0.2)
    assert finds({"object": above, "background": below, "difference": sure(0.2, 0.3)}, 0.15) == "yes"
    assert finds({"object": above, "background": around, "difference": sure(0.1, 0.3)}, 0.15) == "partly"
    assert finds({"object": above, "background": around, "difference": sure(-0.1, 0.3)}, 0.15) == "no"
    assert finds({"object": around, "background": around, "difference": sure(0.01, 0.3)}, 0.15) == "no"


def test_training_is_repeatable_and_leaves_the_generators() -> None:
    given = scenes(64)
    state = torch.get_rng_state()
    one, two = (train("object", given, steps=3).module.state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


@pytest.fixture(scope="module")
def found() -> Comparison:
    methods = "gradcam, occlusion window=8 stride=4, integrated-gradients steps=16, layercam, saliency rule=guided"
    return planted(methods, pictures=48, training=1000, steps=100)


@pytest.mark.slow
def test_the_networks_learn_their_tasks(found: Comparison) -> None:
    assert min(found.summaries[0]["accuracy"].values()) > 0.9


@pytest.mark.slow
def test_right_methods_find_the_planted_cause(found: Comparison) -> None:
    area = found.summaries[0]["object_area"]
    shares = dict(zip(found.methods, found.values.tolist(), strict=True))
    for name in ("gradcam", "occlusion window=8 stride=4", "layercam", "integrated-gradients steps=16"):
        of_object, of_background, difference, of_both = shares[name]
        assert of_object > 1.5 * area, name
        assert of_object > of_both > of_background, name
        assert difference == pytest.approx(of_object - of_background)
    for name in ("gradcam", "occlusion window=8 stride=4", "layercam"):
        assert shares[name][1] < 0.8 * area, name
    verdicts = {str(row[0]): row[-1] for row in found.rows}
    assert verdicts["gradcam"] == verdicts["occlusion window=8 stride=4"] == "yes"
    assert verdicts["(noise)"] == verdicts["(middle)"] == "no"
    assert shares["(noise)"][0] == pytest.approx(area, abs=0.02)
