"""What is kept of a terminal's output, and found in it."""

from __future__ import annotations

import re

import pytest

from pytest_sandbox.core.transcript import Excerpt, PlainText, Ring, alternatives, find_first
from pytest_sandbox.models import EOF

STREAM = "\x1b[1;31mgrün\x1b[0m\r\n\x1b]0;title\x07a\tb\x1b(B€ \x08\x07\r\r\n50%\r100%\x1bPq\x1b\\ end".encode()
TEXT = "grün\na\tb€ \n50%\r100% end"


def plain(*chunks: bytes, limit: int = 1000) -> str:
    text = PlainText(limit)
    for chunk in chunks:
        text.feed(chunk)
    return text.text


# --- the ring ---


def test_a_ring_keeps_the_last_bytes_and_counts_all() -> None:
    ring = Ring(5)
    for chunk in (b"", b"abc", b"defg", b"h"):
        ring.append(chunk)

    assert (ring.content(), ring.total) == (b"defgh", 8)


def test_a_ring_takes_a_chunk_larger_than_itself() -> None:
    ring = Ring(3)
    ring.append(b"abcdefgh")

    assert (ring.content(), ring.total) == (b"fgh", 8)


def test_a_ring_of_nothing_keeps_nothing() -> None:
    ring = Ring(0)
    ring.append(b"abc")

    assert (ring.content(), ring.total) == (b"", 3)


# --- text without control sequences ---


def test_control_sequences_are_left_out() -> None:
    assert plain(STREAM) == TEXT


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_text_is_the_same_wherever_it_is_cut(cut: int) -> None:
    assert plain(STREAM[:cut], STREAM[cut:]) == TEXT


def test_text_is_the_same_byte_by_byte() -> None:
    assert plain(*(bytes([byte]) for byte in STREAM)) == TEXT


def test_a_line_end_of_the_program_and_of_the_terminal_is_one() -> None:
    assert plain(b"a\r\r\nb\r\r", b"\nc\r", b"\n") == "a\nb\nc\n"


def test_a_return_is_held_back_until_it_is_known_what_follows() -> None:
    text = PlainText(100)
    text.feed(b"50%\r")
    assert text.text == "50%"

    text.feed(b"60%")
    assert text.text == "50%\r60%"


@pytest.mark.parametrize("stream", [b"\r" * 100_000, b"\x1b[" + b"1" * 100_000, b"\x1b]" + b"x" * 100_000])
def test_what_never_ends_takes_no_memory(stream: bytes) -> None:
    text = PlainText(1000)
    for _ in range(10):
        text.feed(stream)

    assert len(text.text) <= 1000


def test_taken_text_is_gone() -> None:
    text = PlainText(100)
    text.feed(b"one two")

    assert (text.take(4), text.text, text.take(), text.text) == ("one ", "two", "two", "")


def test_beyond_the_limit_the_oldest_goes() -> None:
    assert plain(b"abc", b"def", b"gh", limit=4) == "efgh"
    assert plain(b"abcdefgh", limit=4) == "efgh"


# --- excerpts ---


def test_a_text_within_the_budget_is_whole() -> None:
    excerpt = Excerpt(3)
    excerpt.add("12345")
    excerpt.add("6789ab")

    assert (excerpt.text, excerpt.tokens, excerpt.truncated) == ("123456789ab", 3, False)


@pytest.mark.parametrize("max_tokens", [*range(30), 100])
def test_an_excerpt_never_exceeds_its_budget(max_tokens: int) -> None:
    excerpt = Excerpt(max_tokens)
    for _ in range(50):
        excerpt.add("€ and €uro ")

    assert excerpt.truncated
    assert len(excerpt.text.encode()) <= max_tokens * 4
    assert "\ufffd" not in excerpt.text


def test_a_negative_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="0 or more"):
        Excerpt(-1)


def test_an_excerpt_has_head_and_tail_around_the_count() -> None:
    excerpt = Excerpt(30)
    for number in range(1000):
        excerpt.add(f"{number},")

    head, marker, tail = excerpt.text.split("\n")
    assert head.startswith("0,1,2,")
    assert marker == f"[… cut to fit, {excerpt.tokens} tokens in all …]"
    assert excerpt.tokens == -(-(10 * 2 + 90 * 3 + 900 * 4) // 4)
    assert tail.endswith("998,999,")
    assert abs(len(head) - len(tail)) <= 1


# --- what is expected ---


def test_the_first_in_the_text_wins_over_the_first_in_the_list() -> None:
    match = find_first(alternatives(["two", re.compile("o(n)e"), EOF]), "zero one two", ended=True)

    assert match is not None
    assert (match.index, match.before, match.text, match.after) == (1, "zero ", "one", " two")
    assert match.match is not None
    assert match.match[1] == "n"


def test_of_two_at_one_place_the_first_in_the_list_wins() -> None:
    match = find_first(["one", "one two"], "one two", ended=False)

    assert match is not None
    assert (match.index, match.text) == (0, "one")


@pytest.mark.parametrize("ended", [False, True])
def test_the_end_matches_only_when_it_is_there_and_nothing_else_does(ended: bool) -> None:
    match = find_first(["x", EOF], "rest", ended=ended)

    assert (match is not None) == ended
    if match is not None:
        assert (match.index, match.pattern, match.before, match.text, match.after) == (1, EOF, "rest", "", "")


def test_nothing_found_is_none() -> None:
    assert find_first(["x", re.compile("y")], "", ended=True) is None


def test_one_pattern_needs_no_list() -> None:
    assert alternatives("text") == ["text"]
    assert alternatives(EOF) == [EOF]


@pytest.mark.parametrize("pattern", ["", [], ["x", ""]])
def test_nothing_is_not_to_be_expected(pattern: str | list[str]) -> None:
    with pytest.raises(ValueError, match="nothing to wait for"):
        alternatives(pattern)


@pytest.mark.parametrize("pattern", [[b"x"], [re.compile(b"x")], [3]])
def test_only_text_can_be_expected(pattern: list[str]) -> None:
    with pytest.raises(TypeError, match="expected text"):
        alternatives(pattern)
