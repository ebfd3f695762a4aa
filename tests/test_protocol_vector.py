"""The code computes the test vectors of docs/protocol.rst and has the constants listed there."""

from __future__ import annotations

import json
import re
import struct
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from tests.crypto.test_pairing import M, N
from vpntun.carriers import accepted, tcp_connection
from vpntun.config import tunnel
from vpntun.config.keyfile import read_shared
from vpntun.core import queue, source_limits
from vpntun.core.inside import answerer, asker
from vpntun.core.pairing import server as pairing_server
from vpntun.core.records import (
    black_hole,
    delay,
    hello,
    path_estimator,
    pathmtu,
    probes,
    protection,
    protocol,
    reassembly,
    receive_stats,
    span,
)
from vpntun.core.records.parity import ParityMaker, Restorer
from vpntun.core.selection import backoff, client, ports
from vpntun.core.speed import agreement, round_trips
from vpntun.core.wireguard import admission, peer, timers
from vpntun.crypto import cookies, replay, session
from vpntun.crypto.keys import KeyPair
from vpntun.crypto.noise import Initiator, SessionKeys, consume_initiation
from vpntun.crypto.service_proof import prove
from vpntun.crypto.session import Session
from vpntun.crypto.shared import SharedIdentity
from vpntun.crypto.timestamp import tai64n
from vpntun.datapath.sending import plain
from vpntun.pairing import calling
from vpntun.services import entering, entrance, granted, hub, permissions
from vpntun.speed import answering, asking, load_sender
from vpntun.types import LARGEST_MTU, SMALLEST_MTU
from vpntun.wire import burst, message, record, stream_framing, transport_header, vnet
from vpntun.wire.checksum import TCP, UDP, UDP_CHECKSUM, finish_transport, pseudo_sum, set_ipv4_header
from vpntun.wire.ethernet import frame
from vpntun.wire.ethernet.frame import ip_at
from vpntun.wire.ethernet.mac import parse_mac
from vpntun.wire.gso import Splitter
from vpntun.wire.inside import load, request, services

DOCUMENT = (Path(__file__).parents[1] / "docs" / "protocol.rst").read_text()
SECRET = bytes(range(32))
EVERYTHING = record.TAKES_ALL | record.TAKES_PARITY


def vector(name: str) -> str:
    """The literal block after the comment with this name, without its indentation."""
    found = re.search(rf"^\.\. vector: {name}\n\n::\n\n((?:    .*\n|\n)+)", DOCUMENT, re.MULTILINE)
    assert found, f"docs/protocol.rst has no vector named {name}"
    return re.sub(r"^    ", "", found[1], flags=re.MULTILINE).strip() + "\n"


def items(name: str) -> dict[str, str]:
    """The values of a vector by name. A line that begins with a space continues the one before."""
    joined = re.sub(r"\n +", "", vector(name))
    return dict(re.split(r" {2,}", line, maxsplit=1) for line in joined.splitlines())


def test_the_shared_keys_vector() -> None:
    shared = SharedIdentity.of(SECRET)
    assert items("shared key") == {
        "secret": SECRET.hex(),
        "server private key": shared.server.private.hex(),
        "server public key": shared.server.public.hex(),
        "client private key": shared.client.private.hex(),
        "client public key": shared.client.public.hex(),
        "preshared key": shared.psk.hex(),
        "IPv6 prefix": str(shared.prefix6),
        "server IPv4": str(shared.server4),
        "client IPv4": str(shared.client4),
        "server IPv6": str(shared.server6),
        "client IPv6": str(shared.client6),
    }


def test_the_key_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_text(vector("key file"))
    assert read_shared(path) == SECRET


def test_the_handshakes_vector() -> None:
    shared = SharedIdentity.of(SECRET)
    said = items("handshake")
    ours, theirs = (KeyPair.of(bytes.fromhex(said[f"{end} ephemeral"])) for end in ("client", "server"))
    stamp = tai64n(1700000000.5)

    initiator = Initiator(shared.client, shared.server.public, shared.psk, ours)
    initiation = initiator.initiation(0x01020304, stamp)
    received = consume_initiation(shared.server, initiation)
    response, server_keys = received.respond(shared.psk, 0x05060708, theirs)
    keys = initiator.consume_response(response)
    keepalive = bytearray(32)
    Session(keys, received.sender, 0x05060708, True, 0.0).seal_into(b"", memoryview(keepalive))

    assert (server_keys.receive, server_keys.send) == (keys.send, keys.receive)
    assert said == {
        "client ephemeral": ours.private.hex(),
        "client ephemeral public": ours.public.hex(),
        "server ephemeral": theirs.private.hex(),
        "server ephemeral public": theirs.public.hex(),
        "timestamp": stamp.hex(),
        "initiation": initiation.hex(),
        "response": response.hex(),
        "client to server key": keys.send.hex(),
        "server to client key": keys.receive.hex(),
        "first keepalive": keepalive.hex(),
    }


def test_the_cookies_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    said = items("cookie")
    drawn = {len(each): each for each in (bytes.fromhex(said["secret of the cookies"]), bytes.fromhex(said["nonce"]))}
    monkeypatch.setattr("vpntun.crypto.cookies.secrets.token_bytes", drawn.__getitem__)
    server = SharedIdentity.of(SECRET).server.public
    checker, jar = cookies.CookieChecker(server), cookies.CookieJar(server)
    initiation = jar.protect(bytes.fromhex(items("handshake")["initiation"]), "the client's port", 0.0)
    cookie = checker.cookie(IPv4Address("192.0.2.1").packed + (40000).to_bytes(2, "big"), 0.0)
    reply = checker.reply(initiation, 0x01020304, cookie)
    jar.take(reply, "the client's port", 0.0)
    assert said == {
        "secret of the cookies": drawn[32].hex(),
        "cookie": cookie.hex(),
        "nonce": drawn[24].hex(),
        "cookie reply": reply.hex(),
        "mac2": jar.protect(initiation, "the client's port", 0.0)[-16:].hex(),
    }


def test_the_records_vector() -> None:
    token = 0x0123456789ABCDEF
    assert items("records") == {
        "client's HELLO": record.Hello(False, EVERYTHING, answers=True).pack().hex(),
        "server's HELLO": record.Hello(True, EVERYTHING, answers=True).pack().hex(),
        "REPORT": record.Report(highest=2, opened=3, datagrams=5, failed=0, busy=128 / 255).pack().hex(),
        "PROBE of 12 bytes": record.Probe(token, 12).pack().hex(),
        "ECHO of it": record.Echo(token, 12).pack().hex(),
        "REQUEST, doctor": request.Request(token, request.DOCTOR, request.pack_body({})).pack().hex(),
        "ANSWER in one piece": request.answers_of(token, request.pack_body({"ok": True}))[0].pack().hex(),
        "LOAD of 12 bytes": load.new_load(token)[:12].hex(),
    }


def test_the_vector_of_a_services_proof() -> None:
    key, nonce, token = bytes(range(32)), bytes(range(32, 64)), bytes(range(64, 80))
    assert items("service") == {"proof": prove(key, nonce, token, "ssh").hex()}


def test_the_vector_of_a_pairing_and_its_constants() -> None:
    known = json.loads((Path(__file__).parent / "vectors" / "pairing.json").read_text())
    assert items("pairing") == {
        "code": known["code"],
        "client's 64 random bytes": known["client entropy"],
        "server's 64 random bytes": known["server entropy"],
        "X": known["client element"],
        "Y": known["server element"],
        "K": known["key"],
        "secret of the key file": known["shared key"],
        **{f"proof {number}": proof for number, proof in known["proofs"].items()},
    }
    assert items("constants of pairing") == {"M": M.hex(), "N": N.hex()}


def datagram(identification: int, payload: bytes) -> bytearray:
    """Make a UDP packet from the client to the server, with an unfinished checksum."""
    shared = SharedIdentity.of(SECRET)
    ends = IPv4Address(shared.client4).packed + IPv4Address(shared.server4).packed
    length = 8 + len(payload)
    packet = bytearray(struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, identification, 0, 64, UDP, 0) + ends)
    set_ipv4_header(packet)
    return packet + struct.pack("!HHHH", 40000, 7, length, pseudo_sum(packet, UDP, length)) + payload


def test_the_vector_of_a_bundle_and_a_burst() -> None:
    single, several = datagram(1, b"whole"), datagram(2, b"segment1segment2rest")
    finish_transport(single, 20, UDP_CHECKSUM)
    field = vnet.UNFINISHED | 8
    bundle = bytearray(90)
    end = record.append(bundle, record.begin_bundle(bundle), single, 0)
    assert record.append(bundle, end, several, field) == len(bundle)

    keys = SessionKeys(bytes.fromhex(items("handshake")["client to server key"]), bytes(32))
    session = Session(keys, 0x01020304, 0x05060708, True, 0.0)
    session.send_counter = 2
    sealed = memoryview(bytearray(message.LARGEST))
    size = session.seal_into(bundle, sealed)
    pieces = [bytes(piece) for piece in burst.BurstCutter(sealed).cut(size, 64)]
    datagrams = [header + piece for header, piece in zip(pieces[::2], pieces[1::2], strict=True)]
    joined = memoryview(bytearray(message.LARGEST))
    length, _ = burst.join_in_order(memoryview(b"".join(datagrams)), 0, 64, joined)

    splitter, out = Splitter(), memoryview(bytearray(128))
    numbers = range(splitter.split(memoryview(several), field))
    segments = [bytes(out[: splitter.write_run(index, 1, out, 0)]) for index in numbers]

    assert joined[:length] == sealed[:size]
    assert [len(bundle), size, len(datagrams), len(segments)] == [90, 122, 3, 3]
    assert items("bundle and burst") == {
        "datagram of 33 bytes": single.hex(),
        "superpacket of 48 bytes": several.hex(),
        "BUNDLE": bundle.hex(),
        "message, counter 2": sealed[:size].hex(),
        **{f"burst, {index} of 3": each.hex() for index, each in enumerate(datagrams)},
        **dict(
            zip(("first segment", "second segment", "third segment"), (each.hex() for each in segments), strict=True)
        ),
    }


def test_the_vector_of_frames() -> None:
    shared = SharedIdentity.of(SECRET)
    ours, its = IPv4Address(shared.client4).packed, IPv4Address(shared.server4).packed
    mac, other_mac = parse_mac("02:00:5e:10:00:01"), parse_mac("02:00:5e:10:00:02")
    arp = b"\xff" * 6 + mac + bytes.fromhex("0806 0001080006040001") + mac + ours + bytes(6) + its
    payload = b"".join(bytes([letter]) * 48 for letter in b"ab") + b"rest"
    packet = bytearray(struct.pack("!BBHHHBBH", 0x45, 0, 40 + len(payload), 2, 0x4000, 64, TCP, 0) + ours + its)
    set_ipv4_header(packet)
    checksum = pseudo_sum(packet, TCP, 20 + len(payload))
    packet += struct.pack("!HHIIBBHHH", 40000, 7, 1000, 2000, 0x50, 0x18, 500, checksum, 0) + payload
    tagged = bytearray(other_mac + mac + bytes.fromhex("8100 0007 0800") + packet)

    lead, field = ip_at(tagged), vnet.UNFINISHED | 48
    virtio = bytearray(vnet.VNET_HEADER_SIZE)
    vnet.header_for(tagged, len(tagged), field, virtio, lead)
    assert vnet.segment_field_of_frame(virtio, memoryview(tagged), lead) == field
    frames = bytearray(record.BUNDLE_START + 2 * record.ENTRY_SIZE + len(arp) + len(tagged))
    end = record.append(frames, record.begin_bundle(frames, record.FRAMES), arp, 0)
    assert record.append(frames, end, tagged, field) == len(frames)
    assert [(bytes(each), of) for each, of in record.packets_of(memoryview(frames))] == [(arp, 0), (tagged, field)]

    splitter, out = Splitter(), memoryview(bytearray(128))
    count = splitter.split(memoryview(tagged), field, lead)
    segments = [bytes(out[: splitter.write_run(index, 1, out, 0)]) for index in range(count)]

    assert [ip_at(arp), lead, len(arp), len(tagged), len(frames), count] == [0, 18, 42, 158, 209, 3]
    assert vnet.VNET_HEADER.unpack(virtio) == (vnet.NEEDS_CSUM, vnet.GSO_TCPV4, 58, 48, 38, 16)
    assert items("frames") == {
        "client's HELLO": record.Hello(False, EVERYTHING, answers=True, is_tap=True).pack().hex(),
        "ARP frame, 42 bytes": arp.hex(),
        "tagged frame, 158 bytes": tagged.hex(),
        "FRAMES": frames.hex(),
        **dict(
            zip(("first segment", "second segment", "third segment"), (each.hex() for each in segments), strict=True)
        ),
    }


def test_the_vector_of_a_parity() -> None:
    packets = [datagram(1, b"whole"), datagram(2, b"segment1")]
    bundles = []
    for packet in packets:
        finish_transport(packet, 20, UDP_CHECKSUM)
        bundles.append(bytearray(record.BUNDLE_START + record.ENTRY_SIZE + len(packet)))
        record.append(bundles[-1], record.begin_bundle(bundles[-1]), packet, 0)
    maker = ParityMaker()
    assert maker.add(3, memoryview(bundles[0]), 2) == b""
    parity = maker.add(4, memoryview(bundles[1]), 2)

    restorer, window = Restorer(), replay.ReplayWindow()
    restorer.restore(record.Parity.parse(parity), window, 1.0)
    restorer.keep(4, memoryview(bundles[1]))
    assert restorer.restore(record.Parity.parse(parity), window, 1.0) == (3, bytes(bundles[0]))

    assert [len(bundle) for bundle in bundles] == [38, 41]
    assert items("parity") == {
        "BUNDLE, counter 3": bundles[0].hex(),
        "BUNDLE, counter 4": bundles[1].hex(),
        "PARITY": parity.hex(),
    }


def test_the_vector_of_a_protected_burst() -> None:
    packet = datagram(1, b"whole")
    finish_transport(packet, 20, UDP_CHECKSUM)
    padded = bytearray(56)
    end = record.append(padded, record.begin_bundle(padded), packet, 0)
    assert [bytes(each) for each, _ in record.packets_of(memoryview(padded))] == [bytes(packet)]

    keys = SessionKeys(bytes.fromhex(items("handshake")["client to server key"]), bytes(32))
    session = Session(keys, 0x01020304, 0x05060708, True, 0.0)
    session.send_counter = 6
    sealed = memoryview(bytearray(message.LARGEST))
    size = session.seal_into(padded, sealed)
    pieces = [bytes(piece) for piece in burst.BurstCutter(sealed).cut(size, 40, protected=True)]
    datagrams = [header + piece for header, piece in zip(pieces[::2], pieces[1::2], strict=True)]

    assert [end, size, len(datagrams)] == [38, 16 + 3 * 24, 4]
    assert items("protected burst") == {
        "padded BUNDLE": padded.hex(),
        "message, counter 6": sealed[:size].hex(),
        **{f"burst, {index} of 3": each.hex() for index, each in enumerate(datagrams[:-1])},
        "parity": datagrams[-1].hex(),
    }


CONSTANTS = {
    "port, UDP and TCP": f"{tunnel.DEFAULT_PORT}",
    "device MTU, with a shared key": f"{tunnel.DEFAULT_MTU}",
    "device MTU, with WireGuard's keys": f"{tunnel.DEFAULT_MTU_TO_WIREGUARD}",
    "smallest, largest MTU": f"{SMALLEST_MTU}, {LARGEST_MTU}",
    "largest MTU of a TAP device": f"{tunnel.LARGEST_MTU_OF_TAP}",
    "smallest data message": f"{message.SMALLEST}",
    "padding of a packet without a record": f"{plain.PADDING}",
    "initiation, at most one in": f"{timers.REKEY_TIMEOUT:g} s",
    "jitter": f"0 to {timers.LARGEST_JITTER:.3f} s",
    "keepalive": f"{timers.KEEPALIVE_TIMEOUT:g} s",
    "persistent keepalive of a client": f"{tunnel.CLIENT_KEEPALIVE:g} s",
    "silence until a new handshake": f"{timers.KEEPALIVE_TIMEOUT + timers.REKEY_TIMEOUT:g} s",
    "rekey when sending": f"{session.REKEY_AFTER_TIME} s",
    "rekey when receiving": f"{session.REKEY_ON_RECEIVE_AFTER} s",
    "rekey after messages": f"2^{session.REKEY_AFTER_MESSAGES.bit_length() - 1}",
    "a session is refused after": f"{session.REJECT_AFTER_TIME} s",
    "a session is refused after messages": "2^64 - 2^13 - 1",
    "keys are wiped after": f"{timers.ZERO_KEYS_AFTER:g} s",
    "giving up, dropping what waits": f"{timers.REKEY_ATTEMPT_TIME:g} s",
    "shortest time between initiations consumed": f"{peer.SHORTEST_BETWEEN_CONSUMED * 1000:g} ms",
    "silence before a peer is asked in return": f"{peer.SILENT_AFTER:g} s",
    "cookies: secret is used for, cookie is used for": f"{cookies.SECRET_LASTS:g} s, {cookies.COOKIE_LASTS:g} s",
    "handshakes in the queue, those that make a load": f"{admission.MOST_WAITING}, {admission.MANY}",
    "waiting time that makes a load": f"{admission.LONGEST_WAIT:g} s",
    "load lasts": f"{admission.SECONDS_OF_LOAD:g} s",
    "handshakes of one network under load": f"{source_limits.RATE:g} a second, {source_limits.BURST} at once",
    "networks that are known under load": f"{source_limits.MOST_NETWORKS}",
    "replay window": f"{replay.WINDOW}",
    "record kinds, HELLO's version": f"1 to {record.LAST_KIND}, {record.VERSION}",
    "largest record": f"{record.LARGEST_RECORD}",
    'a "largest" that says "no records"': f"below {hello.SMALLEST_LARGEST}",
    "what a BUNDLE of one packet adds to it": f"{protocol.OVERHEAD}",
    "packets of a BUNDLE, and the shortest": f"{record.MOST_PACKETS}, {record.SMALLEST_PACKET}",
    "shortest frame, VLAN tags before its IP packet": f"{record.SMALLEST_FRAME}, at most {frame.MOST_TAGS}",
    "HELLO answered at once": f"{hello.ANSWERS_AT_ONCE} times a session",
    "HELLO repeated after": f"{hello.SHORTEST_PAUSE:g} s, doubling to {hello.LONGEST_PAUSE:g} s",
    "HELLOs without an answer, then one in": f"{hello.MOST_UNANSWERED}, {hello.SECONDS_BETWEEN_LATER / 3600:g} h",
    "what was said in the last session holds for": f"{hello.INHERITED_FOR:g} s",
    "REPORT": f"each {receive_stats.INTERVAL * 1000:g} ms",
    "bytes of JSON in a REQUEST, pieces of an ANSWER": f"{request.LARGEST_BODY}, {request.MOST_PIECES}",
    "objects and lists inside each other": f"{request.DEEPEST}",
    "REQUEST repeated after": f"{', '.join(f'{pause:g}' for pause in asker.PAUSES)} s",
    "REQUEST given up after, waiting at a time": f"{asker.GIVE_UP_AFTER:g} s, {asker.MOST_PENDING}",
    "REQUESTs of a peer that are answered": f"{answerer.RATE:g} a second, {answerer.BURST} at once",
    "services in a list, places of one": f"{services.MOST_OFFERS}, {services.MOST_PLACES}",
    "token of a service is valid for, used for": f"{permissions.LASTS:g} s, {granted.SECONDS_KEPT:g} s",
    "tokens of a peer that are kept": f"{permissions.MOST_OF_A_PEER}",
    "greeting of a visit, at both ends": f"{entrance.SECONDS_TO_ENTER:g} s, {entering.SECONDS_TO_ENTER:g} s",
    "hub waits for a visit's answer, for a list": f"{hub.SECONDS_FOR_VISIT:g} s, {hub.SECONDS_FOR_LIST:g} s",
    "requests that a hub passes on for a peer": f"{hub.PASSED_ON_PER_SECOND} a second, {hub.PASSED_ON_AT_ONCE} at once",
    "speed test of one direction, at most": f"{agreement.LONGEST} s",
    "time for speed tests that one peer asks for": f"a quarter, {answering.SECONDS_AT_ONCE} s at once",
    "sender of LOAD stops without a REPORT, an asker": f"{load_sender.SILENCE:g} s, {answering.SILENCE_OF_SENDER:g} s",
    "receiver of LOAD stops without an asker": f"{answering.SILENCE_OF_RECEIVER:g} s",
    "state of a speed test is asked for each": f"{asking.BETWEEN_STATES:g} s",
    "PROBE during a speed test each": f"{round_trips.INTERVAL * 1000:g} ms",
    "answers that are kept": f"{answerer.MOST_KEPT}, for {answerer.KEPT_FOR:g} s",
    "PROBE is given up after": f"{probes.SHORTEST_TIMEOUT:g} s to {probes.LONGEST_TIMEOUT:g} s",
    "PROBEs out": f"{probes.MOST_OUT}",
    "datagrams of a burst": f"{burst.MOST_DATAGRAMS}",
    "bytes of a burst": f"{pathmtu.LARGEST}",
    "unfinished burst is given up after": f"{reassembly.AGE:g} s",
    "unfinished bursts, of the endpoint and of others": f"{reassembly.ENDPOINT_SLOTS}, {reassembly.OTHER_SLOTS}",
    "smallest gso_size of TCP": f"{vnet.SMALLEST_TCP_SEGMENT}",
    "segments in a TCP superpacket": f"{vnet.MOST_TCP_SEGMENTS}",
    "datagrams in a UDP superpacket": f"{vnet.MOST_UDP_SEGMENTS}",
    "largest gso_size": f"{vnet.SEGMENT_SIZE}",
    "IPv6 extension headers of a superpacket": f"{transport_header.MOST_EXTENSIONS}",
    "headers of a superpacket": f"{transport_header.MOST_HEADERS}",
    "records in a group of a PARITY": f"2 to {record.MOST_IN_GROUP}",
    "span of long records": f"{span.MOST}",
    "REPORTs until records are long": f"{span.REPORTS_BEFORE_LONG}; 1 after {span.REPORTS_OF_A_SECOND}",
    "loss at which records are single again": f"over {span.MOST_LOSS:.2%}",
    "span times loss of datagrams, if protected": f"{span.AIM}, {span.AIM_PROTECTED}",
    "round trip of a PROBE on a short path": f"under {1000 * delay.SHORT:g} ms",
    "no delay before a loss that calls for protection": f"{protection.DELAY_HOLDS:g} s",
    "datagrams of a path that are protected at first": f"{protection.FIRST_LOOK}",
    "loss at which records are protected, are no more": (
        f"{protection.WANTED_OVER:.2%}, {protection.UNWANTED_UNDER:.2%}"
    ),
    "loss that calls for protection fades over": f"{protection.FADING}",
    "records that share a parity": f"{protection.SMALLEST_GROUP} to {protection.LARGEST_GROUP}",
    "their number times loss": f"{protection.AIM}",
    "room: of the rate that delayed": f"{path_estimator.ROOM}",
    "datagrams in a sample of loss": f"{path_estimator.FEWEST_DATAGRAMS}",
    "silence that ends long records": f"{black_hole.SILENCE:g} s",
    "idleness that ends long records": f"{span.IDLENESS:g} s",
    "bursts are looked into after": f"{black_hole.BURST_SILENCE:g} s",
    "bursts that vanish are tried again after": (
        f"{black_hole.FIRST_RETRY:g} s, doubling to {black_hole.LAST_RETRY:g} s"
    ),
    "record at most, of the delivered rate": f"{span.RECORD_TIME * 1000:g} ms",
    "record over TCP at least": f"{span.LEAST_OF_STREAM}",
    "UDP payload at first": f"{pathmtu.BASE}",
    "PROBEs of one length": f"{pathmtu.TRIES}, {pathmtu.PAUSE:g} s apart",
    "a REPORT is late after": (
        f"{black_hole.REPORTS_ARE_LATE_AFTER:g} s; then a PROBE every {black_hole.PROBE_EVERY:g} s"
    ),
    "nothing arrives after": (
        f"{black_hole.NOTHING_ARRIVES_AFTER:g} s; then a PROBE every {black_hole.PROBE_EVERY_LATER:g} s"
    ),
    "a client asks whether anything arrives after": f"{black_hole.QUIET:g} s without a REPORT",
    "a client asks a server that may have restarted": (
        f"{black_hole.DOUBTED_AFTER:g} to {black_hole.DOUBTED_UNTIL:g} s after a PROBE"
    ),
    "lengths left in question": f"{pathmtu.GRAIN}",
    "path searched again after": f"{pathmtu.AGAIN_AFTER:g} s",
    "queue of a link, at first": f"{queue.UNKNOWN_RATE_BYTES // 1024} KiB",
    "queue of a link, at a measured rate": f"{queue.MOST_TIME * 1000:g} ms, at most {queue.MOST_BYTES >> 20} MiB",
    "queue of a link, in packets": f"{queue.MOST_ENTRIES}",
    "TCP frame before authentication": f"{stream_framing.LARGEST_BEFORE_AUTHENTICATION}",
    "the same, if its header fits a session": f"{stream_framing.LARGEST_THAT_FITS}",
    "TCP frame": f"{message.LARGEST}",
    "TCP time to authenticate, then to be the endpoint": f"{accepted.SECONDS_OF_PROBATION:g} s",
    "TCP connections of strangers, one address": f"{accepted.MOST_STRANGERS_PER_NETWORK}",
    "TCP connections of strangers, in all": f"{accepted.MOST_STRANGERS}",
    "TCP connections of a peer beside its endpoint": f"{accepted.MOST_BESIDE_ENDPOINT}",
    "TCP connection that was replaced closes after": f"{tcp_connection.SECONDS_TO_HANG_UP:g} s",
    "TCP initiations on one connection": f"{client.ASKED_PER_CONNECTION}",
    "TCP data unacknowledged": f"{tcp_connection.USER_TIMEOUT_MS / 1000:g} s",
    "a fresh UDP port is used after": f"{ports.SHORTEST:g} to {ports.LONGEST:g} s",
    "the other carrier is tried after": f"{client.BESIDE_AFTER:g} s",
    "UDP is tried again after": f"{client.FIRST_TRIAL:g} s, doubling to {client.LAST_TRIAL:g} s",
    "a code is good for": f"{pairing_server.SECONDS_OF_CODE:g} s, {pairing_server.MOST_TRIES} tries",
    "another client that has the code is refused for": f"{pairing_server.SECONDS_OF_CLAIM:g} s",
    "connections before a client's proof, and after it": f"{calling.MOST_CONNECTIONS}",
    "answers of a pairing, before READY and after it": (
        f"{calling.SECONDS_TO_ANSWER:g} s, {calling.SECONDS_TO_SETTLE:g} s"
    ),
    "longest pause": f"{backoff.CAP:g} s, and a quarter at most",
}


def test_the_table_of_constants_matches_the_code() -> None:
    table = DOCUMENT.partition(".. constants\n")[2]
    rows = (re.split(r" {2,}", line.strip(), maxsplit=1) for line in table.splitlines())
    said = {row[0]: row[1] for row in rows if len(row) == 2 and not row[0].startswith("=")}
    assert said == CONSTANTS
    assert replay.LIMIT == 2**64 - 2**13 - 1
    assert backoff.JITTER == 0.25


def test_the_lengths_that_are_probed_first_are_listed() -> None:
    plain_text = " ".join(DOCUMENT.split())
    for common in (pathmtu.COMMON_V4, pathmtu.COMMON_V6):
        assert ", ".join(map(str, common)) in plain_text


@pytest.mark.parametrize("label", ["server", "client", "psk", "prefix6", "pair4"])
def test_every_label_of_the_derivation_is_documented(label: str) -> None:
    assert f"``vpntun {label}``" in DOCUMENT
