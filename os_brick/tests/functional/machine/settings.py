# SPDX-License-Identifier: Apache-2.0
"""Where the lab keeps its things, and the limits it works within."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib


class LabError(Exception):
    """The lab itself could not do its work; the text says what to try next."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Places and limits of one lab: one machine for each checkout.

    All times are seconds on the host's clock.
    """

    repo: pathlib.Path
    cache: pathlib.Path
    #: Longest life of a machine: an independent watchdog ends it then, whatever happens.
    lifetime_s: int
    #: Longest time from the start of QEMU to the first command.
    boot_limit_s: int
    #: Longest time of one command of ``exec``.
    exec_limit_s: int
    #: Longest silence of a run of scenarios, which counts in a file while it goes on: a machine
    #: that does not is hung.
    silence_limit_s: int
    memory_mib: int
    cpus: int

    @property
    def machine(self) -> pathlib.Path:
        """Folder of this checkout's machine: its sockets, its log, its pid."""
        name = hashlib.sha256(str(self.repo).encode()).hexdigest()[:8]
        return self.cache / f"machine-{name}"

    @property
    def share(self) -> pathlib.Path:
        """Folder that host and guest both see; it is ``/lab`` in the guest."""
        return self.machine / "share"

    @property
    def venv(self) -> pathlib.Path:
        """The Python environment that the guest runs the library with."""
        return self.repo / ".venv"


def read_settings(repo: pathlib.Path) -> Settings:
    """Return the settings for the checkout at ``repo``.

    The environment may change them: ``OS_BRICK_LAB_DIR`` (folder for kernel and machine,
    default ``$XDG_CACHE_HOME/os-brick-lab``), ``OS_BRICK_LAB_LIFETIME``,
    ``OS_BRICK_LAB_BOOT_LIMIT``, ``OS_BRICK_LAB_EXEC_LIMIT``, ``OS_BRICK_LAB_SILENCE_LIMIT``
    (seconds), ``OS_BRICK_LAB_MEMORY`` (MiB) and ``OS_BRICK_LAB_CPUS``.
    """
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    cache = os.environ.get("OS_BRICK_LAB_DIR") or os.path.join(base, "os-brick-lab")
    return Settings(
        repo=repo.resolve(),
        cache=pathlib.Path(cache).resolve(),
        lifetime_s=_number("OS_BRICK_LAB_LIFETIME", 2 * 3600),
        boot_limit_s=_number("OS_BRICK_LAB_BOOT_LIMIT", 180),
        exec_limit_s=_number("OS_BRICK_LAB_EXEC_LIMIT", 600),
        silence_limit_s=_number("OS_BRICK_LAB_SILENCE_LIMIT", 180),
        memory_mib=_number("OS_BRICK_LAB_MEMORY", 3072),
        cpus=_number("OS_BRICK_LAB_CPUS", 2),
    )


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    if not text.isdigit() or int(text) < 1:
        raise LabError(f"{name} must be a whole number above 0, not {text!r}")
    return int(text)
