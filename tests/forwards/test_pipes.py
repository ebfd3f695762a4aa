"""Pool of pipes: handed out empty, and bounded while they are spare."""

from __future__ import annotations

import os

import pytest

from tests.machine import no_more_descriptors
from vpntun.forwards.pipes import MOST_SPARE, PipePool


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_pipe_that_was_given_back_is_handed_out_again() -> None:
    pool = PipePool()
    pipe = pool.take()
    pool.give_back(pipe)
    assert pool.take() == pipe
    pool.discard(pipe)


def test_only_a_few_pipes_stay_open_when_they_are_not_needed_any_more() -> None:
    before = open_descriptors()
    pool = PipePool()
    pipes = [pool.take() for _ in range(3 * MOST_SPARE)]
    for pipe in pipes:
        pool.give_back(pipe)
    assert open_descriptors() == before + 2 * MOST_SPARE
    pool.close()
    assert open_descriptors() == before


def test_a_pipe_that_cannot_be_made_is_an_error_of_the_system() -> None:
    pool = PipePool()
    with no_more_descriptors(), pytest.raises(OSError, match="Too many open files"):
        pool.take()
