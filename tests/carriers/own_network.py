"""Scripts of tests that need a network of their own: they run as root of a new network namespace."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

WITH_OWN_NETWORK = ("unshare", "--user", "--map-root-user", "--net")

PRELUDE = """
import os, socket, subprocess
from tests.machine import HandLoop

def ip(*words):
    subprocess.run(["ip", *words], check=True)

ip("link", "set", "lo", "up")
loop = HandLoop()
"""
"""What each script begins with: `ip`, which runs ip(8), and `loop`."""


def run_in_own_network(script: str) -> None:
    """Run a script, which must print "done" and nothing else. Skip the test where this user can have no network."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        pytest.skip("needs unshare(1) and ip(8)")
    if subprocess.run([*WITH_OWN_NETWORK, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user cannot have a network namespace of its own")
    command = [*WITH_OWN_NETWORK, sys.executable, "-c", PRELUDE + script]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    if "type veth" in done.stderr or "Unknown device type" in done.stderr:
        pytest.skip("this kernel has no veth")
    assert done.stdout == "done\n", done.stdout + done.stderr
