# SPDX-License-Identifier: Apache-2.0
"""What several of these tests do."""

from __future__ import annotations

from oslo_concurrency import processutils

from os_brick.initiator.linux.call import Call
from os_brick.testing import FakeHost
from os_brick.testing.sessions import Session
from os_brick.testing.storage import IscsiTarget


def new_call(host: FakeHost, limit_s: float = 600) -> Call:
    """Return a call on a fake host's clock."""
    return Call("test", host.host.clock, limit_s)


def session_to(host: FakeHost, target: IscsiTarget, index: int = 0, **more: object) -> Session:
    """Return a new session without going through iscsid."""
    portal = target.portals[index]
    return host.sessions.create(target.iqns[index], portal, target, index, **more)  # type: ignore[arg-type]


def run(host: FakeHost, line: str, **keywords: object) -> tuple[int | None, str, str]:
    """Run a command given as one line; return (exit code, stdout, stderr)."""
    try:
        out, err = host.execute(*line.split(), **keywords)
    except processutils.ProcessExecutionError as exc:
        code = exc.exit_code if isinstance(exc.exit_code, int) else None
        return code, exc.stdout or "", exc.stderr or ""
    return 0, out, err
