"""Run vpntun as on a kernel whose TUN devices refuse TUNSETOFFLOAD: `python no_offloads.py ARGUMENTS`."""

from __future__ import annotations

import errno
import fcntl
from typing import Any

from vpntun.cli import main
from vpntun.tun.device import TUNSETOFFLOAD

ioctl: Any = fcntl.ioctl


def refusing(descriptor: Any, request: int, *rest: Any) -> Any:
    if request == TUNSETOFFLOAD:
        raise OSError(errno.EINVAL, "refused by the test")
    return ioctl(descriptor, request, *rest)


if __name__ == "__main__":
    fcntl.ioctl = refusing
    main()
