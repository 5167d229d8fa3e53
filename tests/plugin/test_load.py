"""A run that does not use the plugin pays next to nothing for it."""

from __future__ import annotations

from .conftest import RunSuite


def test_an_unused_plugin_imports_neither_engine_nor_loop(suite: RunSuite) -> None:
    result = suite(
        """
        import sys

        def test_modules(request):
            assert request.config.pluginmanager.has_plugin("sandbox")
            heavy = {"docker", "requests", "asyncio", "filelock", "pytest_sandbox.loop", "pytest_sandbox.core"}
            assert not heavy & set(sys.modules)
        """,
        "-p",
        "no:asyncio",
        "-p",
        "no:xdist",
    )

    result.assert_outcomes(passed=1)


def test_no_thread_is_started_before_a_sandbox_is_asked_for(suite: RunSuite) -> None:
    result = suite(
        """
        import threading

        def test_threads(sandbox_settings):
            assert threading.active_count() == 1
        """
    )

    result.assert_outcomes(passed=1)


def test_who_has_not_set_up_asyncio_is_not_asked_to(suite: RunSuite) -> None:
    result = suite("def test_nothing():\n    pass\n")

    result.stderr.no_fnmatch_line("*asyncio_default_fixture_loop_scope*")
