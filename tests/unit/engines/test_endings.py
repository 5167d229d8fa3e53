"""How heirs end what was left to them; that they do, and when, is in test_heir.py and the contract tests."""

from __future__ import annotations

import socket
import tempfile
from functools import partial
from pathlib import Path

import pytest

from pytest_sandbox.engines import endings
from pytest_sandbox.engines.endings import end_all, end_by_socket


def test_an_engine_that_has_no_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings, "ANSWER_SECONDS", 0.2)
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(Path(folder, "socket")))
        engine.listen()
        engine.setblocking(False)

        end_all(partial(end_by_socket, engine.getsockname(), "1.41"), ["container one ", "container two "])

        engine.accept()[0].close()
        with pytest.raises(BlockingIOError):
            engine.accept()
