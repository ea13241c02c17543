"""The page of an embedding: all of it inside, nothing from outside, and nothing that a file's name could break."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from convscope.views import page
from convscope.views.embedding_test import embedding

pytest.importorskip("bokeh")


@pytest.fixture(scope="module")
def text() -> str:
    return page(embedding())


def documents(text: str) -> str:
    """What Bokeh embeds as JSON."""
    return "".join(re.findall(r"const docs_json = '(.*?)';", text))


def test_everything_is_inside_and_the_policy_forbids_the_rest(text: str) -> None:
    assert "default-src 'none'" in text
    assert not re.search(r"<(script|link)[^>]*\s(src|href)=", text)
    assert text.count("data:image/webp;base64,") >= 3


def test_names_and_groups_and_pictures_are_in_the_data(text: str) -> None:
    held = documents(text)
    assert all(name in held for name in ("a.jpg", "b.jpg", "ant", "bee", "taken for"))


def test_a_name_cannot_end_the_script(text: str) -> None:
    assert "</script>c.jpg" not in text


def test_save_writes_the_page(tmp_path: Path) -> None:
    path = embedding().save(tmp_path / "plane.html")
    assert path.read_text().startswith("<!doctype html>")
    assert json.loads(embedding().to_json())["trustworthiness"] == 0.9
