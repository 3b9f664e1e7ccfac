# SPDX-License-Identifier: Apache-2.0
"""Bring the machine back to a clean state by force, after whatever a scenario left behind.

Nothing here is gentle, and nothing of it is a model for the library.
"""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import threading

from ..targets import ceph, lio, nfs, tcm_fc
from . import ceph_images, faults, host_state, kernel, volume_groups
from .nvme import reset as reset_nvme

#: Longest time for one stubborn thing to go away.
_PATIENCE_S = 30.0


def everything() -> None:
    """End faults, maps, disks, sessions, records, targets and LUNs, in this order."""
    faults_of_all_kinds()
    volume_groups.remove_all()
    nfs.clean()
    ceph.clean()
    # What udev reads of a new disk: the soft array may keep a command for ever that is broken off.
    _with_patience(["udevadm", "settle", f"--timeout={_PATIENCE_S:.0f}"])
    _maps()
    _disks()
    _sessions()
    try:
        tcm_fc.unmap_all()
        tcm_fc.restore()
    except tcm_fc.ArrayStuck as exc:
        print(f"        (clean-up: {exc})", flush=True)
        return
    for place in ("/etc/iscsi/nodes", "/etc/iscsi/send_targets"):
        shutil.rmtree(place, ignore_errors=True)
    for link in pathlib.Path("/dev/disk").glob("by-*/*"):
        if not link.exists():
            link.unlink(missing_ok=True)
    reset_nvme()
    lio.remove_all()
    for path in ceph_images.secret_files():
        pathlib.Path(path).unlink(missing_ok=True)


def faults_of_all_kinds() -> None:
    """Take back all faults of the network and of programs, whoever made them."""
    kernel.run("iptables-legacy", "-F", check=False)
    kernel.run("tc", "qdisc", "del", "dev", "lo", "root", check=False)
    faults.Programs().heal()


def _maps() -> None:
    for dm in kernel.names("/sys/block"):
        name = kernel.read(f"/sys/block/{dm}/dm/name")
        if name:
            kernel.run("dmsetup", "resume", name, check=False)
            kernel.run("dmsetup", "message", name, "0", "fail_if_no_path", check=False)
    # Later ones may sit on earlier ones.
    for dm in sorted(kernel.names("/sys/block"), key=lambda name: (len(name), name), reverse=True):
        name = kernel.read(f"/sys/block/{dm}/dm/name")
        if name:
            _with_patience(["multipathd", "del", "map", name])
            _with_patience(["dmsetup", "remove", "--force", "--retry", name])


def _disks() -> None:
    def delete(device: pathlib.Path) -> None:
        for file, value in (("state", "offline"), ("delete", "1")):
            try:
                kernel.write(device / file, value)
            except OSError:
                continue  # It went by itself meanwhile.

    devices = [pathlib.Path("/sys/block", disk, "device") for disk in host_state.disks()]
    threads = [threading.Thread(target=delete, args=(d,), daemon=True) for d in devices]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_PATIENCE_S)


def _sessions() -> None:
    for session in kernel.names("/sys/class/iscsi_session"):
        # What still waits for the session's recovery fails soon.
        with contextlib.suppress(OSError):
            kernel.write(f"/sys/class/iscsi_session/{session}/recovery_tmo", "1")
        sid = session.removeprefix("session")
        _with_patience(["iscsiadm", "-m", "session", "-r", sid, "--logout"])


def _with_patience(command: list[str]) -> None:
    try:
        kernel.run(*command, check=False, limit_s=_PATIENCE_S)
    except kernel.NotSeen:
        print(f"        (clean-up: {' '.join(command)} hangs)", flush=True)
