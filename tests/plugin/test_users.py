"""The setting `users`, in containers."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from .conftest import RunSuite

pytestmark = pytest.mark.docker


def test_a_clash_with_the_image_is_told_and_leaves_no_container(suite: RunSuite) -> None:
    result = suite(
        """
        import pytest
        from pytest_sandbox.errors import InvalidSetting

        @pytest.mark.sandbox(users=["ann:0"])
        def test_clash(sandbox_factory, sandbox_pool):
            with pytest.raises(InvalidSetting, match="the number 0 of the user ann belongs to root"):
                sandbox_factory()
            assert not sandbox_pool._open
        """
    )

    result.assert_outcomes(passed=1)


def test_an_entry_that_is_none_names_its_source(suite: RunSuite, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nsandbox_users =\n    ann\n    bob:many\n")

    result = suite("def test_nothing(sandbox): pass")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*sandbox_users (tox.ini): *'bob:many'* is not valid; expected *"])


def test_users_can_be_used_at_once_and_their_containers_again(suite_both_ways: RunSuite) -> None:
    result = suite_both_ways(
        """
        import pytest

        pytestmark = pytest.mark.sandbox(users=["ann:4001:team,ops=77", "bob:4002"], user="ann")
        names = set()

        @pytest.mark.parametrize("turn", range(3))
        def test_users(sandbox, turn):
            names.add(sandbox.name)
            assert sandbox.exec("id -un; id -Gn; echo $HOME; echo ~bob; pwd").stdout.text.split("\\n")[:-1] == [
                "ann", "ann ops team", "/home/ann", "/home/bob", "/workspace",
            ]
            sandbox.write_text("mine", "")
            entry = sandbox.stat("mine")
            assert (entry.owner, entry.group, entry.uid) == ("ann", "ann", 4001)
            assert sandbox.stat("/home/bob", user="root").mode == 0o700
            assert not sandbox.exec("ls /home/bob").ok
            assert sandbox.exec("id -u", user="bob").stdout.text == "4002\\n"
            assert sandbox.stat("/etc/passwd").mode == 0o644

        def test_one_container_served_them():
            assert len(names) == 1
        """
    )

    result.assert_outcomes(passed=4)
    result.stdout.no_fnmatch_line("*changed something outside*")


def test_a_homes_files_are_the_containers_own(suite: RunSuite) -> None:
    result = suite(
        """
        import pytest

        pytestmark = pytest.mark.sandbox(users=["ann"], user="ann")

        def test_writes_there(sandbox):
            assert sandbox.exec("echo x > ~/left").ok

        def test_finds_nothing(sandbox):
            assert sandbox.list_dir("/home/ann") == []
        """
    )

    result.assert_outcomes(passed=2)


def test_an_image_without_any_users_gets_them(suite: RunSuite, pytester: pytest.Pytester, tmp_path: Path) -> None:
    with tarfile.open(pytester.path / "root.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("empty"))

    result = suite(
        """
        import pytest

        @pytest.mark.sandbox(users=["ann"], user="ann")
        def test_bare(sandbox):
            sandbox.write_text("mine", "")
            assert sandbox.stat("mine").owner == "ann"
            assert sandbox.read_text("/etc/passwd") == "ann:*:1000:1000::/home/ann:/bin/sh\\n"
        """,
        "--sandbox-image=./root.tar",
    )

    result.assert_outcomes(passed=1)
