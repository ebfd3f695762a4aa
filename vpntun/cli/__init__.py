"""Command line: its entry point, which turns errors into messages and exit statuses.

Each file in this folder has one group of commands (commands.py).
"""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from typing import NoReturn

import click

from vpntun.cli.command import vpntun
from vpntun.errors import VpntunError
from vpntun.runtime.log import complain, note_crash

STDIN, STDOUT, STDERR = range(3)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the program and exit with a status of vpntun/errors.py. `arguments`: by default those of the process."""
    _have_standard_streams()
    try:
        sys.exit(vpntun.main(arguments, prog_name="vpntun", standalone_mode=False))
    except click.ClickException as error:
        with suppress(OSError):
            error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(1)
    except VpntunError as error:
        complain(error)
        sys.exit(error.exit_status)
    except OSError as error:
        if not _was_raised_by_echo(error):
            note_crash()
            raise
        _give_up_stdout()
        complain(VpntunError(f"the output cannot be written: {error.strerror}"))
        sys.exit(VpntunError.exit_status)
    except Exception:
        note_crash()
        raise


def _was_raised_by_echo(error: OSError) -> bool:
    """Whether an error came from click, which prints everything, and so means that the output cannot be written."""
    *_, (innermost, _) = traceback.walk_tb(error.__traceback__)
    return str(innermost.f_globals.get("__name__")).startswith("click.")


def _give_up_stdout() -> None:
    """Redirect stdout to /dev/null: otherwise the interpreter would fail to write it once more when it exits."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, STDOUT)
    os.close(null)


def _have_standard_streams() -> None:
    """Open missing standard streams on /dev/null: otherwise the first files opened would be taken for them."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(descriptor)
    sys.stdin = sys.stdin or open(STDIN, closefd=False)  # noqa: SIM115, for as long as the process lives
    sys.stdout = sys.stdout or open(STDOUT, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(STDERR, "w", closefd=False)  # noqa: SIM115
