"""The machine's name servers: what counts in resolv.conf, and that a change of the file is seen."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from vpntun.names.resolv_conf import MOST_SERVERS, ResolvConf, servers_in

LOCAL = (("127.0.0.1", 53),)


def test_lines_with_addresses_count_as_for_the_c_library() -> None:
    text = (
        "# nameserver 10.0.0.1\nsearch a\nnameserver 127.0.0.53\n nameserver\tfe80::1%eth0 x\nnameserver dns.example\n"
    )
    assert servers_in(text) == (("127.0.0.53", 53), ("fe80::1%eth0", 53))
    assert len(servers_in("nameserver 10.0.0.1\n" * 9)) == MOST_SERVERS
    assert servers_in("") == servers_in("nameserver\n") == LOCAL


@given(st.text())
def test_any_text_has_servers(text: str) -> None:
    assert servers_in(text)
    assert servers_in(f"nameserver {text}")


def test_a_file_that_has_changed_is_read_again_within_a_second(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    conf = ResolvConf(path)
    assert conf.servers(10.0) == LOCAL
    path.write_text("nameserver 10.0.0.1\n")
    assert conf.servers(10.5) == LOCAL
    assert conf.servers(11.0) == (("10.0.0.1", 53),)
    other = tmp_path / "other"
    other.write_text("nameserver 10.0.0.2\n")
    os.replace(other, path)
    assert conf.servers(12.0) == (("10.0.0.2", 53),)
    path.unlink()
    assert conf.servers(13.0) == LOCAL
    path.write_bytes(b"\xff\xfe\nnameserver 10.0.0.3\n")
    assert conf.servers(14.0) == (("10.0.0.3", 53),)
    path.unlink()
    path.mkdir()
    assert conf.servers(15.0) == LOCAL
