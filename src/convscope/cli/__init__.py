"""The command line: a command for every technique of the registry, and a few beside them.

Data goes to standard output, progress and errors to standard error. Exit status 0, 1 when something failed, 2 when
the command was used wrongly.
"""

from __future__ import annotations

import sys
import typing

import click

from convscope.cli.group import main_group
from convscope.errors import ConvscopeError


def main() -> None:
    """Run the command line; every error is one line, with a remedy."""
    try:
        main_group.main(standalone_mode=False)
    except click.exceptions.Abort:
        _fail("interrupted; nothing was half-written")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted; nothing was half-written")
    except ConvscopeError as error:
        _fail(str(error))
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        _fail(f"unexpected {type(error).__name__}: {error}; --debug shows where, and we would like to know of it")


def _fail(message: str) -> typing.NoReturn:
    if "--debug" in sys.argv:
        raise  # the error being handled
    click.echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(1)
