# SPDX-License-Identifier: Apache-2.0
"""The device manager of user space, out of the way for a while."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from . import daemons, kernel

_PROGRAMS = ("/lib/systemd/systemd-udevd", "/usr/lib/systemd/systemd-udevd")


@contextlib.contextmanager
def absent() -> Iterator[None]:
    """Let devices come and go unseen by udevd, and so by multipathd.

    For disks that only have to be there: hundreds of events take minutes under emulation.
    """
    daemons.end("systemd-udevd")
    try:
        yield
    finally:
        program = next(each for each in _PROGRAMS if os.path.exists(each))
        kernel.run(program, "--daemon")
        daemons.outlive_the_scenario("systemd-udevd")


def settle(limit_s: float = 120) -> None:
    """Wait until all events so far are done."""
    kernel.run("udevadm", "settle", f"--timeout={limit_s:.0f}", limit_s=limit_s + 10)
