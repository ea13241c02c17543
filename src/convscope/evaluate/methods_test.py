from __future__ import annotations

import pytest
import torch

from convscope import registry
from convscope.errors import OptionError
from convscope.evaluate.methods import CONTROLS, Method, all_methods, makes_heatmaps, methods_of
from convscope.evaluate.sample import Sample
from convscope.network import Network
from convscope.techniques.attribute.saliency import saliency


def test_methods_are_names_with_options_behind_them() -> None:
    found = methods_of("saliency, saliency rule=guided  reduce=l2,gradcam,, gradcam")
    assert found == [Method("saliency"), Method("saliency", {"rule": "guided", "reduce": "l2"}), Method("gradcam")]
    assert [m.name for m in found] == ["saliency", "saliency rule=guided reduce=l2", "gradcam"]
    assert methods_of([m.name for m in found]) == found
    assert methods_of([("occlusion", {"window": 8, "stride": 4})]) == [Method("occlusion", {"window": 8, "stride": 4})]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("salience", "there is no technique 'salience'; did you mean 'saliency'"),
        ("classify", "classify makes no heat map; those that do: saliency"),
        ("saliency rule", "'rule' is no option; write NAME=VALUE"),
        ("saliency rule=", "is no option"),
        ("saliency rule=odd", "saliency: rule should be 'plain', 'deconvnet' or 'guided', not 'odd'"),
        ("saliency size=3", "saliency has no option 'size'"),
        ("saliency target=3", "leave target out"),
        (" , ", "no method is named"),
    ],
)
def test_what_is_no_method_gets_one_sentence(text: str, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        methods_of(text)
    assert said in str(caught.value)


def test_everything_that_makes_heat_maps_qualifies_and_nothing_else() -> None:
    names = {m.technique for m in all_methods()}
    assert {"saliency", "gradcam", "occlusion", "guided-gradcam", "integrated-gradients"} <= names
    assert not names & {"classify", "layers", "filters", "neuron", "layerwise"}
    assert names == {name for name in registry.discover() if makes_heatmaps(registry.load(name))}


def test_a_method_asks_about_the_classes_that_it_is_given(given: Sample, network: Network) -> None:
    options = {"signed": "true", "reduce": "sum"}
    found = Method("saliency", options)(network, given.images, [2, 1, 0, 3] * 2)
    expected = saliency(network, given.images, target=[2, 1, 0, 3] * 2, signed=True, reduce="sum").values
    torch.testing.assert_close(found, expected)


def test_controls_know_nothing_of_the_network(given: Sample, network: Network) -> None:
    for control in CONTROLS:
        found = control(network, given.images, given.targets)
        assert found.shape == (8, 16, 16)
        assert torch.equal(found, control(network, 1 - given.images, [0] * 8))
    middle = CONTROLS[1](network, given.images, given.targets)[0]
    assert middle[7:9, 7:9].min() == middle.max()
    assert middle[0, 0] == middle.min()
