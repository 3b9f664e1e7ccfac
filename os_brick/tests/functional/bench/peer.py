# SPDX-License-Identifier: Apache-2.0
"""The peer: ``os-brick`` of the package index in an environment of its own, as it comes."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

from ..machine.settings import LabError

#: What pip is asked for; the environment may name a version.
REQUIREMENT = "OS_BRICK_BENCH_PEER"
_LIMIT_S = 900


def prepare(folder: pathlib.Path) -> str:
    """Return the interpreter of the peer's environment; makes and fills what is missing.

    :param folder: where the environment is kept.
    :raises LabError: it could not be made.
    """
    wanted = os.environ.get(REQUIREMENT, "os-brick")
    python = folder / "bin/python"
    stamp = folder / "bench-stamp"
    if stamp.exists() and stamp.read_text() == wanted:
        return str(python)
    print(f"bench: installing the peer, {wanted}, in {folder}", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(folder))
    _run(str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", wanted)
    # Compiling under emulation takes minutes; a file for other Python versions may fail.
    for place in folder.glob("lib/python3*/site-packages"):
        _run(str(python), "-m", "compileall", "-q", "-j", "0", str(place), check=False)
    stamp.write_text(wanted)
    return str(python)


def _run(*command: str, check: bool = True) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_LIMIT_S,
        text=True,
        check=False,
    )
    if check and done.returncode:
        raise LabError(f"this failed: {' '.join(command)}\n{done.stdout[-2000:]}")
