"""What MkDocs fills in while it builds: the page of benchmarks, from whatever results there are."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

MARKER = "<!-- the tables, from benchmarks/results -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the tables where the marker stands."""
    return markdown.replace(MARKER, _measured().sections()) if MARKER in markdown else markdown


def _measured() -> Any:
    """``docs/measured.py``, which lies beside this file and in no package."""
    spec = importlib.util.spec_from_file_location("measured", Path(__file__).with_name("measured.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
