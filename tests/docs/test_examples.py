"""What README and docs show is true: `python` blocks are run, `py` blocks compiled, and the reference is complete.

A block that begins with `# conftest.py` belongs to the one after it; a block without a test function must only run.
"""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path

import pytest

from pytest_sandbox import errors, faces
from pytest_sandbox.core.sandbox import SandboxCore

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(?P<language>python|py)\n(?P<source>.*?)^```$", re.MULTILINE | re.DOTALL)
IMAGE = os.environ.get("SANDBOX_TEST_IMAGE", "pytest-sandbox/busybox")


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """The blocks in this language, each with the number of its first line."""
    text = page.read_text(encoding="utf-8")
    found = (match for match in BLOCK.finditer(text) if match["language"] == language)
    return [(text.count("\n", 0, match.start("source")) + 1, match["source"]) for match in found]


def with_blocks(language: str) -> list[object]:
    return [pytest.param(page, id=page.name) for page in PAGES if blocks(page, language)]


@pytest.mark.docker
@pytest.mark.parametrize("page", with_blocks("python"))
def test_examples_run(page: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("SANDBOX_", "PYTEST_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SANDBOX_IMAGE", IMAGE)
    monkeypatch.setenv("SANDBOX_PULL", "never")
    monkeypatch.setenv("SANDBOX_STORE", "none")
    conftest = None
    tests = 0
    for line, source in blocks(page, "python"):
        if source.startswith("# conftest.py\n"):
            conftest = source
            continue
        folder = pytester.mkdir(f"line_{line}")
        (folder / f"test_line_{line}.py").write_text(source, encoding="utf-8")
        if conftest is not None:
            (folder / "conftest.py").write_text(conftest, encoding="utf-8")
            conftest = None
        tests += len(re.findall(r"^(?:async )?def test_", source, re.MULTILINE))

    result = pytester.runpytest_subprocess("--import-mode=importlib", "--strict-markers", timeout=300)

    assert conftest is None, "a conftest.py without a block after it"
    result.assert_outcomes(passed=tests)


@pytest.mark.parametrize("page", with_blocks("py"))
def test_snippets_compile(page: Path) -> None:
    for line, source in blocks(page, "py"):
        compile("\n" * (line - 1) + source, page.name, "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", page.read_text(encoding="utf-8")):
        linked = (page.parent / target) if target else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(linked), f"{page.name} links to {target}#{anchor}"


def anchors(page: Path) -> set[str]:
    """What the headings of a page are linked by: in lower case, with hyphens for spaces, without punctuation."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("face", [faces.Sandbox, faces.Process, faces.ProcessOutput, faces.Service, faces.Terminal])
def test_the_reference_names_every_operation(face: type) -> None:
    reference = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")

    public = [name for name in vars(face) if not name.startswith("_")]
    missing = [name for name in public if name != "lines" and not re.search(rf"\b{name}\b", reference)]

    assert missing == []


def test_the_reference_names_every_error() -> None:
    reference = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")

    kinds = [name for name, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]
    missing = [name for name in kinds if not re.search(rf"`{name}`", reference)]

    assert missing == []


def test_the_reference_names_every_parameter_of_what_runs_commands() -> None:
    reference = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")

    for operation in ("exec", "start", "terminal"):
        [shown] = re.findall(rf"^\| `{operation}\(([^`]*)\)`", reference, re.MULTILINE)
        signature = inspect.signature(getattr(SandboxCore, operation))
        assert [name for name in shown.split(", ") if name != "*"] == list(signature.parameters)[1:]
