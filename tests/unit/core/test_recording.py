from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_sandbox.core.recording import Recording
from pytest_sandbox.errors import UsageError


def saved(recording: Recording, folder: Path, version: int = 2) -> tuple[dict[str, object], list[list[object]]]:
    """The header and the events of the file it saves."""
    recording.save(folder / "session.cast", version)
    header, *events = (json.loads(line) for line in (folder / "session.cast").read_text().splitlines())
    return header, events


def test_header_describes_the_terminal(tmp_path: Path) -> None:
    recording = Recording(24, 80, command="vim a", title="test_edit", environment={"TERM": "xterm-256color"})

    header, events = saved(recording, tmp_path)

    assert isinstance(header.pop("timestamp"), int)
    assert header == {
        "version": 2,
        "width": 80,
        "height": 24,
        "command": "vim a",
        "title": "test_edit",
        "env": {"TERM": "xterm-256color"},
    }
    assert events == []


def test_events_are_in_order(tmp_path: Path) -> None:
    recording = Recording(24, 80)
    recording.output(b"\x1b[1m$ ", at=0.5)
    recording.resize(30, 100, at=1.25)
    recording.output("größe\r\n".encode(), at=2)
    recording.exit(-15, at=3)

    _, events = saved(recording, tmp_path)

    assert events == [[0.5, "o", "\x1b[1m$ "], [1.25, "r", "100x30"], [2, "o", "größe\r\n"], [3, "x", "-15"]]


def test_version_3_counts_from_event_to_event(tmp_path: Path) -> None:
    recording = Recording(24, 80, environment={"TERM": "xterm"})
    recording.output(b"a", at=0.5)
    recording.output(b"b", at=1.25)

    header, events = saved(recording, tmp_path, version=3)

    assert header["term"] == {"cols": 80, "rows": 24, "type": "xterm"}
    assert events == [[0.5, "o", "a"], [0.75, "o", "b"]]


@pytest.mark.parametrize("version", [1, 4])
def test_other_versions_are_refused(version: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"version {version}"):
        Recording(24, 80).save(tmp_path / "session.cast", version)

    assert list(tmp_path.iterdir()) == []


def test_what_is_typed_is_recorded_only_when_asked(tmp_path: Path) -> None:
    silent, asked = Recording(24, 80), Recording(24, 80, keystrokes=True)
    for recording in (silent, asked):
        recording.input(b"secret\r", at=1)

    assert saved(silent, tmp_path)[1] == []
    assert saved(asked, tmp_path)[1] == [[1, "i", "secret\r"]]


@pytest.mark.parametrize("cut", range(1, 10))
def test_characters_are_kept_whole_where_the_output_is_cut(cut: int, tmp_path: Path) -> None:
    stream = "aé漢👩".encode()
    recording = Recording(24, 80)
    recording.output(stream[:cut], at=1)
    recording.output(stream[cut:], at=2)

    _, events = saved(recording, tmp_path)

    assert "".join(str(text) for _, _, text in events) == "aé漢👩"


def test_half_a_character_at_the_end_is_shown_as_replaced(tmp_path: Path) -> None:
    recording = Recording(24, 80)
    recording.output("漢".encode()[:2], at=1)
    recording.exit(0, at=2)

    assert saved(recording, tmp_path)[1] == [[2, "o", "\ufffd"], [2, "x", "0"]]


def test_a_recording_is_cut_at_its_limit_and_says_so(tmp_path: Path) -> None:
    recording = Recording(24, 80, largest=1000)
    for second in range(100):
        recording.output(b"0123456789", at=second)
    recording.exit(0, at=100)

    _, events = saved(recording, tmp_path)

    assert (tmp_path / "session.cast").stat().st_size < 1300
    kept = sum(len(str(text)) for _, code, text in events if code == "o")
    assert kept + recording.dropped == 1000
    assert events[-1][1] == "m"
    assert "cut" in str(events[-1][2])


def test_only_the_owner_may_read_it_even_where_another_file_was(tmp_path: Path) -> None:
    path = tmp_path / "session.cast"
    path.write_text("older")
    path.chmod(0o644)

    Recording(24, 80).save(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["session.cast"]


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Recording(24, 80).save(tmp_path / "missing" / "session.cast")


def test_recording_goes_on_after_a_save(tmp_path: Path) -> None:
    recording = Recording(24, 80)
    recording.output(b"a", at=1)
    saved(recording, tmp_path)
    recording.output(b"b", at=2)

    assert [event[2] for event in saved(recording, tmp_path)[1]] == ["a", "b"]


@given(chunks=st.lists(st.binary(max_size=20), max_size=10))
def test_any_output_gives_a_file_of_json_lines(chunks: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    recording = Recording(24, 80)
    for second, chunk in enumerate(chunks):
        recording.output(chunk, at=second)
    recording.exit(0, at=len(chunks))

    _, events = saved(recording, tmp_path_factory.mktemp("recording"))

    text = "".join(str(event[2]) for event in events[:-1])
    assert text == b"".join(chunks).decode("utf-8", "replace")


@pytest.mark.skipif(not (shutil.which("asciinema") and shutil.which("script")), reason="this machine has no asciinema")
def test_asciinema_plays_it(tmp_path: Path) -> None:
    recording = Recording(24, 80, command="sh", environment={"TERM": "xterm"}, keystrokes=True)
    recording.output("\x1b[1mgrößer 漢字\r\n".encode(), at=0.1)
    recording.input(b"x", at=0.2)
    recording.resize(30, 100, at=0.3)
    recording.exit(0, at=0.4)
    recording.save(tmp_path / "session.cast")

    # It wants a terminal of its own, which turns line feeds into CR LF.
    command = ["script", "--quiet", "--return", "--command", "asciinema cat session.cast", "/dev/null"]
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    played = subprocess.run(
        command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )

    assert "\x1b[1mgrößer 漢字" in played.stdout.decode()
    assert "Traceback" not in played.stdout.decode()
    assert played.returncode == 0
