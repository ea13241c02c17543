from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from matplotlib.figure import Figure

from convscope import views
from convscope.errors import OutputError
from convscope.results import Heatmap, Result


@pytest.mark.slow
def test_a_result_draws_itself_though_nothing_else_was_imported() -> None:
    code = (
        "import torch; from convscope.results import Table\n"
        "found = Table(values=torch.zeros(1), summaries=[{}], columns=['a'], rows=[['b']])\n"
        "assert found.figure() and '<table' in found.page()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_results_draw_themselves() -> None:
    result = Heatmap(
        values=torch.rand(1, 8, 8), summaries=[{}], images=torch.rand(1, 3, 8, 8), signed=False, quantity="score"
    )
    assert isinstance(result.figure(), Figure)
    assert result.picture().size[0] > 400
    assert "matplotlib.pyplot" not in sys.modules or sys.modules["matplotlib.pyplot"].get_fignums() == []


@dataclass(frozen=True, kw_only=True)
class Odd(Result):
    """A kind that convscope does not know."""


def test_an_unknown_kind_says_what_to_do_and_can_be_registered() -> None:
    result = Odd(values=torch.zeros(1), summaries=[{}])
    with pytest.raises(OutputError, match=r"nothing draws a Odd; register a function for it with"):
        views.figure(result)
    views.figure.register(Odd, lambda result, theme=views.LIGHT: Figure())
    assert isinstance(result.figure(), Figure)
    assert 'alt="Picture of Odd"' in views.html(result)
