"""A process that answers on the control socket in place of a tunnel."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

from vpntun.control.server import ControlServer
from vpntun.runtime.loop import Loop


@contextlib.contextmanager
def answering(
    new_server: Callable[[Loop], ControlServer], at_end: Callable[[ControlServer], None] = ControlServer.close
) -> Iterator[int]:
    """Run the process until its loop is stopped, or to the end of the block; yield its id.

    `at_end`: what it does once its loop was stopped.
    """
    reader, writer = os.pipe()
    process = os.fork()
    if not process:
        try:
            loop = Loop()
            server = new_server(loop)
            os.write(writer, b"ready")
            loop.run(lambda _: float("inf"), lambda _: None)
            at_end(server)
        finally:
            os._exit(0)
    os.close(writer)
    assert os.read(reader, 5) == b"ready"
    os.close(reader)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process, 0)
