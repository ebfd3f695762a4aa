"""Indices: unique, random, and without an owner once freed."""

from __future__ import annotations

from vpntun.core.wireguard.indices import Indices


def test_an_index_leads_to_its_owner_until_it_is_freed() -> None:
    indices: Indices[str] = Indices()
    numbers = [indices.reserve(f"owner {number}") for number in range(1000)]
    assert len(set(numbers)) == len(indices) == 1000
    assert all(0 <= number < 2**32 for number in numbers)
    assert indices.find(numbers[7]) == "owner 7"
    indices.hand_over(numbers[7], "another")
    assert indices.find(numbers[7]) == "another"
    indices.free(numbers[7])
    indices.free(numbers[7])
    assert indices.find(numbers[7]) is None
    assert len(indices) == 999


def test_indices_reveal_nothing_about_each_other() -> None:
    indices: Indices[str] = Indices()
    numbers = [indices.reserve("") for _ in range(64)]
    assert len({number >> 24 for number in numbers}) > 8
    assert numbers != sorted(numbers)
