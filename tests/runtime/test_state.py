"""State files: timestamps never go back, endpoints survive a restart, and garbage counts as empty."""

from __future__ import annotations

import itertools
import stat
import time
from pathlib import Path

import pytest

from tests.machine import HandLoop, logged, ordinary_user
from vpntun.crypto.timestamp import tai64n
from vpntun.runtime.folders import named_here
from vpntun.runtime.state import Endpoints, TimestampFile, successor

PUBLIC = b"p" * 32
OTHER = b"o" * 32


def only_file(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def test_a_timestamp_is_the_time_of_the_wall_clock(tmp_path: Path) -> None:
    before = tai64n(time.time())
    stamp = TimestampFile(PUBLIC, tmp_path).next()
    assert before <= stamp <= tai64n(time.time())
    assert len(stamp) == 12


def test_timestamps_requested_in_quick_succession_still_rise(tmp_path: Path) -> None:
    file = TimestampFile(PUBLIC, tmp_path)
    stamps = [file.next() for _ in range(200)]
    assert all(early < late for early, late in itertools.pairwise(stamps))


def test_timestamps_rise_over_restarts(tmp_path: Path) -> None:
    stamps = [TimestampFile(PUBLIC, tmp_path).next() for _ in range(50)]
    assert all(early < late for early, late in itertools.pairwise(stamps))


def test_timestamps_rise_though_the_clock_was_set_back_by_a_year(tmp_path: Path) -> None:
    TimestampFile(PUBLIC, tmp_path).next()
    ahead = tai64n(time.time() + 366 * 86400)
    only_file(tmp_path).write_text(ahead.hex())
    file = TimestampFile(PUBLIC, tmp_path)
    first, second = file.next(), file.next()
    assert ahead < first < second
    assert TimestampFile(PUBLIC, tmp_path).next() > second


def test_the_timestamps_of_a_few_seconds_cause_one_write(tmp_path: Path) -> None:
    file = TimestampFile(PUBLIC, tmp_path)
    first = file.next()
    written = only_file(tmp_path).stat().st_ino
    last = [file.next() for _ in range(400)][-1]
    assert only_file(tmp_path).stat().st_ino == written
    assert first < last < TimestampFile(PUBLIC, tmp_path).next(), "also if the process is killed"


def test_a_program_that_is_restarted_over_and_over_stays_near_the_clock(tmp_path: Path) -> None:
    for _ in range(100):
        last = TimestampFile(PUBLIC, tmp_path).next()
    assert last < tai64n(time.time() + 20)


def test_the_successor_carries_into_the_seconds() -> None:
    late = tai64n(1_700_000_000.999999)
    assert late < successor(late) < tai64n(1_700_000_001.5)
    assert int.from_bytes(successor(late)[8:], "big") == 0


def test_two_keys_do_not_share_a_timestamp(tmp_path: Path) -> None:
    TimestampFile(PUBLIC, tmp_path).next()
    only_file(tmp_path).write_text(tai64n(time.time() + 1e6).hex())
    assert TimestampFile(OTHER, tmp_path).next() < tai64n(time.time() + 1)


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"not hexadecimal",
        b"00" * 11,
        b"00" * 13,
        b"\xff" * 12,
        bytes(24),
        b"ff" * 12,
        b"7fffffffffffffff" + b"ffffffff",
        b"8000000000000000" + b"00000000",
        tai64n(1.7e9)[:8].hex().encode() + b"ffffffff",
        b"0" * (2 << 20),
    ],
)
def test_a_timestamp_file_of_garbage_counts_as_empty(tmp_path: Path, garbage: bytes) -> None:
    TimestampFile(PUBLIC, tmp_path).next()
    only_file(tmp_path).write_bytes(garbage)
    file = TimestampFile(PUBLIC, tmp_path)
    first, second = file.next(), file.next()
    assert tai64n(time.time() - 60) < first < second < tai64n(time.time() + 60)


def test_a_timestamp_that_cannot_be_written_is_not_fatal(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with logged() as lines:
        file = TimestampFile(PUBLIC, tmp_path / "file" / "folder")
        assert file.next() < file.next()
    assert "cannot be written" in lines[0]


def test_an_endpoint_is_remembered_over_a_restart(loop: HandLoop, tmp_path: Path) -> None:
    first = Endpoints("tun3", loop, tmp_path)
    first.remember(PUBLIC, "192.0.2.7", 4242)
    first.remember(OTHER, "2001:db8::7", 4243)
    first.save()
    again = Endpoints("tun3", loop, tmp_path)
    assert again.recall(PUBLIC) == ("192.0.2.7", 4242)
    assert again.recall(OTHER) == ("2001:db8::7", 4243)


def test_the_last_endpoint_counts(loop: HandLoop, tmp_path: Path) -> None:
    endpoints = Endpoints("tun3", loop, tmp_path)
    endpoints.remember(PUBLIC, "192.0.2.7", 4242)
    endpoints.remember(PUBLIC, "192.0.2.8", 4242)
    endpoints.save()
    assert Endpoints("tun3", loop, tmp_path).recall(PUBLIC) == ("192.0.2.8", 4242)


def test_peers_that_move_at_the_same_time_are_written_together_a_second_after_the_first(
    loop: HandLoop, tmp_path: Path
) -> None:
    endpoints = Endpoints("tun3", loop, tmp_path)
    endpoints.remember(PUBLIC, "192.0.2.7", 4242)
    for port in range(1, 100):
        endpoints.remember(OTHER, "192.0.2.8", port)
    before = only_file(tmp_path).stat().st_ino
    assert Endpoints("tun3", loop, tmp_path).recall(OTHER) is None
    assert endpoints.recall(OTHER) == ("192.0.2.8", 99)
    loop.pass_time(1.0)
    assert Endpoints("tun3", loop, tmp_path).recall(OTHER) == ("192.0.2.8", 99)
    written = only_file(tmp_path).stat().st_ino
    assert written != before
    loop.pass_time(1.0)
    loop.pass_time(1.0)
    assert only_file(tmp_path).stat().st_ino == written, "nothing was to be written"
    endpoints.remember(PUBLIC, "192.0.2.9", 4242)
    assert Endpoints("tun3", loop, tmp_path).recall(PUBLIC) == ("192.0.2.9", 4242), "it had rested"


def test_unwritten_endpoints_are_written_at_the_end(loop: HandLoop, tmp_path: Path) -> None:
    endpoints = Endpoints("tun3", loop, tmp_path)
    endpoints.remember(PUBLIC, "192.0.2.7", 4242)
    endpoints.remember(OTHER, "192.0.2.8", 4243)
    endpoints.save()
    assert Endpoints("tun3", loop, tmp_path).recall(OTHER) == ("192.0.2.8", 4243)


def test_the_endpoint_of_a_removed_peer_is_forgotten(loop: HandLoop, tmp_path: Path) -> None:
    endpoints = Endpoints("tun3", loop, tmp_path)
    endpoints.remember(PUBLIC, "192.0.2.7", 4242)
    endpoints.remember(OTHER, "192.0.2.8", 4243)
    endpoints.forget(PUBLIC)
    endpoints.save()
    again = Endpoints("tun3", loop, tmp_path)
    assert again.recall(PUBLIC) is None
    assert again.recall(OTHER) == ("192.0.2.8", 4243)


def test_a_peer_that_was_never_seen_has_no_endpoint(loop: HandLoop, tmp_path: Path) -> None:
    assert Endpoints("tun3", loop, tmp_path).recall(PUBLIC) is None


def test_two_interfaces_do_not_share_endpoints(loop: HandLoop, tmp_path: Path) -> None:
    Endpoints("tun3", loop, tmp_path).remember(PUBLIC, "192.0.2.7", 4242)
    assert Endpoints("tun4", loop, tmp_path).recall(PUBLIC) is None


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"12",
        b'"text"',
        b"\xff\xfe\x00",
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"%s": "192.0.2.7:1"}' % PUBLIC.hex().encode(),
        b'{"%s": [1, 2]}' % PUBLIC.hex().encode(),
        b'{"%s": ["192.0.2.7"]}' % PUBLIC.hex().encode(),
        b'{"%s": ["192.0.2.7", "1"]}' % PUBLIC.hex().encode(),
        b'{"%s": ["192.0.2.7", 0]}' % PUBLIC.hex().encode(),
        b'{"%s": ["192.0.2.7", 65536]}' % PUBLIC.hex().encode(),
        b'{"%s": ["192.0.2.7", -1]}' % PUBLIC.hex().encode(),
        b'{"%s": ["192.0.2.7", 1.5]}' % PUBLIC.hex().encode(),
        b'{"%s": null}' % PUBLIC.hex().encode(),
    ],
)
def test_an_endpoints_file_of_garbage_counts_as_empty_and_is_replaced(
    loop: HandLoop, tmp_path: Path, garbage: bytes
) -> None:
    Endpoints("tun3", loop, tmp_path).remember(PUBLIC, "192.0.2.7", 4242)
    only_file(tmp_path).write_bytes(garbage)
    endpoints = Endpoints("tun3", loop, tmp_path)
    assert endpoints.recall(PUBLIC) is None
    endpoints.remember(PUBLIC, "192.0.2.9", 4242)
    assert endpoints.recall(PUBLIC) == ("192.0.2.9", 4242)


def test_an_endpoint_that_cannot_be_written_is_not_fatal(loop: HandLoop, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    endpoints = Endpoints("tun3", loop, tmp_path / "file" / "folder")
    with logged() as lines:
        endpoints.remember(PUBLIC, "192.0.2.7", 4242)
    assert "cannot be written" in lines[0]
    assert endpoints.recall(PUBLIC) == ("192.0.2.7", 4242)
    assert Endpoints("tun3", loop, tmp_path / "file" / "folder").recall(PUBLIC) is None


def test_the_state_folder_is_made_for_its_owner_and_nothing_else_is_left_in_it(loop: HandLoop, tmp_path: Path) -> None:
    Endpoints("tun3", loop, tmp_path / "new").remember(PUBLIC, "192.0.2.7", 4242)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert [each.name for each in (tmp_path / "new").iterdir()] == [f"{named_here('tun3')}.endpoints.json"]


def test_an_ordinary_users_state_is_in_its_own_folders(loop: HandLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    with ordinary_user() as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder / "run"))
        monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
        Endpoints("tun3", loop).remember(PUBLIC, "192.0.2.7", 4242)
        TimestampFile(PUBLIC).next()
        assert Endpoints("tun3", loop).recall(PUBLIC) == ("192.0.2.7", 4242)
        assert len(list((folder / "state" / "vpntun").iterdir())) == 1


def test_a_file_held_open_is_written_in_a_folder_that_is_not_writable(loop: HandLoop) -> None:
    with ordinary_user() as folder:
        endpoints, stamps = Endpoints("tun3", loop, folder / "run"), TimestampFile(PUBLIC, folder / "lib")
        endpoints.remember(PUBLIC, "2001:db8::7777", 42424)
        endpoints.hold()
        stamps.hold()
        (folder / "run").chmod(0o500)
        (folder / "lib").chmod(0o500)
        endpoints.remember(PUBLIC, "192.0.2.7", 1)
        endpoints.save()
        last = stamps.next()
        assert Endpoints("tun3", loop, folder / "run").recall(PUBLIC) == ("192.0.2.7", 1)
        assert TimestampFile(PUBLIC, folder / "lib").next() > last


def test_a_file_that_cannot_be_held_open_is_not_fatal(loop: HandLoop, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    endpoints = Endpoints("tun3", loop, tmp_path / "file" / "folder")
    with logged() as lines:
        endpoints.hold()
        endpoints.remember(PUBLIC, "192.0.2.7", 4242)
    assert "cannot be held open" in lines[0]
    assert endpoints.recall(PUBLIC) == ("192.0.2.7", 4242)
