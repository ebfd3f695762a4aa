"""The program's entry point, for `python -m vpntun` and for the command `vpntun`.

setup.cfg and scripts/install create the command.
"""

from __future__ import annotations

import os
import signal
import sys

from vpntun.runtime.process_one import ending_action


def main() -> None:
    """Run the program and exit.

    Until the tunnel handles SIGINT and SIGTERM itself, they end the process at once, without a traceback, and also as
    process 1 of a container. The actions are set before the imports, which take a third of a second. If the parent
    process ignored one of them, it stays ignored.

    Two things are not taken over from the parent. An ignored SIGCHLD would hide the exit statuses of hooks (wait(2)).
    Blocked signals could not end the tunnel, and would stay blocked in hooks.
    """
    _use_utf8()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, ending_action())
    if signal.getsignal(signal.SIGTERM) != signal.SIG_IGN:
        signal.signal(signal.SIGTERM, ending_action())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    from vpntun.cli import main as run

    run()


def _use_utf8() -> None:
    """Start again in UTF-8 mode if the locale has another encoding, or none.

    Names of devices, files and peers are UTF-8 to this program, whatever the locale says.
    """
    if sys.getfilesystemencoding() != "utf-8":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


if __name__ == "__main__":
    main()
