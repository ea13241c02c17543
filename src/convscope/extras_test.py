"""A missing optional dependency is answered with the command that brings it."""

from __future__ import annotations

from pathlib import Path

import pytest

from convscope.errors import MissingExtra, OutputError
from convscope.extras import require, summary_writer


def test_what_is_there_is_imported() -> None:
    assert require("json.decoder", "zoo").JSONDecoder


def test_a_missing_package_names_the_exact_command() -> None:
    with pytest.raises(MissingExtra, match=r"this needs no_such_package: pip install 'convscope\[zoo\]'"):
        require("no_such_package.models", "zoo")


def test_what_a_present_package_misses_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_another.py").write_text("import no_such_package")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        require("needs_another", "zoo")


def test_a_folder_that_cannot_be_made_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/runs cannot be made \(.*\); choose another folder"):
        summary_writer(tmp_path / "file" / "runs")
