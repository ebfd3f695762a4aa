"""The client against a real server: whatever is lost, no end has a key that the other lacks without a word."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.carriers.test_udp_socket import free_port
from tests.pairing.ends import HOST, LossyPath, Server, lines, no_pause, serving, typed
from vpntun.config.keyfile import create_shared, read_shared
from vpntun.errors import KeyFileError, PairingFailed
from vpntun.pairing import calling
from vpntun.pairing.calling import pair_as_client
from vpntun.pairing.interrupts import Interrupted

OPEN, ANSWER, CLIENT_KNOWS, SERVER_KNOWS, READY, WRITTEN = range(1, 7)


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what both ends say."""
    caplog.set_level("INFO", "vpntun")
    monkeypatch.setattr("vpntun.runtime.log.log.propagate", True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "server.key") as server:
        yield server


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tmp_path / "client.key"


def pair(own: Path, port: int, *codes: str) -> None:
    pair_as_client(own, HOST, port, typed(*codes), no_pause)


def nothing_is_left(own: Path, *but: Path) -> bool:
    return {path for path in own.parent.iterdir() if path.name != "server"} <= set(but)


def test_the_right_code_gives_both_ends_the_same_key(
    server: Server, own: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pair(own, server.port, server.code)
    assert server.wait() is None
    assert read_shared(own) == read_shared(server.path)
    assert own.stat().st_mode & 0o777 == server.path.stat().st_mode & 0o777 == 0o600
    assert nothing_is_left(own, own, server.path)
    said = {record.getMessage() for record in caplog.records}
    assert said == {
        f"paired with {HOST}: the key is in {server.path}",
        f"paired with {HOST}:{server.port}: the key is in {own}",
    }


def test_the_code_is_never_logged(server: Server, own: Path, caplog: pytest.LogCaptureFixture) -> None:
    pair(own, server.port, "0" * 8, server.code)
    assert server.wait() is None
    assert server.code not in lines(caplog.records).replace("-", "")


def test_a_right_code_after_wrong_ones_works_and_both_ends_say_what_is_left(
    server: Server, own: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pair(own, server.port, "00000000", "00000001", server.code)
    assert server.wait() is None
    assert read_shared(own) == read_shared(server.path)
    for line in (
        "wrong code: 2 tries are left",
        "wrong code: one try is left",
        "wrong code from 127.0.0.1: 2 tries are",
    ):
        assert line in lines(caplog.records)


def test_three_wrong_codes_end_both_ends_with_nothing_written(server: Server, own: Path) -> None:
    with pytest.raises(PairingFailed, match="void"):
        pair(own, server.port, "00000000", "00000001", "00000002", server.code)
    assert isinstance(server.wait(), PairingFailed)
    assert nothing_is_left(own)


@pytest.mark.parametrize("cuts", [0, 1, 20])
@pytest.mark.parametrize("lost", [OPEN, ANSWER, READY])
def test_a_message_that_is_lost_where_that_tells_nobody_anything_is_sent_again(
    server: Server, own: Path, lost: int, cuts: int
) -> None:
    with closing(LossyPath(server.port, lost, cuts=cuts)) as path:
        pair(own, path.port, server.code)
    assert server.wait() is None
    assert read_shared(own) == read_shared(server.path)


@pytest.mark.parametrize("cuts", [0, 20])
@pytest.mark.parametrize("lost", [CLIENT_KNOWS, SERVER_KNOWS])
def test_a_connection_that_is_lost_around_a_proof_leaves_no_key_at_either_end(
    server: Server, own: Path, lost: int, cuts: int
) -> None:
    with (
        closing(LossyPath(server.port, lost, cuts=cuts)) as path,
        pytest.raises(PairingFailed, match="no key was written here"),
    ):
        pair(own, path.port, server.code)
    assert nothing_is_left(own)
    assert not server.has_ended


def test_a_client_that_comes_back_at_once_is_asked_to_wait_and_loses_no_try(
    server: Server, own: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(LossyPath(server.port, SERVER_KNOWS)) as path, pytest.raises(PairingFailed):
        pair(own, path.port, server.code)
    with pytest.raises(PairingFailed, match="start this end again in ten seconds"):
        pair(own, server.port, server.code)
    assert "wrong code" not in lines(caplog.records)


def test_a_client_that_does_not_hear_that_the_server_has_the_key_keeps_its_own_and_says_so(
    server: Server, own: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(LossyPath(server.port, WRITTEN)) as path:
        pair(own, path.port, server.code)
    assert server.wait() is None
    assert read_shared(own) == read_shared(server.path)
    assert "did not hear whether the other end has it too" in lines(caplog.records)


def test_a_server_that_does_not_hear_that_the_client_is_ready_has_no_key_and_both_say_so(
    server: Server, own: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(LossyPath(server.port, READY, for_good=True)) as path:
        pair(own, path.port, server.code)
    server.end()
    assert not server.path.exists()
    assert own.exists()
    said = lines(caplog.records)
    assert "did not hear whether the other end has it too" in said
    assert "if the other end has made a key file just now, remove it there" in said


def test_a_server_that_cannot_write_its_key_leaves_the_client_without_one(server: Server, own: Path) -> None:
    create_shared(server.path)
    with pytest.raises(PairingFailed, match="could not write its key file"):
        pair(own, server.port, server.code)
    assert isinstance(server.wait(), KeyFileError)
    assert nothing_is_left(own, server.path)


def test_a_client_that_can_no_longer_write_its_key_leaves_the_server_without_one(server: Server, own: Path) -> None:
    folder = own.parent / "folder"

    def replace_folder() -> str:
        folder.rmdir()
        folder.write_text("")
        return server.code

    with pytest.raises(KeyFileError, match="cannot be created"):
        pair_as_client(folder / "key", HOST, server.port, replace_folder, no_pause)
    assert not server.path.exists()
    assert not server.has_ended


def test_a_key_file_that_appears_at_the_last_moment_is_kept_and_the_other_end_is_named(
    server: Server, own: Path
) -> None:
    def make_another() -> str:
        create_shared(own)
        return server.code

    with pytest.raises(KeyFileError, match=r"never overwritten.*The other end has the key already: remove it there"):
        pair_as_client(own, HOST, server.port, make_another, no_pause)
    assert read_shared(own) != read_shared(server.path)


def interrupted(*, after: bool) -> Callable[[Path, Path], None]:
    """Return an os.link that a signal interrupts, before or after it has done its work."""
    link = os.link

    def interrupted_link(source: Path, target: Path) -> None:
        if after:
            link(source, target)
        raise Interrupted(signal.SIGINT)

    return interrupted_link


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("end", ["client", "server"])
def test_a_signal_while_the_key_file_gets_its_name_is_told_as_what_it_was(
    server: Server, own: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, end: str, after: bool
) -> None:
    path = own if end == "client" else server.path
    link, interrupted_link = os.link, interrupted(after=after)
    monkeypatch.setattr(os, "link", lambda old, new: (interrupted_link if new == path else link)(old, new))
    with suppress(Interrupted):
        pair(own, server.port, server.code)
    server.wait()
    assert path.exists() == after
    assert ("no key was written here; if the other end has" in lines(caplog.records)) == (not after)


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_asked(own: Path) -> None:
    own.write_text("")
    with pytest.raises(KeyFileError, match="cannot be created"):
        pair_as_client(own / "key", HOST, 1, lambda: pytest.fail("asked"))


def test_a_key_file_that_is_there_is_refused_before_anything_is_asked(own: Path) -> None:
    create_shared(own)
    with pytest.raises(KeyFileError, match=r"has a key already.*start without --pair.*move it away.*-k"):
        pair_as_client(own, HOST, 1, lambda: pytest.fail("asked"))


def test_nobody_who_listens_is_explained(own: Path) -> None:
    port = free_port(socket.AF_INET, socket.SOCK_STREAM)
    with pytest.raises(PairingFailed, match=r"cannot be reached over TCP \(Connection refused\).*--pair"):
        pair(own, port, "00000000")


def test_a_name_that_is_not_found_is_explained(own: Path) -> None:
    with pytest.raises(PairingFailed, match=r"nowhere\.invalid:1 cannot be reached"):
        pair_as_client(own, "nowhere.invalid", 1, typed("00000000"), no_pause)


def test_a_server_that_takes_no_codes_is_recognised_by_its_silence(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calling, "SECONDS_TO_ANSWER", 0.2)
    with socket.create_server((HOST, 0)) as silent, pytest.raises(PairingFailed, match="no pairing is open at"):
        pair(own, silent.getsockname()[1], "00000000")


def test_another_program_that_answers_is_recognised(own: Path) -> None:
    with socket.create_server((HOST, 0)) as other:
        other.settimeout(20)

        def speak() -> None:
            with other.accept()[0] as connection:
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                connection.recv(64)

        speaker = threading.Thread(target=speak)
        speaker.start()
        with pytest.raises(PairingFailed, match="does not answer as a pairing vpntun"):
            pair(own, other.getsockname()[1], "00000000")
        speaker.join()
    assert nothing_is_left(own)
