"""Whole HTML documents, which ask the network for nothing: a shell for every page, and the page of one result."""

from __future__ import annotations

import json
from importlib.resources import files

from convscope.results import Result
from convscope.views.embed import escape
from convscope.views.sheet import heading, sentence

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def shell(title: str, body: str, style: str, *, head: str = "", policy: str = POLICY) -> str:
    """An HTML document: the ``title`` is text; ``head`` and ``body`` are HTML, which ``policy`` must allow."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape(title)}</title>
<style>
{style}</style>
{head}
</head>
<body>
{body}
</body>
</html>
"""


def document(result: Result, body: str, *, head: str = "", policy: str = POLICY) -> str:
    """The document around ``body``; ``head`` is HTML that goes into its head, which ``policy`` must allow."""
    said = heading(result)
    title = said.title or type(result).__name__
    lead = "".join(f"<p>{escape(line)}</p>" for line in (said.claim, said.under) if line)
    notes = "".join(f"<li>{escape(sentence(note))}</li>" for note in result.notes)
    parts = [
        f"<header><h1>{escape(title)}</h1>{lead}</header>",
        f"<main>{body}</main>",
        f'<ul class="notes">{notes}</ul>' if notes else "",
        _made(result),
    ]
    return shell(title, "\n".join(filter(None, parts)), _style(), head=head, policy=policy)


def _style() -> str:
    package = files("convscope.views")
    return "".join(package.joinpath(name).read_text(encoding="utf-8") for name in ("document.css", "fragments.css"))


def _made(result: Result) -> str:
    if result.provenance is None:
        return ""
    recipe = json.dumps(json.loads(result.recipe()), indent=2)
    return f"<details><summary>How it was made</summary><pre>{escape(recipe)}</pre></details>"
