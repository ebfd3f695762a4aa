"""The server's decisions: three tries, ten minutes, one client; strangers cost nothing and learn nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpntun.core.pairing.client import Agreed, PairingClient, Prove, Settled
from vpntun.core.pairing.messages import SIZE, TYPE, VERSION, Message, Number, Reason
from vpntun.core.pairing.server import (
    MOST_TRIES,
    SECONDS_OF_CLAIM,
    SECONDS_OF_CODE,
    Event,
    HangUp,
    PairingServer,
    Reply,
    WriteKey,
    WrongCode,
    describe_tries,
)
from vpntun.crypto.pairing import PairingCode

CODE = "7KQ2M9XD"
OF_SERVER, OF_CLIENT = PairingCode(CODE, "server"), PairingCode(CODE, "client")
WRONG = PairingCode("00000000", "client")
NOW = 1000.0
HUNG_UP = [HangUp()]


@pytest.fixture
def server() -> PairingServer:
    return PairingServer(OF_SERVER, NOW)


def reply(events: list[Event]) -> Message:
    assert isinstance(events[0], Reply)
    return Message.parse(events[0].message)


def opened(server: PairingServer, caller: object, code: PairingCode = OF_CLIENT) -> tuple[PairingClient, bytes]:
    """Open an exchange; return the client and its proof."""
    client = PairingClient(code)
    prove = client.receive(reply(server.receive(caller, client.first, NOW)).pack())
    assert isinstance(prove, Prove)
    return client, prove.message


def agreed(server: PairingServer, caller: object, now: float = NOW) -> tuple[PairingClient, Agreed]:
    client, proof = opened(server, caller)
    said = client.receive(reply(server.receive(caller, proof, now)).pack())
    assert isinstance(said, Agreed)
    return client, said


def guess(server: PairingServer, caller: object, now: float = NOW) -> list[Event]:
    return server.receive(caller, opened(server, caller, WRONG)[1], now)


def test_a_client_with_the_code_gets_the_key_that_the_server_writes(server: PairingServer) -> None:
    client, said = agreed(server, "a")
    assert server.receive("a", said.ready, NOW) == [WriteKey(said.secret)]
    written = server.written(True)
    assert client.receive(reply(written).pack()) == Settled(True)
    assert written[1:] == HUNG_UP


def test_a_server_that_cannot_write_its_key_says_so_with_a_proof(server: PairingServer) -> None:
    client, said = agreed(server, "a")
    server.receive("a", said.ready, NOW)
    assert client.receive(reply(server.written(False)).pack()) == Settled(False)


def test_three_wrong_codes_spoil_the_code_and_each_client_is_told_what_is_left(server: PairingServer) -> None:
    for number in range(MOST_TRIES):
        assert not server.is_spoiled
        wrong, refused, hang_up = guess(server, number)
        left = MOST_TRIES - 1 - number
        assert (wrong, hang_up) == (WrongCode(left), HangUp())
        assert reply([refused]) == Message.refused(Reason.WRONG_CODE, left)
    assert server.is_spoiled
    assert server.receive("late", PairingClient(OF_CLIENT).first, NOW) == HUNG_UP


def test_a_right_code_after_two_wrong_ones_works(server: PairingServer) -> None:
    guess(server, 1)
    guess(server, 2)
    _, said = agreed(server, 3)
    assert server.receive(3, said.ready, NOW) == [WriteKey(said.secret)]


def test_guesses_prepared_side_by_side_are_three_all_the_same(server: PairingServer) -> None:
    proofs = {caller: opened(server, caller, WRONG)[1] for caller in range(10)}
    right = opened(server, "right")[1]
    said = [server.receive(caller, proof, NOW) for caller, proof in proofs.items()]
    assert [events[0] for events in said[:3]] == [WrongCode(2), WrongCode(1), WrongCode(0)]
    assert said[3:] == [HUNG_UP] * 7
    assert server.receive("right", right, NOW) == HUNG_UP


def test_callers_that_open_and_break_off_cost_no_try_and_get_no_proof(server: PairingServer) -> None:
    for caller in range(20):
        answer = reply(server.receive(caller, PairingClient(WRONG).first, NOW))
        assert answer.number is Number.ANSWER
        assert not server.gone(caller)
    assert agreed(server, "a")


def test_an_invalid_element_costs_no_try(server: PairingServer) -> None:
    for caller, body in enumerate([bytes(32), b"\1" + bytes(31), b"\xff" * 32, b"\2" + bytes(31)]):
        server.receive(caller, Message(Number.OPEN, body).pack(), NOW)
        assert server.receive(caller, Message(Number.CLIENT_KNOWS, bytes(32)).pack(), NOW) == HUNG_UP
    guess(server, "wrong")
    guess(server, "wrong again")
    assert agreed(server, "a")


@pytest.mark.parametrize("frame", [b"", b"\1\0\0\0" + bytes(144), bytes(SIZE), b"GET / HTTP/1.1\r\n" + bytes(20)])
def test_messages_of_other_protocols_get_no_answer(server: PairingServer, frame: bytes) -> None:
    assert server.receive("stranger", frame, NOW) == HUNG_UP


def test_another_version_is_told_so(server: PairingServer) -> None:
    said = server.receive("a", bytes([TYPE, VERSION + 1]) + bytes(34), NOW)
    assert (reply(said), said[1:]) == (Message.refused(Reason.OTHER_VERSION), HUNG_UP)


def test_messages_out_of_order_replayed_or_of_the_server_itself_are_refused(server: PairingServer) -> None:
    first = PairingClient(OF_CLIENT).first
    for number in set(Number) - {Number.OPEN}:
        assert server.receive("a", Message(number, bytes(32)).pack(), NOW) == HUNG_UP
    assert len(server.receive("a", first, NOW)) == 1
    assert server.receive("a", first, NOW) == HUNG_UP
    _, proof = opened(server, "b")
    assert reply(server.receive("b", proof, NOW)).number is Number.SERVER_KNOWS
    assert server.receive("b", proof, NOW) == HUNG_UP


def test_a_recorded_exchange_is_a_wrong_guess_when_it_is_replayed(server: PairingServer) -> None:
    client, proof = opened(server, "a")
    server.receive("b", client.first, NOW)
    assert server.receive("b", proof, NOW)[0] == WrongCode(2)


def test_a_second_client_with_the_code_has_to_wait_for_the_first_and_costs_no_try(server: PairingServer) -> None:
    _, first = agreed(server, "a")
    _, proof = opened(server, "b")
    assert reply(server.receive("b", proof, NOW)) == Message.refused(Reason.BUSY)
    assert server.receive("a", first.ready, NOW) == [WriteKey(first.secret)]
    assert not server.is_spoiled


def test_wrong_codes_cannot_end_the_pairing_between_the_proof_of_the_right_one_and_ready(server: PairingServer) -> None:
    guess(server, 1)
    guess(server, 2)
    _, right = agreed(server, "a")
    assert reply(guess(server, 3)) == Message.refused(Reason.BUSY)
    assert not server.is_spoiled
    assert server.receive("a", right.ready, NOW) == [WriteKey(right.secret)]


def test_codes_are_tried_again_once_the_client_with_the_right_one_has_vanished(server: PairingServer) -> None:
    agreed(server, "a")
    assert guess(server, "b", NOW + SECONDS_OF_CLAIM)[0] == WrongCode(2)


def test_a_client_that_is_ready_over_another_connection_is_heard(server: PairingServer) -> None:
    _, said = agreed(server, "a")
    assert server.gone("a")
    assert server.receive("b", said.ready, NOW) == [WriteKey(said.secret)]


def test_a_client_that_vanished_makes_room_for_the_next_after_ten_seconds(server: PairingServer) -> None:
    _, lost = agreed(server, "a")
    _, said = agreed(server, "b", NOW + SECONDS_OF_CLAIM)
    assert server.receive("a", lost.ready, NOW + SECONDS_OF_CLAIM) == HUNG_UP
    assert server.receive("b", said.ready, NOW + SECONDS_OF_CLAIM) == [WriteKey(said.secret)]


def test_ready_needs_a_proof(server: PairingServer) -> None:
    agreed(server, "a")
    assert server.receive("a", Message(Number.READY, bytes(32)).pack(), NOW) == HUNG_UP


def test_the_code_ends_after_ten_minutes(server: PairingServer) -> None:
    assert server.deadline == NOW + SECONDS_OF_CODE == NOW + 600
    _, proof = opened(server, "a")
    assert server.receive("a", proof, NOW + SECONDS_OF_CODE) == HUNG_UP


def test_a_client_that_was_proven_right_in_the_last_second_may_finish(server: PairingServer) -> None:
    late = NOW + SECONDS_OF_CODE - 1
    _, said = agreed(server, "a", late)
    assert server.deadline == late + SECONDS_OF_CLAIM
    assert server.receive("a", said.ready, late + 5) == [WriteKey(said.secret)]


def test_only_the_caller_with_the_right_code_is_missed_when_it_goes(server: PairingServer) -> None:
    opened(server, "b")
    assert not server.has_agreed
    agreed(server, "a")
    assert server.has_agreed
    assert [server.gone("b"), server.gone("a")] == [False, True]


frames = st.one_of(
    st.builds(
        lambda number, body: Message(number, body).pack(), st.sampled_from(Number), st.binary(min_size=32, max_size=32)
    ),
    st.sampled_from([PairingClient(WRONG).first, PairingClient(OF_CLIENT).first]),
    st.binary(max_size=40),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), frames), max_size=12))
def test_whatever_callers_without_the_code_send_nothing_is_written_and_at_most_three_tries_are_lost(
    sent: list[tuple[int, bytes]],
) -> None:
    server = PairingServer(OF_SERVER, NOW)
    events = [event for caller, frame in sent for event in server.receive(caller, frame, NOW)]
    assert not any(isinstance(event, WriteKey) for event in events)
    assert sum(isinstance(event, WrongCode) for event in events) <= MOST_TRIES
    assert not server.has_agreed


def test_the_tries_are_counted_in_words() -> None:
    assert list(map(describe_tries, range(3))) == ["no try is left", "one try is left", "2 tries are left"]


def test_no_secret_is_shown() -> None:
    assert repr(b"secret") not in repr(WriteKey(b"secret"))
