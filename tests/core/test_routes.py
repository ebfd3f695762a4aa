"""The route table, compared with a list that is searched from end to end."""

from __future__ import annotations

import random
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from time import perf_counter

from hypothesis import given
from hypothesis import strategies as st

from vpntun.core.routes import MOST_KNOWN, RouteTable
from vpntun.types import Network

# Few different bits, so that prefixes meet, nest and repeat.
NUMBERS_V4 = st.lists(st.sampled_from([0, 1, 127, 128, 255]), min_size=4, max_size=4).map(bytes)
NUMBERS_V6 = st.lists(st.sampled_from([0, 1, 128, 255]), min_size=16, max_size=16).map(bytes)
ADDRESSES = NUMBERS_V4 | NUMBERS_V6 | st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    address = draw(ADDRESSES)
    length = draw(st.integers(0, 8 * len(address)) | st.sampled_from([0, 8, 8 * len(address)]))
    kind = IPv4Network if len(address) == 4 else IPv6Network
    return kind((address, length), strict=False)


FEW_NETWORKS = st.sampled_from(
    [
        ip_network(text)
        for text in ("0.0.0.0/0", "0.0.0.0/8", "0.1.0.0/16", "0.1.0.0/24", "0.1.0.1", "::/0", "::/8", "::1")
    ]
)
CHANGES = st.one_of(
    st.tuples(st.just("add"), networks() | FEW_NETWORKS, st.sampled_from("abc")),
    st.tuples(st.just("remove"), FEW_NETWORKS, st.just("")),
    st.tuples(st.just("remove all"), FEW_NETWORKS, st.sampled_from("abc")),
    st.tuples(st.just("find"), networks() | FEW_NETWORKS, st.just("")),
)


class Slow:
    """A route table with the same interface that looks at every prefix."""

    def __init__(self) -> None:
        self.routes: dict[Network, str] = {}

    def find(self, address: bytes) -> str | None:
        over = [network for network in self.routes if ip_address(address) in network]
        return self.routes[max(over, key=lambda network: network.prefixlen)] if over else None

    def networks_of(self, link: str) -> list[Network]:
        mine = [network for network, led in self.routes.items() if led == link]
        return sorted(mine, key=lambda each: (each.version, int(each.network_address), each.prefixlen))


@given(st.lists(CHANGES, max_size=40), st.lists(ADDRESSES, max_size=20))
def test_it_answers_like_a_searched_list_through_any_additions_moves_and_removals(
    changes: list[tuple[str, Network, str]], addresses: list[bytes]
) -> None:
    table: RouteTable[str] = RouteTable()
    slow = Slow()
    for change, network, link in changes:
        if change == "add":
            table.add(network, link)
            slow.routes[network] = link
        elif change == "remove":
            table.remove(network)
            slow.routes.pop(network, None)
        elif change == "remove all":
            table.remove_all(link)
            slow.routes = {each: led for each, led in slow.routes.items() if led != link}
        address = network.network_address.packed  # a cached answer must not outlive a change
        assert table.find(address) == slow.find(address)
    for address in [*addresses, *(network.network_address.packed for _, network, _ in changes)]:
        assert table.find(address) == slow.find(address)
    for link in "abc":
        assert table.networks_of(link) == slow.networks_of(link)


def test_an_identical_prefix_moves_to_the_newer_link() -> None:
    table: RouteTable[str] = RouteTable()
    table.add(ip_network("10.1.0.0/16"), "old")
    table.add(ip_network("10.0.0.0/8"), "wide")
    table.add(ip_network("10.1.0.0/16"), "new")
    assert table.find(bytes([10, 1, 2, 3])) == "new"
    assert table.find(bytes([10, 2, 2, 3])) == "wide"
    table.remove_all("old")
    assert table.find(bytes([10, 1, 2, 3])) == "new"
    assert table.networks_of("old") == []


def test_host_bits_are_ignored() -> None:
    table: RouteTable[str] = RouteTable()
    table.add(ip_network("10.1.2.3/8", strict=False), "a")
    assert table.find(bytes([10, 200, 0, 1])) == "a"


def test_an_empty_table_finds_nothing_and_ip_versions_do_not_mix() -> None:
    table: RouteTable[str] = RouteTable()
    assert table.find(bytes(4)) is None
    assert table.find(bytes(16)) is None
    table.add(ip_network("::/0"), "six")
    assert table.find(bytes(4)) is None
    assert table.find(bytes(16)) == "six"


def test_removing_a_prefix_that_was_never_added_does_nothing() -> None:
    table: RouteTable[str] = RouteTable()
    table.add(ip_network("10.0.0.0/8"), "a")
    table.remove(ip_network("10.0.0.0/9"))
    table.remove(ip_network("::/0"))
    table.remove_all("b")
    assert table.networks_of("a") == [ip_network("10.0.0.0/8")]
    assert table.networks_of("b") == []


def test_when_the_narrower_prefix_is_removed_the_wider_one_matches() -> None:
    table: RouteTable[str] = RouteTable()
    table.add(ip_network("10.0.0.0/8"), "wide")
    table.add(ip_network("10.1.0.0/16"), "narrow")
    assert table.find(bytes([10, 1, 0, 1])) == "narrow"
    table.remove(ip_network("10.1.0.0/16"))
    assert table.find(bytes([10, 1, 0, 1])) == "wide"


# Large tables


class Big:
    """A seeded table of random prefixes for random peers, and the same prefixes as a list of plain numbers."""

    def __init__(self, prefixes: int, peers: int) -> None:
        self.rng = random.Random(prefixes)
        self.peers = [f"peer {number}" for number in range(peers)]
        self.table: RouteTable[str] = RouteTable()
        self.list: dict[tuple[int, int, int], str] = {}  # bytes of address, network, length
        for _ in range(prefixes):
            size = self.rng.choice((4, 4, 4, 16))
            length = self.rng.choice(
                (8, 12, 16, 20, 24, 24, 24, 28, 32) if size == 4 else (16, 32, 48, 56, 64, 64, 128)
            )
            number = self.rng.getrandbits(length) << (8 * size - length)
            self.list[size, number, length] = self.rng.choice(self.peers)
        self.places = list(self.list)
        for (size, number, length), peer in self.list.items():
            self.table.add((IPv4Network if size == 4 else IPv6Network)((number, length)), peer)

    def address(self) -> bytes:
        """A random address: half of them covered by a prefix of the table, half anywhere."""
        if self.rng.random() < 0.5:
            return self.rng.randbytes(self.rng.choice((4, 16)))
        size, number, length = self.rng.choice(self.places)
        return (number | self.rng.getrandbits(8 * size - length)).to_bytes(size, "big")

    def naive(self, address: bytes) -> str | None:
        found, longest = None, -1
        wanted, bits = int.from_bytes(address, "big"), 8 * len(address)
        for (size, number, length), peer in self.list.items():
            if length > longest and size == len(address) and (wanted ^ number) >> (bits - length) == 0:
                found, longest = peer, length
        return found


def test_100_000_prefixes_of_2_000_peers_lead_where_a_list_says() -> None:
    big = Big(100_000, 2_000)
    for _ in range(60):
        address = big.address()
        assert big.table.find(address) == big.naive(address)
    gone = set(big.rng.sample(big.peers, 1_000))
    for peer in gone:
        big.table.remove_all(peer)
    big.list = {place: peer for place, peer in big.list.items() if peer not in gone}
    for _ in range(40):
        address = big.address()
        assert big.table.find(address) == big.naive(address)
    assert sum(len(big.table.networks_of(peer)) for peer in big.peers) == len(big.list)


def best_of(rounds: int, table: RouteTable[str], addresses: list[bytes]) -> float:
    """The shortest time in seconds that looking up all of them took."""
    least = float("inf")
    for _ in range(rounds):
        begin = perf_counter()
        for address in addresses:
            table.find(address)
        least = min(least, perf_counter() - begin)
    return least


def test_a_look_up_costs_about_the_same_in_a_small_table_and_in_a_big_one() -> None:
    few, many = Big(200, 20), Big(50_000, 2_000)
    addresses = [many.address() for _ in range(2 * MOST_KNOWN)]  # more than the cache holds, so each is searched
    assert best_of(5, many.table, addresses) < 10 * best_of(5, few.table, addresses)


def test_more_addresses_than_the_cache_holds_take_no_more_memory_and_change_no_answer() -> None:
    table: RouteTable[str] = RouteTable()
    table.add(ip_network("10.0.0.0/8"), "a")
    table.add(ip_network("10.1.0.0/16"), "b")
    for number in range(3 * MOST_KNOWN):
        table.find(number.to_bytes(4, "big"))
        table.find(number.to_bytes(16, "big"))
        assert table.find(bytes([10, 1, 0, 1])) == "b"
    assert table.find(bytes([10, 2, 0, 1])) == "a"
    assert len(table._recent) <= MOST_KNOWN


def test_the_owner_of_a_prefix_is_that_of_exactly_this_one() -> None:
    table: RouteTable[str] = RouteTable()
    table.add(ip_network("10.0.0.0/8"), "wide")
    table.add(ip_network("10.1.0.0/16"), "narrow")
    assert table.owner(ip_network("10.0.0.0/8")) == "wide"
    assert table.owner(ip_network("10.1.0.0/16")) == "narrow"
    assert table.owner(ip_network("10.1.0.0/17")) is None
    assert table.owner(ip_network("fd00::/8")) is None
