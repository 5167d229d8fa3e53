"""Git repositories, cloned on this host: kept in the user's cache folder, one process at a time at each."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import filelock

from .engines.heir import temporary_folder
from .engines.locks import locked
from .errors import RepositoryNotAvailable
from .folders import cache_folder
from .secret import remember

GIT_SECONDS = 600  # for one command of git's

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# What git runs to ask for credentials (gitcredentials(7)).
_HELPER = (
    '!f() { test "$1" = get && '
    'printf "username=%s\\npassword=%s\\n" "$PYTEST_SANDBOX_GIT_NAME" "$PYTEST_SANDBOX_GIT_PASSWORD"; }; f'
)
_CREDENTIALS = re.compile(r"//[^/@\s]*@")


@cache  # a branch that moves while a run is at it stays where it was
def commit_of(url: str, ref: str) -> str:
    """Return the commit that a ref names. Raises RepositoryNotAvailable."""
    with _mirror(url) as mirror:
        if _COMMIT.fullmatch(ref) and _resolved(url, ref, mirror) is not None:
            return ref
        head = "refs/pytest-sandbox/HEAD"
        _git(url, "fetch", "--quiet", "--prune", "--", _address(url), f"+HEAD:{head}", "+refs/*:refs/*", cwd=mirror)
        commit = _resolved(url, head if ref == "HEAD" else ref, mirror)
        if commit is None:
            raise RepositoryNotAvailable(_shown(url), f"it has no branch, tag or commit {ref!r}")
        return commit


def _resolved(url: str, ref: str, mirror: Path) -> str | None:
    options = ("--verify", "--quiet", "--end-of-options")
    found = _git(url, "rev-parse", *options, f"{ref}^{{commit}}", cwd=mirror, check=False)
    return found.strip() if found is not None else None


@contextmanager
def exported(url: str, ref: str, subpath: str) -> Iterator[Path]:
    """Give a directory with the repository as it is at a ref, or one directory of it; it goes afterwards.

    Raises RepositoryNotAvailable.
    """
    commit = commit_of(url, ref)
    with temporary_folder() as folder:
        checkout = folder / "checkout"
        with _mirror(url) as mirror:
            _git(url, "clone", "--quiet", "--no-checkout", "--no-hardlinks", "--", str(mirror), str(checkout))
            _git(url, "fetch", "--quiet", "origin", commit, cwd=checkout)
        _git(url, "checkout", "--quiet", "--detach", commit, cwd=checkout)
        _git(url, "remote", "set-url", "origin", _CREDENTIALS.sub("//", url), cwd=checkout)
        chosen = checkout / subpath
        if not chosen.resolve().is_relative_to(checkout.resolve()) or not chosen.is_dir():
            raise RepositoryNotAvailable(_shown(url), f"at {ref} it has no directory {subpath!r}")
        yield chosen


@contextmanager
def _mirror(url: str) -> Iterator[Path]:
    """Give this host's copy of a repository, while nobody else changes it."""
    mirror = cache_folder("repositories") / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.git"
    try:
        with locked(mirror.with_suffix(".git.lock"), GIT_SECONDS):
            if not (mirror / "HEAD").exists():
                _git(url, "init", "--quiet", "--bare", str(mirror))
                _git(url, "config", "uploadpack.allowAnySHA1InWant", "true", cwd=mirror)
            yield mirror
    except filelock.Timeout as error:
        raise RepositoryNotAvailable(_shown(url), "another process is at it and does not end") from error


def _git(url: str, *arguments: str, cwd: Path | None = None, check: bool = True) -> str | None:
    """Run git and return what it writes; None if it fails and that may be. Raises RepositoryNotAvailable."""
    # Of whoever runs the tests nothing matters but the credentials; and a question would wait for an answer for ever.
    # What LFS has elsewhere would be asked of our copy, which has not got it.
    environment = {name: value for name, value in os.environ.items() if name not in ("GIT_DIR", "GIT_WORK_TREE")}
    environment |= {"GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1", "LC_ALL": "C"}
    environment |= _credentials(url, int(environment.get("GIT_CONFIG_COUNT") or 0))
    try:
        done = subprocess.run(
            ["git", "-c", "safe.directory=*", *arguments],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=GIT_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise RepositoryNotAvailable(_shown(url), "this host has no git") from error
    except subprocess.TimeoutExpired as error:
        raise RepositoryNotAvailable(_shown(url), f"`git {arguments[0]}` took over {GIT_SECONDS} s") from error
    if done.returncode == 0:
        return done.stdout
    if not check:
        return None
    lines = _CREDENTIALS.sub("//", done.stderr).strip().splitlines() or [f"exit code {done.returncode}"]
    raise RepositoryNotAvailable(_shown(url), f"`git {arguments[0]}`: {lines[-1]}")


def _address(url: str) -> str:
    """The URL as it may stand in a command line, which is anybody's to read; the user of ssh has to be in it."""
    return _shown(url) if urlsplit(url).scheme in ("http", "https") else url


def _credentials(url: str, configured: int) -> dict[str, str]:
    """The variables by which git has the credentials of a URL. configured: settings that come by variables anyway."""
    user, at, _ = urlsplit(url).netloc.rpartition("@")
    if not at or _address(url) == url:
        return {}
    name, _, password = user.partition(":")
    remember((user, unquote(password or name)))
    helpers = ("", _HELPER)  # the empty one: without those of whoever runs the tests, who have said what to take
    variables = {"PYTEST_SANDBOX_GIT_NAME": unquote(name), "PYTEST_SANDBOX_GIT_PASSWORD": unquote(password)}
    for number, helper in enumerate(helpers, start=configured):
        variables |= {f"GIT_CONFIG_KEY_{number}": "credential.helper", f"GIT_CONFIG_VALUE_{number}": helper}
    return {**variables, "GIT_CONFIG_COUNT": str(configured + len(helpers))}


def _shown(url: str) -> str:
    return _CREDENTIALS.sub("//", url)
