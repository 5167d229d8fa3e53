"""An image that is made from local files, in place of the name of one. It imports nothing of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Image:
    """An image made from a folder or an archive of this host, once for all workers and runs.

    path: a folder, built by its Dockerfile, without what its .dockerignore names; or a file: an archive that `docker
    save` wrote, an OCI layout (this also as a folder), or a tar of a root file system, which becomes the image's.
    dockerfile: another one; a relative path is below the folder. args: of the build. target: the stage to end with.

    It is known by the content of all these and, of a build, by the images that it begins with: nothing is made again
    until one of them changes.
    """

    path: Path
    dockerfile: str = "Dockerfile"
    args: Mapping[str, str] = field(default_factory=dict, hash=False)
    target: str = ""

    def __str__(self) -> str:
        return str(self.path)
