"""Refusals of a namespace: each line names what forbids it and a way round. Settings are faked, or really changed."""

from __future__ import annotations

import errno
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import blocks
from vpntun.errors import PrivilegeError
from vpntun.namespace.refusal import explain

CHECKOUT = Path(__file__).parents[2]
ASK = """
import ctypes, os
from vpntun.namespace.refusal import explain
{before}
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x10000000) == 0:
    print("allowed")
else:
    print(explain(OSError(ctypes.get_errno(), "refused"), "no user namespace can be made", is_root=False))
"""
FORBID_UNSHARE = """
import struct
rules = b"".join(struct.pack("=HBBI", *rule) for rule in (
    (0x20, 0, 0, 0), (0x15, 0, 1, {number}), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)))
kept = ctypes.create_string_buffer(rules)
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 4, ctypes.addressof(kept)))
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
assert ctypes.CDLL(None).prctl(22, 2, program) == 0
"""
UNSHARE = {"x86_64": 272, "aarch64": 97}


def put(proc: Path, name: str, value: str) -> None:
    path = proc / "sys" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n")


def said(
    proc: Path, code: int, step: str = "no user namespace can be made", *, is_root: bool = False, **settings: str
) -> str:
    """What is said about a refusal with this errno, where these settings hold: `kernel__a` is kernel.a."""
    for name, value in settings.items():
        put(proc, name.replace("__", "/"), value)
    error = explain(OSError(code, os.strerror(code)), step, proc=proc, is_root=is_root)
    assert isinstance(error, PrivilegeError)
    assert "\n" not in str(error)
    return str(error)


def test_debians_setting_is_named_with_the_command_that_changes_it(tmp_path: Path) -> None:
    text = said(tmp_path, errno.EPERM, kernel__unprivileged_userns_clone="0")
    assert "kernel.unprivileged_userns_clone is 0" in text
    assert "sysctl kernel.unprivileged_userns_clone=1" in text
    assert "sudo vpntun run" in text


@pytest.mark.parametrize(
    "step", ["no user namespace can be made", "this user cannot be mapped", "no mount namespace can be made"]
)
@pytest.mark.parametrize("code", [errno.EPERM, errno.EACCES])
def test_ubuntus_setting_is_named_whichever_step_it_stops(tmp_path: Path, step: str, code: int) -> None:
    text = said(
        tmp_path,
        code,
        step,
        kernel__unprivileged_userns_clone="1",
        kernel__apparmor_restrict_unprivileged_userns="1",
    )
    assert "kernel.apparmor_restrict_unprivileged_userns is 1" in text
    assert "'userns'" in text


@pytest.mark.parametrize("kind", ["user", "net", "mnt"])
def test_a_limit_of_no_namespaces_is_named(tmp_path: Path, kind: str) -> None:
    put(tmp_path, f"user/max_{kind}_namespaces", "0")
    assert f"user.max_{kind}_namespaces is 0" in said(tmp_path, errno.ENOSPC)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EUSERS])
def test_a_limit_that_cannot_be_seen_may_be_the_containers(tmp_path: Path, code: int) -> None:
    text = said(tmp_path, code, user__max_user_namespaces="15000")
    assert "too many namespaces" in text
    assert "container" in text


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSYS])
def test_a_filter_of_system_calls_is_told_from_a_security_module(tmp_path: Path, code: int) -> None:
    assert "security module" in said(tmp_path, code)
    (tmp_path / "self").mkdir()
    (tmp_path / "self/status").write_text("Name:\tpython\nSeccomp:\t2\nSeccomp_filters:\t1\n")
    assert "seccomp=unconfined" in said(tmp_path, code)


def test_the_guides_profile_allows_what_ubuntu_forbids() -> None:
    [profile] = blocks("apparmor-profile")
    assert re.search(r"^profile vpntun /\S+ flags=\(unconfined\) \{\n +userns,\n\}$", profile, re.MULTILINE)


def test_a_kernel_without_user_namespaces_leaves_root(tmp_path: Path) -> None:
    assert "CONFIG_USER_NS" in said(tmp_path, errno.EINVAL)


def test_root_of_a_container_is_told_which_capabilities_it_lacks(tmp_path: Path) -> None:
    text = said(
        tmp_path, errno.EPERM, "no network namespace can be made", is_root=True, kernel__unprivileged_userns_clone="0"
    )
    assert "--cap-add SYS_ADMIN" in text
    assert "sudo" not in text


def test_any_other_refusal_is_said_in_the_kernels_words(tmp_path: Path) -> None:
    text = said(tmp_path, errno.ENOMEM, "no mount namespace can be made")
    assert "no mount namespace can be made: Cannot allocate memory" in text


def test_the_limit_is_named_where_it_is_really_0() -> None:
    limit = "open('/proc/sys/user/max_user_namespaces', 'w').write('0')"
    asked = ["unshare", "--user", "--map-root-user", sys.executable, "-c", ASK.format(before=limit)]
    done = subprocess.run(asked, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if "unshare: " in done.stderr:
        pytest.skip("user namespaces are refused here")
    assert "user.max_user_namespaces is 0" in done.stdout, done.stderr


@pytest.mark.skipif(platform.machine() not in UNSHARE, reason="the number of unshare(2) is not known")
def test_a_real_filter_of_system_calls_is_named() -> None:
    before = FORBID_UNSHARE.format(number=UNSHARE.get(platform.machine()))
    asked = [sys.executable, "-c", ASK.format(before=before)]
    done = subprocess.run(asked, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert "filter of system calls" in done.stdout, done.stderr
