"""The built-in network's architecture: the classical shape that the literature's figures are about.

A 7x7 first layer on RGB, blocks of 3x3 convolution, ReLU and max-pooling, then a fully connected ReLU
code layer (``fc5``) before the classifier (``fc6``), after AlexNet (Krizhevsky 2012) and VGG (Simonyan 2014).
Training puts a batch norm behind every convolution; the exported network has it folded into the weights.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

#: output channels of the convolutions of each 3x3 block; a block ends in a 2x2 max-pool
BLOCKS: tuple[tuple[int, ...], ...] = ((96, 96), (192, 192), (256, 256, 256))
#: units of the code layer when training starts; those that stay silent are cut off at export
CODE = 512


def build(classes: int = 100, *, code: int = CODE, batch_norm: bool = False, dropout: float = 0.0) -> nn.Sequential:
    """The network as one chain of named layers; pictures of any size from 64 px up go in, (N, classes) logits come out.

    ``batch_norm`` and ``dropout`` are for training; the exported network has neither.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()

    def convolution(name: str, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        layers[f"conv{name}"] = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=not batch_norm)
        if batch_norm:
            layers[f"norm{name}"] = nn.BatchNorm2d(outputs)
        layers[f"relu{name}"] = nn.ReLU(inplace=True)

    convolution("1", 3, 64, 7, 2)
    layers["pool1"] = nn.MaxPool2d(3, 2, 1)
    channels = 64
    for block, widths in enumerate(BLOCKS, start=2):
        for step, width in enumerate(widths, start=1):
            convolution(f"{block}_{step}", channels, width, 3, 1)
            channels = width
        layers[f"pool{block}"] = nn.MaxPool2d(2)
    layers["average"] = nn.AdaptiveAvgPool2d(2)
    layers["flatten"] = nn.Flatten()
    layers["fc5"] = nn.Linear(channels * 4, code)
    layers["relu5"] = nn.ReLU(inplace=True)
    if dropout:
        layers["dropout"] = nn.Dropout(dropout)
    layers["fc6"] = nn.Linear(code, classes)
    return nn.Sequential(layers)
