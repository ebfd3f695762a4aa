"""Runs vpntun and notes, every few milliseconds of processor time, which line it is at. Run by its path.

    sampler.py FILE VPNTUN'S ARGUMENTS...

SIGUSR1 starts it; SIGUSR2 ends it and writes FILE: a JSON list of [count, file, line, function]. A signal's handler
runs when the system call or the AEAD that it interrupts has returned, so their time is counted at the line that called
them. It costs next to nothing, where cProfile doubles the price of every call.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType

EVERY = 0.001  # seconds of processor time; the kernel makes 1 to 4 ms of it

_counts: Counter[tuple[CodeType, int]] = Counter()


def _note(_number: int, frame: FrameType | None) -> None:
    if frame is not None:
        _counts[frame.f_code, frame.f_lineno] += 1


def _start(_number: int, _frame: FrameType | None) -> None:
    _counts.clear()
    signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY)


def _write(file: Path) -> None:
    lines = [[count, code.co_filename, line, code.co_name] for (code, line), count in _counts.most_common()]
    ready = file.with_suffix(".part")
    ready.write_text(json.dumps(lines))
    ready.rename(file)


def _stop(file: Path) -> None:
    signal.setitimer(signal.ITIMER_PROF, 0)
    _write(file)


def main(file: Path, arguments: list[str]) -> None:
    signal.signal(signal.SIGPROF, _note)
    signal.signal(signal.SIGUSR1, _start)
    signal.signal(signal.SIGUSR2, lambda _number, _frame: _stop(file))
    # Or else each sample would wake the loop, which waits for signals by this descriptor.
    signal.set_wakeup_fd = lambda *_, **__: -1
    sys.path[0] = os.getcwd()
    from vpntun.cli import main as vpntun

    vpntun(arguments)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
