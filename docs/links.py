"""Links of Markdown pages: what they name, and whether it is there. Nothing is asked of the network."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parent.parent
CODE = re.compile(r"^(```|~~~).*?^\1\s*$|`[^`\n]*`", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^()\s]*(?:\([^()\s]*\)[^()\s]*)*)(?:\s+\"[^\"]*\")?\)")
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
HOST = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+$", re.IGNORECASE)


def pages() -> list[Path]:
    """Every page that a reader may open."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def links(text: str) -> Iterator[str]:
    """The addresses that a page names, pictures included; none of its code."""
    return (found[1] for found in LINK.finditer(CODE.sub("", text)))


def anchors(text: str) -> set[str]:
    """What can stand behind ``#``: the headings, as Python-Markdown's table of contents names them."""
    found: dict[str, int] = {}
    names = []
    for heading in HEADING.finditer(re.sub(r"^(```|~~~).*?^\1\s*$", "", text, flags=re.DOTALL | re.MULTILINE)):
        name = slug(heading[1])
        names.append(f"{name}_{found[name]}" if name in found else name)
        found[name] = found.get(name, 0) + 1
    return set(names)


def slug(heading: str) -> str:
    """A heading without its marks and signs, in small letters, joined by ``-``."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
    plain = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


def wrong(page: Path) -> list[str]:
    """Every link of a page that leads nowhere, with the reason; of other sites only how they are written."""
    return [
        f"{page.relative_to(ROOT)}: {link}: {why}"
        for link in links(page.read_text("utf-8"))
        if (why := _why(page, link))
    ]


def _why(page: Path, link: str) -> str:
    parts = urlsplit(link)
    if parts.scheme:
        well = parts.scheme == "https" and HOST.fullmatch(parts.netloc) and parts.port is None
        return "" if well else "not a well-formed https address"
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not target.exists():
        return "no such file"
    if ROOT not in target.parents:
        return "outside the repository"
    if parts.fragment and parts.fragment not in anchors(target.read_text("utf-8")):
        return "no such heading"
    return ""
