"""Receptive fields: which pixels of the picture a unit of any layer can see.

One real forward pass is followed operator by operator, so that any Python code may stand between the picture and the
layer: functional calls, branches, concatenation, residuals, upsampling, crops, shifts, windows, token grids::

    with Tracer(images) as tracer, torch.no_grad():
        activation = module.layer4(module.stem(images))
    field = tracer.field(activation)
    field.size            # (427, 427) rows and columns for a ResNet-50, whatever the size of the picture
    field.box(3, 4)       # (top, left, bottom, right) of the pixels that the unit in row 3, column 4 really sees

For every tensor the tracer keeps the interval of rows and the interval of columns that each index depends on, in two
versions. The *exact* one ends where the picture ends: padding shows nothing. The *nominal* one goes on beyond the
border, each padded tap one jump further than its neighbour, as if the plane were tiled with the picture; it gives the
textbook size (Araujo, Norris and Sim 2019, "Computing Receptive Fields of Convolutional Neural Networks", Distill).

Exact means the smallest box around the pixels that reach the unit through the operators, whatever the weights are: a
weight of zero counts. An operator without a rule is taken to see the whole picture and is named in ``inexact``, and so
is a place where the network reads a tensor as a Python number and the trace ends. What leaves torch altogether (through
numpy, say) and comes back is a constant to the tracer. Hulls that would need more than LIMIT intervals to be written
out, as the map of every query against every key, are taken a little wider.
"""

from __future__ import annotations

from convscope.receptive_field.fields import Layout, ReceptiveField
from convscope.receptive_field.tracer import Tracer

__all__ = ["Layout", "ReceptiveField", "Tracer"]
