"""Which terminal makes room for another."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_sandbox.core.terminal import expendable


@dataclass(frozen=True)
class Open:
    last_used: int
    finished: bool = False


def test_the_oldest_goes_when_all_run() -> None:
    terminals = [Open(last_used=20), *(Open(last_used=number) for number in range(12))]

    assert expendable(terminals) is terminals[0]


def test_the_oldest_finished_one_goes_first() -> None:
    terminals = [Open(0), Open(1, finished=True), Open(2, finished=True), *(Open(number) for number in range(3, 13))]

    assert expendable(terminals) is terminals[1]


def test_a_finished_one_among_the_last_used_stays() -> None:
    terminals = [Open(0), Open(30, finished=True), *(Open(number) for number in range(1, 12))]

    assert expendable(terminals) is terminals[0]


def test_one_is_enough() -> None:
    only = Open(0)

    assert expendable([only]) is only
