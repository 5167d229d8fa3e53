"""A pytest plugin that gives each test a container of its own, at the cost of milliseconds.

The public names, and nothing else. They are imported on first use: a run without sandboxes pays nothing for them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .async_faces import AsyncProcess as AsyncProcess
    from .async_faces import AsyncSandbox as AsyncSandbox
    from .async_faces import AsyncService as AsyncService
    from .async_faces import AsyncTerminal as AsyncTerminal
    from .async_fixtures import AsyncSandboxFactory as AsyncSandboxFactory
    from .baseline import Baseline as Baseline
    from .changes import Change as Change
    from .changes import ChangeKind as ChangeKind
    from .changes import Changes as Changes
    from .core.archive import Archive as Archive
    from .core.snapshot import Snapshot as Snapshot
    from .core.state import SessionState as SessionState
    from .core.tar import ArchiveLimits as ArchiveLimits
    from .errors import ArchiveError as ArchiveError
    from .errors import CommandError as CommandError
    from .errors import CommandFailed as CommandFailed
    from .errors import CommandHitLimit as CommandHitLimit
    from .errors import CommandNotFound as CommandNotFound
    from .errors import CommandNotStarted as CommandNotStarted
    from .errors import CommandTimeout as CommandTimeout
    from .errors import EngineError as EngineError
    from .errors import FailureClass as FailureClass
    from .errors import FileOperationError as FileOperationError
    from .errors import ImageNotAvailable as ImageNotAvailable
    from .errors import ImageNotMade as ImageNotMade
    from .errors import InfrastructureError as InfrastructureError
    from .errors import LimitExceeded as LimitExceeded
    from .errors import LimitNotAvailable as LimitNotAvailable
    from .errors import NoService as NoService
    from .errors import NotAnswering as NotAnswering
    from .errors import NotWithThisEngine as NotWithThisEngine
    from .errors import OutputTruncated as OutputTruncated
    from .errors import PatchRejected as PatchRejected
    from .errors import SandboxClosed as SandboxClosed
    from .errors import SandboxError as SandboxError
    from .errors import SandboxLost as SandboxLost
    from .errors import SandboxStartFailed as SandboxStartFailed
    from .errors import ServiceFailed as ServiceFailed
    from .errors import TerminalEnded as TerminalEnded
    from .errors import TerminalTimeout as TerminalTimeout
    from .errors import UsageError as UsageError
    from .faces import Process as Process
    from .faces import Sandbox as Sandbox
    from .faces import Service as Service
    from .faces import Terminal as Terminal
    from .fixtures import SandboxFactory as SandboxFactory
    from .image import Image as Image
    from .manifest import Directory as Directory
    from .manifest import File as File
    from .manifest import Repository as Repository
    from .manifest import Tree as Tree
    from .models import EOF as EOF
    from .models import Collected as Collected
    from .models import Endpoint as Endpoint
    from .models import ExecResult as ExecResult
    from .models import FileKind as FileKind
    from .models import FileStat as FileStat
    from .models import Isolation as Isolation
    from .models import Limit as Limit
    from .models import LimitHit as LimitHit
    from .models import Output as Output
    from .models import ProcessExit as ProcessExit
    from .models import PullPolicy as PullPolicy
    from .models import ResourceUsage as ResourceUsage
    from .models import SandboxSettings as SandboxSettings
    from .models import TerminalMatch as TerminalMatch
    from .mounts import Bind as Bind
    from .mounts import Tmpfs as Tmpfs
    from .mounts import Volume as Volume
    from .secret import Secret as Secret

_HOME = {
    ".async_faces": ("AsyncProcess", "AsyncSandbox", "AsyncService", "AsyncTerminal"),
    ".async_fixtures": ("AsyncSandboxFactory",),
    ".baseline": ("Baseline",),
    ".changes": ("Change", "ChangeKind", "Changes"),
    ".core.archive": ("Archive",),
    ".core.tar": ("ArchiveLimits",),
    ".core.snapshot": ("Snapshot",),
    ".core.state": ("SessionState",),
    ".errors": (
        "ArchiveError",
        "CommandError",
        "CommandFailed",
        "CommandHitLimit",
        "CommandNotFound",
        "CommandNotStarted",
        "CommandTimeout",
        "EngineError",
        "FailureClass",
        "FileOperationError",
        "ImageNotAvailable",
        "ImageNotMade",
        "InfrastructureError",
        "LimitExceeded",
        "LimitNotAvailable",
        "NotAnswering",
        "NoService",
        "NotWithThisEngine",
        "OutputTruncated",
        "PatchRejected",
        "SandboxClosed",
        "SandboxError",
        "SandboxLost",
        "SandboxStartFailed",
        "ServiceFailed",
        "TerminalEnded",
        "TerminalTimeout",
        "UsageError",
    ),
    ".faces": ("Process", "Sandbox", "Service", "Terminal"),
    ".fixtures": ("SandboxFactory",),
    ".image": ("Image",),
    ".manifest": ("Directory", "File", "Repository", "Tree"),
    ".models": (
        "EOF",
        "Collected",
        "Endpoint",
        "ExecResult",
        "FileKind",
        "FileStat",
        "Isolation",
        "Limit",
        "LimitHit",
        "Output",
        "ProcessExit",
        "PullPolicy",
        "ResourceUsage",
        "SandboxSettings",
        "TerminalMatch",
    ),
    ".mounts": ("Bind", "Tmpfs", "Volume"),
    ".secret": ("Secret",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(_MODULE_OF)  # tests/unit/test_faces.py compares it with the imports above


def __getattr__(name: str) -> object:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(module, __name__), name)


def __dir__() -> list[str]:
    return __all__
