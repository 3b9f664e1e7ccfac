# SPDX-License-Identifier: Apache-2.0
"""iSCSI volumes that somebody still uses, and the library under an unprivileged service."""

from __future__ import annotations

import os
import time
from typing import Any

from ..guest import host_state, kernel, service
from ..guest.daemons import MultipathConfig
from ..guest.lab import DETACH_ERRORS, Lab, fails_with, properties
from ..targets import lio
from . import scenario
from .iscsi_attach import all_paths_join, attach, detach

STRICT = MultipathConfig(find_multipaths="strict")
_MOUNT = "/run/lab-mount"


@scenario("mounted, mapped, opened: refused without force by name, two paths", limit_s=300)
def iscsi_in_use_two_paths(lab: Lab) -> None:
    """A used volume stays whole; when its user is gone, the detach succeeds."""
    _in_use(lab, portals=2)


@scenario(
    "mounted, mapped, opened: refused without force by name, single path",
    limit_s=300,
    multipath=STRICT,
)
def iscsi_in_use_single_path(lab: Lab) -> None:
    """As above without a map."""
    _in_use(lab, portals=1)


@scenario("opened for a moment, as udev does: the detach waits and succeeds")
def iscsi_opened_for_a_moment(lab: Lab) -> None:
    """Short-lived openers have their seconds."""
    target, volume = lab.target(portals=2)
    host = lab.service(multipath=True)
    given = properties(target, several=True)
    info = attach(lab, host, given)
    all_paths_join(volume, 2)
    reader = os.fork()
    if reader == 0:
        handle = os.open(info["path"], os.O_RDONLY)
        time.sleep(2)
        os.close(handle)
        os._exit(0)
    kernel.wait_for(lambda: _opened_by(reader, info["path"]), "the reader has opened it")
    detach(lab, host, given, info)
    os.waitpid(reader, 0)


@scenario("an unprivileged service with its helper behind sudo", limit_s=400, rank=2)
def iscsi_unprivileged_service(lab: Lab) -> None:
    """As services run: every change of the host goes through the privileged helper."""
    target, volume = lab.target(portals=2)
    given = properties(target, several=True)
    root = os.fork()
    if root == 0:
        os._exit(_as_user(lab, given))
    _, status = os.waitpid(root, 0)
    assert status == 0, f"the unprivileged service failed (its output is above): {status}"
    del volume


def _as_user(lab: Lab, given: service.Properties) -> int:
    try:
        service.as_user()
        host = lab.service(multipath=True)
        told = service.host_properties()
        assert told["initiator"], told
        info = host.attach(given)
        assert info["path"].startswith("/dev/dm-"), info
        assert host.connector.check_valid_device(info["path"])
        host.detach(given, info)
    except BaseException:  # noqa: BLE001 - this process only tells its exit code
        import traceback

        traceback.print_exc()
        return 1
    return 0


def _in_use(lab: Lab, portals: int) -> None:
    several = portals > 1
    target, volume = lab.target(portals=portals)
    host = lab.service(multipath=several)
    given = properties(target, several=several)
    info = attach(lab, host, given)
    if several:
        all_paths_join(volume, portals)
    path = info["path"]

    kernel.run("mkfs.ext4", "-q", path)
    os.makedirs(_MOUNT, exist_ok=True)
    kernel.run("mount", path, _MOUNT)
    _refused(lab, host, given, info, volume, _MOUNT)
    kernel.run("umount", _MOUNT)

    table = f"0 {volume.size // 512} linear {path} 0"
    kernel.run("dmsetup", "create", "lab-on-top", "--table", table)
    _refused(lab, host, given, info, volume, "lab-on-top")
    kernel.run("dmsetup", "remove", "--retry", "lab-on-top")

    handle = os.open(path, os.O_RDWR | os.O_EXCL)
    _refused(lab, host, given, info, volume, "")
    os.close(handle)

    lab.check_data(path, volume)
    detach(lab, host, given, info)


def _refused(
    lab: Lab,
    host: service.Service,
    given: service.Properties,
    info: dict[str, Any],
    volume: lio.Volume,
    holder: str,
) -> None:
    with lab.timed("refused"), fails_with(*DETACH_ERRORS) as caught:
        host.detach(given, info)
    assert holder in str(caught[0]), f"{holder} is not named in: {caught[0]}"
    paths = 2 if info["path"].startswith("/dev/dm-") else 1
    assert len(host_state.disks(volume.wwid)) == paths, "a used path was removed"
    assert len(host_state.sessions()) == paths, "a used session was logged out"


def _opened_by(pid: int, path: str) -> bool:
    folder = f"/proc/{pid}/fd"
    return any(os.path.realpath(f"{folder}/{name}") == path for name in kernel.names(folder))
