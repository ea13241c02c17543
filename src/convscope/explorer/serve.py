"""Starting the server: a free port, a browser, an end without noise."""

from __future__ import annotations

import socket
import threading
import webbrowser
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from convscope.errors import OptionError
from convscope.explorer.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console


def serve(settings: Settings, console: Console, *, browser: bool) -> None:
    """Serve until Ctrl-C. OptionError for a port that is taken or an address that is not this machine's."""
    import uvicorn

    from convscope.explorer.app import create_app

    with closing(_listening(settings)) as place:
        settings = replace(settings, port=place.getsockname()[1])
        console.print(f"convscope explore: loading {settings.loaded.get('network', 'builtin')}", markup=False)
        app = create_app(settings)
        config = uvicorn.Config(app, log_level="warning", timeout_keep_alive=15, timeout_graceful_shutdown=2)
        console.print(f"open {address(settings)} in a browser; Ctrl-C ends it", markup=False, soft_wrap=True)
        if browser:
            threading.Timer(0.6, webbrowser.open, [address(settings)]).start()
        uvicorn.Server(config).run([place])


def address(settings: Settings) -> str:
    """What to open."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}/" + (f"?token={settings.token}" if settings.token else "")


def _listening(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    place = socket.socket(family, socket.SOCK_STREAM)
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        place.bind((settings.host, settings.port))
        place.listen(128)
    except OSError as error:
        place.close()
        remedy = (
            "another program has it; choose another with --port, or 0 for a free one"
            if settings.port
            else "choose another --host"
        )
        raise OptionError(f"cannot listen on {settings.host}:{settings.port} ({error.strerror}): {remedy}") from error
    return place
