"""The fixtures for coroutines, in both modes of pytest-asyncio and beside the blocking ones."""

from __future__ import annotations

import textwrap

import pytest

from .conftest import RunSuite

pytestmark = pytest.mark.docker

EVERY_SCOPE = """
    import asyncio
    import pytest

    pytestmark = pytest.mark.asyncio(loop_scope="{loop_scope}")

    async def test_the_tests_own(async_sandbox):
        await async_sandbox.write_text("left", "x")
        assert (await async_sandbox.exec("cat left", check=True)).stdout.text == "x"

    async def test_is_at_the_baseline(async_sandbox):
        assert await async_sandbox.list_dir() == []

    async def test_those_of_wider_scopes(
        async_class_sandbox, async_module_sandbox, async_package_sandbox, async_session_sandbox
    ):
        shared = (async_class_sandbox, async_module_sandbox, async_package_sandbox, async_session_sandbox)
        assert len({{sandbox.name for sandbox in shared}}) == 4
        await asyncio.gather(*(sandbox.write_text("left", "x") for sandbox in shared))

    async def test_keep_their_state(async_module_sandbox, async_session_sandbox):
        assert await async_module_sandbox.exists("left")
        assert await async_session_sandbox.exists("left")

    async def test_a_factory_is_awaited(async_sandbox_factory):
        one, two = await asyncio.gather(async_sandbox_factory(), async_sandbox_factory(memory="256m"))
        assert one.name != two.name
        assert two.settings.memory == 256 * 2**20

    async def test_a_wrong_keyword_is_refused(async_sandbox_factory):
        with pytest.raises(ValueError, match="sandbox_factory: 'memmory' is not valid"):
            await async_sandbox_factory(memmory="1g")
"""


@pytest.mark.parametrize("loop_scope", ["function", "session"])
def test_every_scope_of_sandbox_works_with_every_scope_of_loop(suite_both_ways: RunSuite, loop_scope: str) -> None:
    suite_both_ways(EVERY_SCOPE.format(loop_scope=loop_scope)).assert_outcomes(passed=6)


def test_loops_of_classes_modules_and_packages(pytester: pytest.Pytester) -> None:
    package = pytester.mkpydir("package")
    for loop_scope in ("class", "module", "package"):
        source = f"""
            import pytest

            class TestIt:
                pytestmark = pytest.mark.asyncio(loop_scope="{loop_scope}")

                async def test_one(self, async_sandbox, async_module_sandbox):
                    for sandbox in (async_sandbox, async_module_sandbox):
                        await sandbox.write_text("left", "x")

                async def test_two(self, async_sandbox, async_module_sandbox):
                    assert not await async_sandbox.exists("left")
                    assert await async_module_sandbox.exists("left")
        """
        (package / f"test_{loop_scope}.py").write_text(textwrap.dedent(source))

    pytester.runpytest_subprocess(timeout=120).assert_outcomes(passed=6)


def test_in_auto_mode_no_mark_is_needed(suite: RunSuite) -> None:
    result = suite(
        """
        async def test_one(async_sandbox):
            assert (await async_sandbox.exec(["true"])).ok
        """,
        "-o",
        "asyncio_mode=auto",
    )

    result.assert_outcomes(passed=1)


def test_both_faces_in_one_test_are_one_session(suite: RunSuite) -> None:
    result = suite(
        """
        import pytest

        @pytest.mark.asyncio
        async def test_one(sandbox, async_sandbox):
            assert sandbox.name == async_sandbox.name
            sandbox.write_text("f", "from one")
            assert await async_sandbox.read_text("f") == "from one"
        """
    )

    result.assert_outcomes(passed=1)


def test_a_failing_command_shows_only_the_tests_own_lines(suite: RunSuite) -> None:
    result = suite(
        """
        import pytest

        @pytest.mark.asyncio
        async def test_one(async_sandbox):
            await async_sandbox.exec("echo wrong >&2; exit 3", check=True)
        """
    )

    result.assert_outcomes(failed=1)
    assert "async_faces.py" not in result.stdout.str()
    assert "loop.py" not in result.stdout.str()
    result.stdout.fnmatch_lines(['>*await async_sandbox.exec("echo wrong >&2; exit 3", check=True)', "*exit*3*"])
