from __future__ import annotations

import re
from pathlib import Path

import torch

from convscope.results import Heatmap, Pictures
from convscope.views import page


def test_a_result_becomes_a_document_that_needs_nothing_beside_it(provenance, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = Heatmap(
        values=torch.rand(1, 8, 8), summaries=[{}], images=torch.rand(1, 3, 8, 8), signed=False, quantity="score",
        notes=["it is <b>flat</b>"], provenance=provenance(photographs=["<i>.jpg"]),
    )  # fmt: skip
    text = result.save(tmp_path / "map.html").read_text()
    assert text == page(result)
    assert text.startswith("<!doctype html>")
    assert "default-src 'none'" in text
    assert "It is &lt;b&gt;flat&lt;/b&gt;." in text
    assert "<i>.jpg" not in text
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "&quot;technique&quot;: &quot;saliency&quot;" in text


def test_without_provenance_the_kind_is_the_title() -> None:
    result = Pictures(values=torch.rand(1), tiles=torch.rand(1, 2, 3, 4, 4), summaries=[{}])
    assert "<title>Pictures</title>" in page(result)
