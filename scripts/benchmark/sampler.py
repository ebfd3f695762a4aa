"""Run vpntun and sample its current line every few milliseconds of processor time. Run by its path.

    sampler.py FILE VPNTUN'S ARGUMENTS...

`START` starts the sampling. `STOP` ends it and writes FILE: a JSON list of [count, file, line, function]. Both are
real-time signals, because vpntun handles all others that could be used. Python runs a signal handler after the
interrupted system call or AEAD has returned, so their time counts at the line that called them. Sampling costs hardly
anything, whereas cProfile doubles the cost of every call.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType

START, STOP = signal.SIGRTMIN, signal.SIGRTMIN + 1
EVERY = 0.001  # seconds of processor time; the kernel rounds it up to 1 to 4 ms

_counts: Counter[tuple[CodeType, int]] = Counter()


def _note(_number: int, frame: FrameType | None) -> None:
    if frame is not None:
        _counts[frame.f_code, frame.f_lineno or frame.f_code.co_firstlineno] += 1


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
    signal.signal(START, _start)
    signal.signal(STOP, lambda _number, _frame: _stop(file))
    # Otherwise each sample would wake the loop, which is notified of signals through this descriptor.
    signal.set_wakeup_fd = lambda *_, **__: -1
    sys.path[0] = os.getcwd()
    from vpntun.cli import main as vpntun

    vpntun(arguments)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
