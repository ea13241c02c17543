from __future__ import annotations

import html
import re
from html.parser import HTMLParser

import pytest

from convscope.reporting.page import Chapter, Opening, Section, by_family, page

VOID = {"meta", "img", "source", "br", "hr", "link", "input"}


class Reader(HTMLParser):
    """Checks that tags are closed in order and gathers what a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.identifiers: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.tags: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        assert len(given) == len(attributes), f"<{tag}> has an attribute twice"
        self.tags.append(tag)
        self.fetched += [str(given[name]) for name in ("src", "srcset", "poster", "data", "action") if name in given]
        if tag == "a":
            self.links.append(str(given["href"]))
        elif "href" in given:
            self.fetched.append(str(given["href"]))
        if "id" in given:
            self.identifiers.append(str(given["id"]))
        if tag == "img":
            self.images.append(given)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check(text: str) -> Reader:
    """Well-formed, self-contained, described, and every link within the page leads somewhere."""
    read = Reader(text)
    assert all(address.startswith("data:image/") for address in read.fetched)
    assert not re.findall(r"url\(|@import", text)
    assert "script" not in read.tags
    assert all(image.get("alt") for image in read.images)
    assert len(set(read.identifiers)) == len(read.identifiers)
    inside = [link[1:] for link in read.links if link.startswith("#")]
    assert set(inside) <= set(read.identifiers)
    return read


@pytest.fixture
def sections() -> list[Section]:
    return [
        Section(
            "grad-cam", "attribute", "Where it looked.", '<p class="x">body</p>', "see this", "not that",
            "Somebody 2017, arXiv:1610.02391, section 3; doi:10.23915/distill.00021", "convscope grad-cam PHOTO.jpg",
            "import convscope", ["picture 1: constant"],
        ),
        Section("layers", "look", "What runs.", error="This one failed: <no> & never"),
        Section("other", "elsewhere", "From outside."),
    ]  # fmt: skip


def test_the_page_is_well_formed_and_fetches_nothing(sections: list[Section]) -> None:
    read = check(page("A title", "<p>Hello.</p>", by_family(sections)))
    assert set(read.links) - {link for link in read.links if link.startswith("#")} == {
        "https://arxiv.org/abs/1610.02391",
        "https://doi.org/10.23915/distill.00021",
    }


def test_sections_stand_under_the_questions_of_their_families_in_order(sections: list[Section]) -> None:
    text = page("A title", "", by_family(sections))
    places = [
        text.index(part)
        for part in (
            '<h2 id="family-look">What is inside?', '<article id="layers">', '<h2 id="family-attribute">Which pixels',
            '<article id="grad-cam">', '<h2 id="family-elsewhere">elsewhere', '<article id="other">',
        )
    ]  # fmt: skip
    assert places == sorted(places)


def test_every_part_of_a_section_is_said(sections: list[Section]) -> None:
    text = page("A title", "", by_family(sections))
    article = text[text.index('<article id="grad-cam">') :]
    article = article[: article.index("</article>")]
    for part in (
        "Where it looked.", '<p class="x">body</p>', "<b>What to see</b>see this",
        "<b>What it does not prove</b>not that", "<code>convscope grad-cam PHOTO.jpg</code>",
        "<code>import convscope</code>", "<li>Picture 1: constant</li>",
    ):  # fmt: skip
        assert part in article


def test_a_heading_and_how_to_read_its_picture_are_one_block_that_paper_does_not_break(
    sections: list[Section],
) -> None:
    text = page("A title", "", by_family(sections))
    head = text[text.index('<div class="head"><h3><a href="#grad-cam">') :].partition("</div>\n")[0]
    assert "Where it looked." in head
    assert "<b>What it does not prove</b>not that" in head


def test_a_failed_technique_says_why(sections: list[Section]) -> None:
    assert '<p class="failed">This one failed: &lt;no&gt; &amp; never</p>' in page("A title", "", by_family(sections))


def test_text_is_escaped_everywhere() -> None:
    evil = '"><script>alert(1)</script>&'
    section = Section(evil, "look", evil, "", evil, evil, evil, evil, evil, [evil], "")
    text = page(evil, "", by_family([section]))
    check(text)
    assert "<script" not in text
    assert text.count(html.escape(evil)) >= 9


def test_both_colour_schemes_and_paper_are_thought_of() -> None:
    text = page("t", "", [])
    assert "@media screen and (prefers-color-scheme: dark) {" in text  # the type first, else browsers ignore it
    assert "@media print" in text
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert "default-src 'none'" in text


def test_a_verdict_stands_at_the_picture_and_a_doubtful_one_is_marked() -> None:
    text = page("A title", "", by_family([
        Section("one", "attribute", "A.", "<p>body</p>", verdict="Depends on <it>: by 0.1."),
        Section("two", "attribute", "B.", "<p>body</p>", verdict="Hardly depends: by 0.9.", doubtful=True),
    ]))  # fmt: skip
    check(text)
    assert '<p class="verdict"><b>Depends on &lt;it&gt;</b>By 0.1.</p></div>\n<p>body</p>' in text
    assert '<p class="verdict doubtful"><b>Hardly depends</b>By 0.9.</p></div>\n<p>body</p>' in text


def test_sections_of_one_name_stand_in_several_chapters_with_a_title_of_their_own() -> None:
    chapters = [
        Chapter(
            f"<{name}>", [Section("fool", "robustness", "A.", title="How little", within=name)], name, "<p>lead</p>"
        )
        for name in ("one", "two")
    ]
    read = check(
        text := page("A title", "", chapters, opening=Opening("<figure></figure>", "<p>words</p>"), end="<p>e</p>")
    )
    assert read.identifiers == ["one", "one-fool", "two", "two-fool"]
    assert text.count('<a href="#two-fool">How little</a>') == 2
    assert text.index("&lt;two&gt;</h2>") < text.index("<p>lead</p>", text.index("&lt;two&gt;</h2>"))
    assert text.index("<h1>A title</h1>") < text.index("<p>words</p>") < text.index("<nav") < text.index("<p>e</p>")
