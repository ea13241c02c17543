"""Forward passes over many altered copies of one picture, computing again only what the alteration changed.

Every copy differs from the picture inside one box. A convolution, a pool or a sum carries the change only a little
further, so its output is that of the clean picture except inside a box that grows from operator to operator. Only
that box is computed, for many copies at once, out of the clean activations around it, until it covers the map or
something global (pooling over the whole map, flattening, attention) needs whole maps: there the box is pasted into
the clean map, and the rest runs as usual. Nothing is approximated: the scores are those of full passes but for
rounding, and two of them are checked against full passes when a network first meets pictures of a size. A copy may
also differ in several boxes: each of them is followed by itself, with what the others changed pasted in around it::

    variations = Variations(network)
    outcome = variations.of(image, boxes=[(0, 0, 16, 16), (8, 8, 16, 16)], content=torch.zeros(3, 1, 1))
    outcome.logits      # (2, classes)
    outcome.engine      # "incremental", or "full" and outcome.reason
    outcome.saved       # share of the multiply-adds that were not needed

The network is followed operator by operator through two passes of blank pictures under ``functionalize``, so any
Python code may stand between picture and scores, and the module is not touched. What differs between a batch of two
and one of three tells which numbers mean the batch. Convolutions and matrix products are skipped in these passes:
only shapes count. A network whose course depends on what it computes cannot be followed so, nor can one that runs
outside torch; both get full passes. The idea is Krypton's (Nakandala, Kumar and Papakonstantinou, SIGMOD 2019).
"""

from __future__ import annotations

from convscope.perturb.picture import Box
from convscope.perturb.variations import Engine, Outcome, Variations, perturbed

__all__ = ["Box", "Engine", "Outcome", "Variations", "perturbed"]
