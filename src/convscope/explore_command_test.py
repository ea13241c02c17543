"""``convscope explore``: what it starts, and what it refuses to start."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from convscope.cli.commands.explore import COMMAND
from convscope.errors import OptionError
from convscope.explorer import serve
from convscope.explorer.settings import Settings


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """What would be served."""
    found: list[Settings] = []
    monkeypatch.setattr(serve, "serve", lambda settings, console, browser: found.append(settings))
    return found


def explore(*words: str) -> Result:
    return CliRunner().invoke(COMMAND, words)


def test_options_become_settings(started: list[Settings], tmp_path: Path) -> None:
    asked = explore("--port", "0", "--cache", str(tmp_path), "--cache-size", "0.5", "--memory", "1", "--seconds", "60")
    assert asked.exit_code == 0, asked.output
    (settings,) = started
    assert (settings.port, settings.cache, settings.kept) == (0, tmp_path, 2**29)
    assert (settings.memory, settings.seconds, settings.loaded["network"]) == (2**30, 60, "builtin")


def test_an_address_that_others_reach_needs_a_token(started: list[Settings]) -> None:
    refused = explore("--host", "0.0.0.0").exception
    assert isinstance(refused, OptionError)
    assert "--token" in str(refused)
    assert started == []
    assert explore("--host", "0.0.0.0", "--token", "secret").exit_code == 0


def test_an_index_whose_network_came_from_python_asks_where_that_is(
    started: list[Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = SimpleNamespace(provenance={"loaded": {}, "network": "shapes"})
    monkeypatch.setattr("convscope.index.open_index", lambda path: index)
    refused = explore(str(tmp_path)).exception
    assert isinstance(refused, OptionError)
    assert "shapes, which was handed over in Python; say where it is: --network" in str(refused)
    assert explore(str(tmp_path), "--network", "net.py:shapes").exit_code == 0
    assert started[0].loaded["network"] == "net.py:shapes"


def test_a_port_that_is_taken_is_an_error_with_the_remedy() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(OptionError, match="another program has it; choose another with --port"):
            serve._listening(Settings(port=other.getsockname()[1]))
