"""pytorch-grad-cam, where it is right, as a judge of the CAM family.

It is not among the tools that the tests need, but in the extra ``bench``: it brings OpenCV with windows, which does not
stand beside the one without that `segment` takes. Without it these tests are skipped.

Not compared, since they do something else: pytorch-grad-cam's Eigen-CAM centres the activations, which the paper does
not, its Score-CAM enlarges them with aligned corners, and maps come back without their negative parts and scaled; so
they are taken before that.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from convscope.network import Network
from convscope.registry import load
from convscope.zoo.torchvision_models import import_torchvision

pytest_plugins = "convscope.techniques.attribute._examples_test"
TARGETS = [2, 0, 1]


def their_cells(name: str, network: Network, pictures: Tensor, layer: str) -> Tensor:
    """pytorch-grad-cam's maps (N, h, w) as it computes them, before it cuts and scales them."""
    import_torchvision()  # which they import, and which may not fit torch
    theirs = pytest.importorskip("pytorch_grad_cam")
    targets = [theirs.utils.model_targets.ClassifierOutputTarget(target) for target in TARGETS]
    module = copy.deepcopy(network.module).requires_grad_(True)
    method = getattr(theirs, name)(module, [module.get_submodule(layer)])
    made: list[Any] = []
    compute = method.get_cam_image
    method.get_cam_image = lambda *given: made.append(compute(*given)) or made[-1]
    method(network.normalise(pictures), targets)
    return torch.from_numpy(made[0]).float()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("gradcam", "GradCAM"), ("gradcam-pp", "GradCAMPlusPlus"), ("xgradcam", "XGradCAM"),
        ("layercam", "LayerCAM"), ("hirescam", "HiResCAM"),
    ],
)  # fmt: skip
def test_equal_pytorch_grad_cams(ours: str, theirs: str, deep: Network, pictures: Tensor) -> None:
    with torch.no_grad():
        deep.module.get_submodule("fc2").weight.mul_(1000)  # their Grad-CAM++ adds a millionth to squares of slopes
    for layer in ("relu1", "relu2"):
        found = load(ours)(deep, pictures, target=TARGETS, layer=layer).cells
        expected = their_cells(theirs, deep, pictures, layer)
        assert found.abs().max() > 0
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(found.abs().max()))


def test_ablation_cam_is_theirs_times_the_score(deep: Network, pictures: Tensor) -> None:
    found = load("ablationcam")(deep, pictures, target=TARGETS, layer="relu2").cells
    scores = deep(pictures)[torch.arange(3), torch.tensor(TARGETS)]
    expected = their_cells("AblationCAM", deep, pictures, "relu2") * scores[:, None, None]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(found.abs().max()))
