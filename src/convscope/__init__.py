"""convscope: what a convolutional network has learned, and why it decided as it did.

    import convscope
    network = convscope.load_network("builtin")
    image = network.prepare(convscope.read_image("cat.jpg"))
    convscope.saliency(network, image).save("saliency.png")

Every technique is a function of this package, of its command's name with underscores. Nothing is imported before it
is used. Editors and type checkers know those below; techniques of other packages are found as well.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convscope.backward import DECONVNET as DECONVNET
    from convscope.backward import GUIDED as GUIDED
    from convscope.backward import PLAIN as PLAIN
    from convscope.backward import gradient as gradient
    from convscope.errors import ConvscopeError as ConvscopeError
    from convscope.errors import ImageError as ImageError
    from convscope.errors import NetworkError as NetworkError
    from convscope.hooks import OUTPUT as OUTPUT
    from convscope.hooks import observe as observe
    from convscope.images import read_image as read_image
    from convscope.index import Index as Index
    from convscope.index import open_index as open_index
    from convscope.monitor import LightningMonitor as LightningMonitor
    from convscope.monitor import Monitor as Monitor
    from convscope.network import Network as Network
    from convscope.registry import technique as technique
    from convscope.reporting.report import report as report
    from convscope.scanning import scan as scan
    from convscope.techniques.attribute.ablationcam import ablationcam as ablationcam
    from convscope.techniques.attribute.cam import cam as cam
    from convscope.techniques.attribute.deeplift import deeplift as deeplift
    from convscope.techniques.attribute.eigencam import eigencam as eigencam
    from convscope.techniques.attribute.expected_gradients import expected_gradients as expected_gradients
    from convscope.techniques.attribute.extremal_perturbation import extremal_perturbation as extremal_perturbation
    from convscope.techniques.attribute.gradcam import gradcam as gradcam
    from convscope.techniques.attribute.gradcam_pp import gradcam_pp as gradcam_pp
    from convscope.techniques.attribute.gradient_x_input import gradient_x_input as gradient_x_input
    from convscope.techniques.attribute.guided_gradcam import guided_gradcam as guided_gradcam
    from convscope.techniques.attribute.hirescam import hirescam as hirescam
    from convscope.techniques.attribute.integrated_gradients import integrated_gradients as integrated_gradients
    from convscope.techniques.attribute.layercam import layercam as layercam
    from convscope.techniques.attribute.layerwise import layerwise as layerwise
    from convscope.techniques.attribute.localize import localize as localize
    from convscope.techniques.attribute.lrp import lrp as lrp
    from convscope.techniques.attribute.neuron import neuron as neuron
    from convscope.techniques.attribute.occlusion import occlusion as occlusion
    from convscope.techniques.attribute.rise import rise as rise
    from convscope.techniques.attribute.saliency import saliency as saliency
    from convscope.techniques.attribute.scorecam import scorecam as scorecam
    from convscope.techniques.attribute.segment import segment as segment
    from convscope.techniques.attribute.smoothgrad import smoothgrad as smoothgrad
    from convscope.techniques.attribute.vargrad import vargrad as vargrad
    from convscope.techniques.attribute.xgradcam import xgradcam as xgradcam
    from convscope.techniques.dataset.attributes import attributes as attributes
    from convscope.techniques.dataset.correspond import correspond as correspond
    from convscope.techniques.dataset.directions import directions as directions
    from convscope.techniques.dataset.embed import embed as embed
    from convscope.techniques.dataset.health import health as health
    from convscope.techniques.dataset.neighbors import neighbors as neighbors
    from convscope.techniques.dataset.patches import patches as patches
    from convscope.techniques.dataset.strategies import strategies as strategies
    from convscope.techniques.look.activations import activations as activations
    from convscope.techniques.look.classify import classify as classify
    from convscope.techniques.look.filters import filters as filters
    from convscope.techniques.look.gradients import gradients as gradients
    from convscope.techniques.look.layers import layers as layers
    from convscope.techniques.robustness.beside import beside as beside
    from convscope.techniques.robustness.deepfool import deepfool as deepfool
    from convscope.techniques.robustness.defend import defend as defend
    from convscope.techniques.robustness.few_pixel import few_pixel as few_pixel
    from convscope.techniques.robustness.fgsm import fgsm as fgsm
    from convscope.techniques.robustness.fool import fool as fool
    from convscope.techniques.robustness.humans import humans as humans
    from convscope.techniques.robustness.linear import linear as linear
    from convscope.techniques.robustness.patch import patch as patch
    from convscope.techniques.robustness.pgd import pgd as pgd
    from convscope.techniques.robustness.shape_bias import shape_bias as shape_bias
    from convscope.techniques.robustness.universal import universal as universal
    from convscope.techniques.synthesize.dream import dream as dream
    from convscope.techniques.synthesize.facets import facets as facets
    from convscope.techniques.synthesize.invert import invert as invert
    from convscope.techniques.synthesize.style import style as style
    from convscope.techniques.synthesize.stylize import stylize as stylize
    from convscope.techniques.synthesize.texture import texture as texture
    from convscope.techniques.synthesize.visualize import visualize as visualize
    from convscope.zoo import load_network as load_network

__version__ = _version("convscope")

_PUBLIC = {
    "OUTPUT": "hooks",
    "observe": "hooks",
    "ConvscopeError": "errors",
    "ImageError": "errors",
    "NetworkError": "errors",
    "DECONVNET": "backward",
    "GUIDED": "backward",
    "PLAIN": "backward",
    "gradient": "backward",
    "read_image": "images",
    "Index": "index",
    "open_index": "index",
    "LightningMonitor": "monitor",
    "Monitor": "monitor",
    "Network": "network",
    "technique": "registry",
    "report": "reporting.report",
    "scan": "scanning",
    "load_network": "zoo",
}


def _found(name: str) -> Any:
    if name == "__all__":
        return __dir__()
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"convscope.{_PUBLIC[name]}"), name)
    command = name.replace("_", "-")
    if not name.startswith("_") and command in importlib.import_module("convscope.registry").discover():
        return importlib.import_module("convscope.registry").load(command)
    raise AttributeError(f"module 'convscope' has no attribute {name!r}")


if not TYPE_CHECKING:  # for which a name that is not above is a mistake
    __getattr__ = _found


def __dir__() -> list[str]:
    techniques = importlib.import_module("convscope.registry").discover()
    return sorted({"__version__", *_PUBLIC, *(name.replace("-", "_") for name in techniques)})
