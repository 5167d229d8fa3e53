"""Building the agent: when there is something to do, and what happens to a build that fails."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_sandbox.agent import binaries
from pytest_sandbox.agent.binaries import agent_binary
from pytest_sandbox.agent.build import ARCHITECTURES, BuildFailed, build, build_id, build_sanitized
from pytest_sandbox.errors import AgentMissing

PROGRAM = '#include "answer.h"\n#include <stdio.h>\nint main(void) { puts(AGENT_BUILD); return ANSWER; }\n'


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    sources = tmp_path / "src"
    sources.mkdir()
    (sources / "main.c").write_text(PROGRAM)
    (sources / "answer.h").write_text("#define ANSWER 42\n")
    return sources


def test_a_build_is_static_knows_its_id_and_is_made_once(sources: Path, tmp_path: Path) -> None:
    assert build(sources, tmp_path / "bin")
    assert not build(sources, tmp_path / "bin")

    ran = subprocess.run([tmp_path / "bin" / "agent-x86_64"], capture_output=True, text=True)

    assert (ran.returncode, ran.stdout) == (42, build_id(sources) + "\n")
    made = sorted(path.name for path in (tmp_path / "bin").iterdir())
    assert made == ["BUILD", *sorted(f"agent-{architecture}" for architecture in ARCHITECTURES)]


def test_a_changed_header_is_another_build(sources: Path) -> None:
    before = build_id(sources)

    (sources / "answer.h").write_text("#define ANSWER 43\n")

    assert build_id(sources) != before


def test_a_warning_fails_the_build_and_leaves_nothing(
    sources: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (sources / "main.c").write_text("int main(int count) { return 0; }\n")

    with pytest.raises(BuildFailed, match="agent-x86_64 was not built"):
        build(sources, tmp_path / "bin")

    assert list((tmp_path / "bin").iterdir()) == []
    assert "unused parameter" in capfd.readouterr().err


def test_no_sources_are_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="no C sources"):
        build(tmp_path, tmp_path / "bin")


def test_a_sanitized_build_reports_an_overflow(sources: Path, tmp_path: Path) -> None:
    overflow = "int main(int count, char **words) { (void)words; int numbers[2] = {0}; return numbers[count + 1]; }\n"
    (sources / "main.c").write_text(overflow)
    assert build_sanitized(sources, tmp_path / "sanitized")
    assert not build_sanitized(sources, tmp_path / "sanitized")

    ran = subprocess.run([tmp_path / "sanitized"], capture_output=True, text=True)

    assert ran.returncode != 0
    assert "out of bounds" in ran.stderr


def test_no_compiler_for_the_sanitized_build_is_said(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("cc") is None

    with pytest.raises(BuildFailed, match="no C compiler"):
        build_sanitized(sources, tmp_path / "sanitized")


def test_the_agent_of_an_architecture_goes_by_dockers_name_too() -> None:
    assert agent_binary("arm64") == agent_binary("aarch64")
    assert len(agent_binary("amd64").sha256) == 64


def test_an_architecture_without_an_agent_is_told_with_those_that_have_one() -> None:
    with pytest.raises(AgentMissing, match=r"no agent for riscv64.*aarch64, x86_64"):
        agent_binary("riscv64")


def test_an_installation_without_agents_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "BINARIES", tmp_path)

    with pytest.raises(AgentMissing, match="it has: none"):
        agent_binary("x86_64")
