"""What a Baseline puts into the workspace: owners, modes, filters, repositories; and what is refused."""

from __future__ import annotations

import base64
import subprocess
import sys
import threading
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pytest_sandbox import Baseline, File, Repository
from pytest_sandbox.errors import InvalidEntry
from pytest_sandbox.repositories import exported

from .conftest import RunSuite

BASELINE = """
    import pytest
    from pathlib import Path
    from pytest_sandbox import Baseline, Directory, File, Repository, Tree

    @pytest.fixture(scope="module")
    def sandbox_baseline():
        return {baseline}
"""


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "trees", "message"),
    [
        ({"../out": ""}, {}, "entry '../out': it leads out of the workspace"),
        ({"a/../../out": ""}, {}, "it leads out of the workspace"),
        ({}, {"/..": Path("x")}, "it leads out of the workspace"),
        ({"": ""}, {}, "entry '': a path is not empty"),
        ({"nul\0": ""}, {}, "has no NUL"),
        ({"a": "", "./b/../a": ""}, {}, r"entry './b/../a': it is the same path as 'a'"),
        ({"a": ""}, {"a": Path("x")}, "entry 'a': it is among the trees, too"),
        ({"a": "", "a/b": ""}, {}, "entry 'a/b': 'a', above it, is a file"),
        ({"a": ("", 0o10000)}, {}, "entry 'a': its mode 4096 is not one of"),
        ({"a": 3}, {}, "entry 'a': 3 is not a File, Directory, Tree or Repository"),
        (
            {"/etc/a": File("", ephemeral=True)},
            {},
            "entry '/etc/a': it is ephemeral, which only what is in the workspace",
        ),
        ({}, {"a": Repository("x", subpath="../y")}, "its subpath '../y' leads out of the repository"),
    ],
)
def test_an_entry_that_can_not_be_meant_is_refused_where_it_is_written(
    files: dict[str, str], trees: dict[str, Path], message: str
) -> None:
    with pytest.raises(InvalidEntry, match=message):
        Baseline(files=files, trees=trees)


@pytest.mark.parametrize(
    "entry", [{"trees": {"there": Path("/not/here")}}, {"files": {"there": File(Path("/not/here"))}}]
)
@pytest.mark.docker
def test_a_local_file_that_is_missing_is_told_with_its_entry(suite: RunSuite, entry: object) -> None:
    result = suite(
        BASELINE.format(baseline=f"Baseline(**{entry!r})".replace("PosixPath", "Path"))
        + """
    def test_it(sandbox): pass
    """
    )

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*InvalidEntry: Baseline entry 'there': /not/here is not a file*of this host"])


# --- placed -----------------------------------------------------------------------------------------------------------


@pytest.mark.docker
def test_owners_modes_and_filters(suite_both_ways: RunSuite, pytester: pytest.Pytester) -> None:
    tree = pytester.mkdir("tree")
    for name in ("kept.py", "left.pyc", "build/left", "sub/build/left", "sub/kept.log"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    (tree / "kept.py").chmod(0o750)

    result = suite_both_ways(
        BASELINE.format(
            baseline=f"""Baseline(
            trees={{
                "tree": Tree(Path({str(tree)!r}), ignore=["*.pyc", "build/", "*.log", "!kept.log"], owner="ann"),
                "box": Directory(mode=0o2775, owner="root:team"),
            }},
            files={{
                "box/secret": File("x", mode=0o600, owner="ann:team"),
                "copy": File(Path({str(tree)!r}, "kept.py")),
            }},
        )"""
        )
        + """
    pytestmark = pytest.mark.sandbox(users=["ann:4001:team=50"], user="root")

    @pytest.mark.parametrize("turn", range(2))
    def test_it(sandbox, turn):
        def facts(path):
            entry = sandbox.stat(path)
            return entry.owner, entry.group, entry.mode

        assert {str(entry.path) for entry in sandbox.walk("tree")} == {"kept.py", "sub", "sub/kept.log"}
        assert facts("tree/kept.py") == ("ann", "ann", 0o750)
        assert facts("box") == ("root", "team", 0o2775)
        assert facts("box/secret") == ("ann", "team", 0o600)
        assert facts("copy") == ("root", "root", 0o750)
        sandbox.remove("tree", recursive=True)
    """
    )

    result.assert_outcomes(passed=2)


@pytest.mark.docker
def test_local_links_stay_links_but_for_what_is_named(suite: RunSuite, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("in the tree")
    outside = tmp_path / "outside"
    outside.write_text("out of it")
    for name, target in {"out": outside, "dir": tmp_path, "loop": tree, "self": Path("self")}.items():
        (tree / name).symlink_to(target)
    (tmp_path / "named").symlink_to(tree)

    result = suite(
        BASELINE.format(baseline=f"Baseline(trees={{'copy': Path({str(tmp_path / 'named')!r})}})")
        + f"""
    def test_it(sandbox):
        found = {{entry.path.name: entry.target for entry in sandbox.list_dir("copy")}}
        assert found == {{
            "file": None, "out": {str(outside)!r}, "dir": {str(tmp_path)!r}, "loop": {str(tree)!r}, "self": "self"
        }}
        assert "out of it" not in sandbox.exec("cat copy/* 2>&1").stdout.text
    """
    )

    result.assert_outcomes(passed=1)


# --- ephemeral --------------------------------------------------------------------------------------------------------


@pytest.mark.docker
def test_what_is_ephemeral_is_in_every_test_and_in_no_snapshot(suite: RunSuite, pytester: pytest.Pytester) -> None:
    result = suite(
        BASELINE.format(
            baseline="""Baseline(
            trees={"cache": Directory(mode=0o700, ephemeral=True)},
            files={
                "cache/index": "below what is ephemeral",
                "token[1]": File(Secret("not to be kept"), mode=0o600, ephemeral=True),
                "kept/token[1]": "another one",
            },
            commands=["cp token* kept/copied; echo lost > cache/lost"],
        )"""
        ).replace("Directory,", "Directory, Secret,")
        + """
    @pytest.mark.parametrize("turn", range(2))
    def test_each(sandbox, turn):
        assert sandbox.read_text("token[1]") == sandbox.read_text("kept/copied") == "not to be kept"
        assert sandbox.stat("token[1]").mode == 0o600
        assert [entry.path.name for entry in sandbox.list_dir("cache")] == ["index"]
        assert not sandbox.changes()
        assert {member.name for member in sandbox.persist().members()} == {
            b"", b"kept", b"kept/copied", b"kept/token[1]"
        }
        sandbox.write_text("token[1]", "changed")

    def test_with_a_snapshot_in_its_place(sandbox_factory):
        sandbox = sandbox_factory()
        sandbox.write_text("new", "")
        other = sandbox_factory(from_=sandbox.snapshot())
        assert other.exists("new")
        assert other.read_text("token[1]") == "not to be kept"

    @pytest.mark.parametrize("turn", range(2))
    @pytest.mark.sandbox(isolation="none")
    def test_nothing_is_placed_again_where_nothing_is_restored(sandbox, turn):
        assert sandbox.read_text("token[1]") == ("changed" if turn else "not to be kept")
        sandbox.write_text("token[1]", "changed")
    """
    )

    result.assert_outcomes(passed=5)


@pytest.mark.docker
def test_what_can_not_be_placed_leaves_no_sandbox_behind(suite: RunSuite, pytester: pytest.Pytester) -> None:
    (pytester.path / "file").write_text("")

    result = suite(
        BASELINE.format(baseline="""Baseline(files={"it": File(Path("file"), ephemeral=True)})""")
        + """
    def test_gone(sandbox_factory, sandbox_pool):
        sandbox_factory()
        Path("file").unlink()
        with pytest.raises(FileNotFoundError):
            sandbox_factory()
        assert len(sandbox_pool._open) - len(sandbox_pool._idle) == 1
    """
    )

    result.assert_outcomes(passed=1)


# --- repositories -----------------------------------------------------------------------------------------------------


@pytest.fixture
def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for variable in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{variable}_NAME", "somebody")
        monkeypatch.setenv(f"GIT_{variable}_EMAIL", "somebody@example.org")
    repository = tmp_path / "upstream"
    git(tmp_path, "init", "--quiet", "--initial-branch=trunk", str(repository))
    commit(repository, "sub/file", "first")
    return repository


def git(directory: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=directory, check=True, capture_output=True, text=True).stdout.strip()


def commit(repository: Path, name: str, content: str) -> str:
    (repository / name).parent.mkdir(exist_ok=True)
    (repository / name).write_text(content)
    git(repository, "add", "-A")
    git(repository, "commit", "--quiet", "-m", content)
    return git(repository, "rev-parse", "HEAD")


@pytest.mark.docker
@pytest.mark.parametrize(
    ("url", "ref", "subpath", "message"),
    [
        ("/no/such/repository", "HEAD", "", "*git repository /no/such/repository: `git fetch`: *"),
        ("{upstream}", "nowhere", "", "*it has no branch, tag or commit 'nowhere'"),
        ("{upstream}", "HEAD", "sub/file", "*at HEAD it has no directory 'sub/file'"),
        ("file://me:hidden@/no/such", "HEAD", "", "*git repository file:///no/such: `git fetch`: *"),
    ],
)
def test_a_repository_that_can_not_be_had_says_why(
    suite: RunSuite, upstream: Path, url: str, ref: str, subpath: str, message: str
) -> None:
    repository = Repository(url.format(upstream=upstream), ref, subpath)

    result = suite(
        BASELINE.format(baseline=f"Baseline(trees={{'it': {repository!r}}})")
        + """
    def test_it(sandbox): pass
    """
    )

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([message])


def test_credentials_of_a_repository_are_used_and_in_no_command_line(upstream: Path) -> None:
    git(upstream, "update-server-info")
    seen: list[tuple[str, str]] = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.headers.get("Authorization", ""), command_lines()))
            if seen[-1][0]:
                return super().do_GET()
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="here"')
            self.end_headers()
            return None

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(upstream / ".git"))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            url = f"http://somebody:hid%2Fden@127.0.0.1:{server.server_address[1]}/"
            with exported(url, "trunk", "") as directory:
                assert (directory / "sub" / "file").read_text() == "first"
        finally:
            server.shutdown()

    given = base64.b64encode(b"somebody:hid/den").decode()
    assert {authorization for authorization, _ in seen} == {"", f"Basic {given}"}
    assert "git" in seen[0][1]
    assert not any("hid%2Fden" in lines or "hid/den" in lines for _, lines in seen)


def command_lines() -> str:
    """Those of all processes of this machine."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            lines.append(file.read_text(errors="replace"))
    return "\n".join(lines)


def test_two_processes_fetch_a_repository_one_after_the_other(upstream: Path) -> None:
    script = f"""
from pytest_sandbox.repositories import exported
with exported({str(upstream)!r}, "trunk", "sub") as directory:
    print((directory / "file").read_text())
"""
    fetchers = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]

    assert [fetcher.communicate()[0] for fetcher in fetchers] == ["first\n"] * 2


@pytest.mark.docker
def test_a_repository_is_cloned_here_and_follows_its_branch(suite: RunSuite, upstream: Path) -> None:
    first = git(upstream, "rev-parse", "HEAD")
    git(upstream, "tag", "v1")
    source = (
        BASELINE.format(
            baseline=f"""Baseline(trees={{
            "whole": Repository({str(upstream)!r}),
            "pinned": Repository({str(upstream)!r}, {first!r}),
            "part": Repository({str(upstream)!r}, "v1", "sub"),
        }})"""
        )
        + """
    def test_it(sandbox):
        assert sandbox.read_text("whole/sub/file") == EXPECTED
        assert sandbox.read_text("pinned/sub/file") == sandbox.read_text("part/file") == "first"
        assert sandbox.exists("whole/.git/HEAD")
        assert not sandbox.exists("part/.git")
        assert "example.org" not in sandbox.read_text("whole/.git/config")
    """
    )

    suite(source.replace("EXPECTED", "'first'")).assert_outcomes(passed=1)
    commit(upstream, "sub/file", "second")
    suite(source.replace("EXPECTED", "'second'")).assert_outcomes(passed=1)
