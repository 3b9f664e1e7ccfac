# SPDX-License-Identifier: Apache-2.0
"""The guard that services hold around a whole attach or detach of a shared target."""

from __future__ import annotations

import contextlib
import mmap
import shutil
import sys
from collections.abc import Iterator
from typing import Any

_PROGRAM = "iscsiadm"
# Where distributions put it; the search path of a service often lacks the sbin folders.
PLACES = "/sbin:/usr/sbin:/usr/local/sbin:/bin:/usr/bin"
_SETTING = b"node.session.scan"
_NAME = "ISCSI_SUPPORTS_MANUAL_SCAN"

ISCSI_SUPPORTS_MANUAL_SCAN: bool
"""Whether the iSCSI initiator can leave scanning to this library. Found out when first asked for;
connectors update it at each connect, so that a new open-iscsi needs no restart of the service."""


def __getattr__(name: str) -> Any:
    if name == _NAME:
        return globals().setdefault(_NAME, check_manual_scan())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def check_manual_scan() -> bool:
    """Whether the installed iscsiadm knows the setting ``node.session.scan`` (open-iscsi 2.0.874).

    It looks for the name of the setting in the program's file. No program is run.
    """
    path = shutil.which(_PROGRAM, path=PLACES) or shutil.which(_PROGRAM)
    if path is None:
        return False
    try:
        with (
            open(path, "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            return content.find(_SETTING) >= 0
    except (OSError, ValueError):  # Not readable, or empty.
        return False


@contextlib.contextmanager
def guard_connection(device: Any) -> Iterator[None]:
    """Exclude other attaches and detaches of the same storage service on this host, where needed.

    Needed is it where a target is shared by many volumes and the initiator scans by itself: then a
    device that was removed but is still mapped comes back with another volume's scan. (Bugs
    1800515 and 1961102.)

    :param device: a Cinder volume: a dictionary, or an object with ``get`` and item access.
        ``shared_targets`` False or missing: no lock. True: a lock if the iSCSI initiator cannot
        leave scanning to us. None: a lock. The lock is that of ``service_uuid``, a file
        in ``[os_brick] lock_path``; volumes without one share a lock.
    :raises oslo_config.cfg.RequiredOptError: a lock is needed and no directory is configured.
    """
    shared = device.get("shared_targets", False)
    if shared is None:
        needed = True
    else:
        needed = bool(shared) and not getattr(sys.modules[__name__], _NAME)
    if not needed:
        yield
        return
    # Loaded with the first lock: most volumes need none.
    from oslo_concurrency import lockutils

    from os_brick import opts

    name = device.get("service_uuid") or "unknown-service"
    with lockutils.lock(name, "os-brick-", external=True, lock_path=opts.get_lock_path()):
        yield
