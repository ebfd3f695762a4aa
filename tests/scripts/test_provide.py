"""scripts/provide detects missing packages and installs them. These tests use fakes of apt-get and id."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
PROVIDE = CHECKOUT / "scripts" / "provide"
PACKAGES = CHECKOUT / "scripts" / "packages"
NEEDED_BY_THE_SCRIPT = ("bash", "dirname", "env", "grep")

# No real program has these names: only the folder `bin` of the fake machine decides which of them exist.
LIST = """\
# group  package    sign
build  compiler     vt-compiler           # compiles
demo   links        vt-link,vt-address
test   wall         vt-wall
long   bootstrapper vt-bootstrap
"""

APT_GET = """\
#!/bin/sh
echo "$@" >>{log}
[ ! -e {folder}/apt-fails ] || {{ echo "E: no such package" >&2; exit 100; }}
[ "$1" != install ] || for each in "$@"; do
    case $each in
    compiler) commands=vt-compiler ;;
    links) commands="vt-link vt-address" ;;
    wall) commands=vt-wall ;;
    *) continue ;;
    esac
    for command in $commands; do {ln} -sf {true} {folder}/bin/$command; done
done
"""


class FakeMachine:
    """A copy of the script with a short package list, and a PATH that contains only what the test puts there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.log = folder / "apt-get.log"
        for name in ("bin", "scripts"):
            (folder / name).mkdir()
        shutil.copy(PROVIDE, folder / "scripts" / "provide")
        (folder / "scripts" / "packages").write_text(LIST)
        for name in NEEDED_BY_THE_SCRIPT:
            (self.bin / name).symlink_to(_path(name))
        self.be_user(0)
        self.add("apt-get", APT_GET.format(log=self.log, folder=folder, true=_path("true"), ln=_path("ln")))

    def add(self, name: str, script: str = "#!/bin/sh\n") -> None:
        (self.bin / name).write_text(script)
        (self.bin / name).chmod(0o755)

    def be_user(self, number: int) -> None:
        self.add("id", f"#!/bin/sh\necho {number}\n")

    def provide(self, *groups: str, **environment: str) -> tuple[int, str]:
        done = subprocess.run(
            [self.folder / "scripts" / "provide", *groups],
            env={"PATH": str(self.bin), **environment},
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )
        assert done.stdout == ""
        return done.returncode, done.stderr

    @property
    def apt_calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


def _path(name: str) -> str:
    found = shutil.which(name)
    assert found
    return found


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(tmp_path)


def test_apt_is_not_called_if_nothing_is_missing(machine: FakeMachine) -> None:
    for name in ("vt-compiler", "vt-link", "vt-address"):
        machine.add(name)
    assert machine.provide("build", "demo") == (0, "")
    assert machine.provide() == (0, "")
    assert machine.apt_calls == []


def test_root_sees_the_missing_packages_named_and_installed(machine: FakeMachine) -> None:
    machine.add("vt-compiler")
    machine.add("vt-link")  # one of the package's two programs
    status, said = machine.provide("build", "demo")
    assert status == 0
    assert said == "scripts/provide: installing links (NO_INSTALL=1 would only print the command)\n"
    update, install = machine.apt_calls
    assert update.split()[0] == "update"
    assert install.split()[0] == "install"
    assert "--no-install-recommends" in install
    assert install.endswith(" links")
    assert machine.provide("build", "demo") == (0, "")
    assert len(machine.apt_calls) == 2


def test_one_call_installs_all_missing_packages(machine: FakeMachine) -> None:
    assert machine.provide("build", "test")[0] == 0
    assert [call.split()[0] for call in machine.apt_calls] == ["update", "install"]
    assert machine.apt_calls[1].endswith(" compiler links wall")


@pytest.mark.parametrize("reason", ["an ordinary user", "no apt", "NO_INSTALL"])
def test_the_command_is_printed_if_nothing_may_be_installed(machine: FakeMachine, reason: str) -> None:
    if reason == "an ordinary user":
        machine.be_user(1000)
    elif reason == "no apt":
        (machine.bin / "apt-get").unlink()
    environment = {"NO_INSTALL": "1"} if reason == "NO_INSTALL" else {}
    machine.add("vt-compiler")
    status, said = machine.provide("build", "demo", **environment)
    assert status == 1
    command = "apt-get install --no-install-recommends links"
    assert said == f"scripts/provide: missing: links; on Debian, as root: {command}\n"
    assert machine.apt_calls == []


def test_missing_packages_of_tests_are_not_fatal(machine: FakeMachine) -> None:
    machine.add("vt-compiler")
    status, said = machine.provide("build", "test", NO_INSTALL="1")
    assert status == 0
    command = "apt-get install --no-install-recommends links wall"
    assert said == f"scripts/provide: tests will be skipped for lack of links wall; on Debian, as root: {command}\n"


def test_the_command_includes_the_packages_of_tests(machine: FakeMachine) -> None:
    status, said = machine.provide("build", "test", NO_INSTALL="1")
    assert status == 1
    assert "missing: compiler; on Debian" in said
    assert said.endswith("--no-install-recommends compiler links wall\n")


def test_an_error_of_apt_is_shown_and_fatal_if_a_needed_package_is_missing(machine: FakeMachine) -> None:
    (machine.folder / "apt-fails").touch()
    status, said = machine.provide("build", "demo")
    assert status == 1
    assert "E: no such package" in said
    assert "could not be installed; see the messages of apt-get above" in said
    assert "missing: compiler links; on Debian" in said


def test_an_error_of_apt_is_not_fatal_if_only_packages_of_tests_are_missing(machine: FakeMachine) -> None:
    (machine.folder / "apt-fails").touch()
    machine.add("vt-compiler")
    status, said = machine.provide("build", "test")
    assert status == 0
    assert "tests will be skipped for lack of links wall" in said


def test_only_the_given_groups_are_checked(machine: FakeMachine) -> None:
    machine.add("vt-link")
    machine.add("vt-address")
    assert machine.provide("demo", NO_INSTALL="1") == (0, "")
    assert "bootstrapper" not in machine.provide("test", NO_INSTALL="1")[1]
    assert "bootstrapper" in machine.provide("test", "long", NO_INSTALL="1")[1]


def test_the_variable_PYTHON_chooses_the_interpreter(machine: FakeMachine, tmp_path: Path) -> None:
    (machine.folder / "scripts" / "packages").write_text(
        "build python python3\nbuild venv import:ensurepip\nbuild headers Python.h\nbuild libc stdio.h\n"
    )
    machine.be_user(1000)
    assert "missing: python venv headers" in machine.provide("build", PYTHON="vt-python")[1]
    (tmp_path / "Python.h").touch()
    machine.add("vt-python", f"#!/bin/sh\ncase $2 in *sysconfig*) echo {tmp_path} ;; esac\n")
    assert not re.search(r"python|venv|headers", machine.provide("build", PYTHON="vt-python")[1])


def test_a_file_may_be_named_by_wildcards(machine: FakeMachine, tmp_path: Path) -> None:
    (machine.folder / "scripts" / "packages").write_text(f"build certificates {tmp_path}/certs/*\n")
    (tmp_path / "certs").mkdir()
    assert machine.provide("build", NO_INSTALL="1")[0] == 1
    (tmp_path / "certs" / "one").touch()
    assert machine.provide("build", NO_INSTALL="1") == (0, "")


def test_each_row_of_the_list_is_complete_and_each_package_listed_once() -> None:
    rows = [line.partition("#")[0].split() for line in PACKAGES.read_text().splitlines()]
    rows = [row for row in rows if row]
    assert {len(row) for row in rows} == {3}
    assert {group for group, _, _ in rows} == {"build", "demo", "test", "long"}
    assert max(Counter(package for _, package, _ in rows).values()) == 1


@pytest.mark.skipif(os.environ.get("VPNTUN_REQUIRE_NETNS") != "1", reason="packages may be missing here")
def test_every_package_is_detected_once_it_is_installed() -> None:
    done = subprocess.run(
        [PROVIDE, "build", "demo", "test"],
        env={**os.environ, "NO_INSTALL": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
