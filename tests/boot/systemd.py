"""Real systemd in a machine of the lab, with vpntun's units and few others.

1. It is process 1 of its own process namespace. It has its own control group, below the one of the tests, and its own
   namespaces for mounts, control groups, IPC and host name; the network is the machine's.
2. SYSTEMD_UNIT_PATH lists all folders with units: the installed one, one of the test with stubs for the targets that
   every service depends on, and an empty one for enabled units. So no unit of the host is started. It has its own /run,
   /tmp, /var/lib and /var/tmp. Users may open its /dev/net/tun, as udev allows.
3. Killing it ends all processes that it has started: the kernel ends a process namespace with its process 1.
4. If systemd cannot run in this container, `why_not` returns the reason.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

from tests.boot.installed import PREFIX, Host
from tests.netns.lab import until

SYSTEMD = Path("/lib/systemd/systemd")
STUBS = ("sysinit", "basic", "network", "nss-lookup", "shutdown", "multi-user")
JOURNAL = ("systemd-journald.service", "systemd-journald.socket")

IN_A_CONTROL_GROUP = """
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir /sys/fs/cgroup/$GROUP
echo $$ >/sys/fs/cgroup/$GROUP/cgroup.procs
exec unshare --pid --mount --cgroup --ipc --uts --fork --kill-child -- sh -ec "$AS_PROCESS_1" "$0"
"""
AS_PROCESS_1 = """
mount --make-rshared /
mount -t proc proc /proc
umount /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir /run/units
cp -a "$0"/. /run/units/
mkdir -p /run/systemd/journald.conf.d
printf '[Journal]\\nReadKMsg=no\\nStorage=volatile\\n' >/run/systemd/journald.conf.d/test.conf
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=1777 tmpfs /var/tmp
mount -t tmpfs -o mode=0755 tmpfs /var/lib
mount -t tmpfs -o mode=0755 tmpfs /etc/systemd/system
mount -t tmpfs -o mode=0755 tmpfs /mnt
mknod -m 0666 /mnt/tun c 10 200
mount --bind /mnt/tun /dev/net/tun
exec /lib/systemd/systemd --system --unit=multi-user.target --log-target=journal
"""
REMOVE_CONTROL_GROUP = """
mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit 0
[ ! -d /sys/fs/cgroup/$GROUP ] || find /sys/fs/cgroup/$GROUP -depth -type d -exec rmdir {} +
"""


def why_not(host: Host) -> str | None:
    """Start a systemd to find out whether that is possible; return the reason if not, or None."""
    for tool in ("systemctl", "systemd-analyze", "journalctl", "nsenter", "unshare"):
        if shutil.which(tool) is None or not SYSTEMD.exists():
            return "systemd is not installed"
    systemd = Systemd(host)
    try:
        systemd.boot()
    except AssertionError:
        return f"no systemd comes up here: {systemd.last_words}"
    finally:
        systemd.close()
    return None


class Systemd:
    def __init__(self, host: Host, wanted: str = "", dropins: Mapping[str, str] | None = None) -> None:
        """Start systemd. `wanted`: units to start at boot. `dropins`: by name of the unit."""
        self._host = host
        host.write("/etc/machine-id", f"{uuid.uuid4().hex}\n")
        self._units = host.own / "units"
        self._units.mkdir()
        self._group = {"GROUP": host.machine.name}
        for name in STUBS:
            self._write(f"{name}.target", "[Unit]\nDefaultDependencies=no\n")
        for name in JOURNAL:
            (self._units / name).symlink_to(f"/usr/lib/systemd/system/{name}")
        self._write("multi-user.target", f"[Unit]\nDefaultDependencies=no\nWants={' '.join(JOURNAL)} {wanted}\n")
        for unit in ("vpntun@", "vpntun-server@", "vpntun-client@"):
            self._write(f"{unit}.service.d/python.conf", _python_in_a_home())
        for unit, text in (dropins or {}).items():
            self._write(f"{unit}.d/test.conf", text)
        self._process = host.machine.popen(
            *host.enter("sh", "-ec", IN_A_CONTROL_GROUP, self._units),
            env={
                **self._group,
                "AS_PROCESS_1": AS_PROCESS_1,
                "SYSTEMD_UNIT_PATH": f"/run/units:/etc/systemd/system:/run/systemd/system:{PREFIX}/lib/systemd/system",
                "container": "vpntun-test",
            },
        )

    def boot(self) -> None:
        """Wait until systemd answers."""
        until(lambda: self._answers() or not self._process.running, 20, 0.05)
        assert self._answers(), f"systemd has not come up: {self._process}"

    @property
    def last_words(self) -> str:
        """Output of the set-up; on failure usually the error of a mount that is not allowed."""
        return "; ".join(self._process.log.splitlines()) or "it does not answer"

    def _answers(self) -> bool:
        return self._process_1() is not None and self.control("is-active", JOURNAL[0]).returncode == 0

    def _write(self, name: str, text: str) -> None:
        path = self._units / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def control(self, *arguments: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run systemctl."""
        return self.run("systemctl", "--no-pager", *arguments, check=check)

    def state(self, unit: str, name: str) -> str:
        """Return one property of a unit."""
        return self.control("show", "--property", name, "--value", unit, check=True).stdout.strip()

    def journal(self, unit: str) -> str:
        """Return the log lines of a unit, and those of systemd about it."""
        return self.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}").stdout

    def run(self, *command: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        process_1 = self._process_1()
        assert process_1 is not None, str(self._process)
        enter = ["nsenter", f"--target={process_1}", "--all", "--", *command]
        done = subprocess.run(enter, capture_output=True, text=True, check=False, timeout=120)
        assert not check or done.returncode == 0, f"{done}\n{self._process}"
        return done

    def _process_1(self) -> int | None:
        """Return the ID of systemd as seen from outside, or None before it has taken the place of the set-up."""
        unshare = self._process.process.pid
        children = Path(f"/proc/{unshare}/task/{unshare}/children")
        try:
            process_1 = children.read_text().split()[0]
            return int(process_1) if Path(f"/proc/{process_1}/comm").read_text().strip() == SYSTEMD.name else None
        except (OSError, IndexError):
            return None

    def close(self) -> None:
        said = self.run("journalctl", "--no-pager", "--output=cat").stdout if self._process_1() is not None else ""
        self._process.kill()
        gone = until(lambda: self._remove_control_group() == 0, 10, 0.05)
        assert gone, f"the control group of {self._process} is left behind"
        assert "internal error, " not in said, f"a bug was survived: {said}"

    def _remove_control_group(self) -> int:
        remove = ["unshare", "--mount", "sh", "-ec", REMOVE_CONTROL_GROUP]
        return subprocess.run(remove, env=self._group, capture_output=True, check=False).returncode


def _python_in_a_home() -> str:
    """Return a drop-in with which a sandboxed unit can run a Python that is inside a home folder."""
    if not sys.base_prefix.startswith(("/home/", "/root/")):
        return ""
    return f"[Service]\nProtectHome=tmpfs\nBindReadOnlyPaths={sys.base_prefix}\n"
