"""Results: files, JSON, and nothing half-written."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from convscope.errors import OutputError
from convscope.results import Heatmap, Provenance, Result, settle

VALUES = torch.tensor([[[0.5, -1.0], [2.0, 0.0]]])


def heat(values: torch.Tensor = VALUES) -> Heatmap:
    images = torch.full((len(values), 3, 2, 2), 0.25)
    summaries = [{"maximum": float(v.max())} for v in values]
    return Heatmap(values=values, images=images, signed=True, quantity="score", summaries=summaries)


def provenance() -> Provenance:
    return Provenance("test", {"gain": 2.0}, "net", "random", "conv1", 7, "float32", "cpu", ("a.jpg",), {"torch": "2"})


def test_settling_detaches_and_adds_provenance() -> None:
    result = settle(dataclasses.replace(heat(), values=VALUES.clone().requires_grad_() * 1), provenance())
    assert result.values.grad_fn is None
    assert result.provenance == provenance()


def test_one_summary_is_an_object_and_several_are_a_list() -> None:
    one = json.loads(settle(heat(), provenance()).to_json())
    assert one["maximum"] == 2.0
    assert one["provenance"]["options"] == {"gain": 2.0}
    assert one["provenance"]["seed"] == 7
    several = json.loads(settle(heat(torch.cat([VALUES, -VALUES])), provenance()).to_json())
    assert [o["maximum"] for o in several] == [2.0, 1.0]


def test_the_raw_file_holds_values_images_and_provenance(tmp_path: Path) -> None:
    path = settle(heat(), provenance()).save(tmp_path / "raw.npz")
    with np.load(path) as saved:
        np.testing.assert_array_equal(saved["values"], VALUES.numpy())
        np.testing.assert_array_equal(saved["images"], np.full((1, 3, 2, 2), 0.25, np.float32))
        assert json.loads(str(saved["provenance"]))["layer"] == "conv1"


def test_json_file(tmp_path: Path) -> None:
    path = settle(heat(), provenance()).save(tmp_path / "summary.json")
    assert json.loads(path.read_text())["provenance"]["technique"] == "test"


def test_an_unknown_suffix_names_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"must end in one of \.jpeg, \.jpg, \.json, \.npz"):
        heat().save(tmp_path / "map.bmpx")
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        heat().save(tmp_path / "nowhere" / "map.npz")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_nothing_and_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    old = tmp_path / "map.png"
    old.write_bytes(b"old")

    def breaks(_: Result) -> None:
        raise error

    monkeypatch.setattr(Result, "views", staticmethod(breaks))
    with pytest.raises(error):
        heat().save(old)
    assert [p.name for p in tmp_path.iterdir()] == ["map.png"]
    assert old.read_bytes() == b"old"


def test_values_can_be_had_as_an_array() -> None:
    np.testing.assert_array_equal(heat().numpy(), VALUES.numpy())
