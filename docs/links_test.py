"""Every link of the pages leads somewhere."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from links import anchors, links, pages, slug, wrong


def test_every_link_leads_somewhere() -> None:
    found = [one for page in pages() for one in wrong(page)]
    assert not found, "\n".join(found)


def test_what_is_no_link_is_not_taken_for_one() -> None:
    text = '[a](b.md) `[no](c.md)`\n```sh\n[no](d.md)\n```\n![p](e.webp) [w](https://x.org/a_(b) "title")'
    assert list(links(text)) == ["b.md", "e.webp", "https://x.org/a_(b)"]


@pytest.mark.parametrize(("heading", "name"), [
    ("A million pictures, and a billion", "a-million-pictures-and-a-billion"),
    ("`convscope scan`: one *pass*", "convscope-scan-one-pass"),
    ("See [this](x.md) – twice", "see-this-twice"),
])  # fmt: skip
def test_headings_are_named_as_the_pages_name_them(heading: str, name: str) -> None:
    assert slug(heading) == name


def test_headings_in_code_are_none_and_the_second_of_a_name_is_counted() -> None:
    assert anchors("# One\n```\n# not\n```\n## Two\n## Two\n") == {"one", "two", "two_1"}


def test_wrong_links_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("links.ROOT", tmp_path)
    (tmp_path / "b.md").write_text("# There\n")
    page = tmp_path / "a.md"
    page.write_text("[1](b.md#there) [2](b.md#no) [3](c.md) [4](http://x.org) [5](https://x) [6](#self)\n# Self\n")
    assert [line.split(": ")[1] for line in wrong(page)] == ["b.md#no", "c.md", "http://x.org", "https://x"]
