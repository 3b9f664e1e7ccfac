# SPDX-License-Identifier: Apache-2.0
"""The few ways to change SCSI devices and links as root, behind one interface.

:class:`PrivilegedChanges` calls the library's own privileged verbs and starts no program. Where a
service supplies its own ``execute`` (sudo, nsenter, a container), every change has to go through
that: :class:`ProgramChanges` does the same by programs.
"""

from __future__ import annotations

from typing import Any, Protocol

from oslo_concurrency import processutils

from os_brick.initiator.linux import identity, multipathd, scsi
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.identity import Identity
from os_brick.initiator.linux.programs import Programs, Result
from os_brick.initiator.linux.scsi import Disk
from os_brick.initiator.linux.sysfs import Tree
from os_brick.privileged import device_mapper, rootwrap
from os_brick.privileged import luks as privileged_luks
from os_brick.privileged import rbd as privileged_rbd
from os_brick.privileged import scsi as privileged_scsi
from os_brick.privileged import zfcp as privileged_zfcp

#: What a change may raise: the kernel's answer, or a program's.
FAILURES = (OSError, processutils.ProcessExecutionError)

_ZFCP = "bus/ccw/drivers/zfcp"
_WRITE_LIMIT_S = 120.0
_INQUIRY_LIMIT_S = 15.0
_OPEN_LIMIT_S = 5.0
_START_LIMIT_S = 60.0
_DAEMON_LIMIT_S = 15.0
_MIB = 1 << 20
_STANDARD, _SERIAL, _IDENTIFICATION = -1, 0x80, 0x83  # INQUIRY pages
_ILLEGAL_REQUEST = 0x05  # sense key


class Changes(Protocol):
    """Changes of the host. All raise one of :data:`FAILURES`; ``TimeoutError`` when it goes on
    without us."""

    def scan(self, call: Call, host: int, channel: str, target: str, lun: int) -> None:
        """Have a SCSI host look for one LUN; ``-`` stands for any channel or target."""

    def delete(self, call: Call, disk: Disk) -> None:
        """Remove this very disk; nothing happens if it is gone."""

    def rescan(self, call: Call, disk: Disk) -> None:
        """Have the kernel read size and identity pages of this very disk again."""

    def set_offline(self, call: Call, disk: Disk) -> None:
        """Have this very disk fail all its requests at once."""

    def inquire(self, call: Call, disk: Disk) -> Identity | None:
        """Ask the disk itself who it is; None if there is no such LUN on the target any more."""

    def read_block(self, call: Call, disk: Disk) -> None:
        """Read a block of this very disk, past the page cache."""

    def rescan_ports(self, call: Call, adapter: str) -> None:
        """Have a zfcp adapter (``"0.0.2300"``) ask its fabric for ports."""

    def configure_unit(self, call: Call, adapter: str, wwpn: str, lun: str) -> None:
        """Configure a LUN (``"0x0001000000000000"``) of a port (16 digits) of a zfcp adapter."""

    def remove_unit(self, call: Call, adapter: str, wwpn: str, lun: str) -> None:
        """Take such a LUN away, and its disk with it."""

    def is_claimed(self, call: Call, name: str) -> bool:
        """Tell whether somebody holds a block device exclusively.

        ``TimeoutError``: somebody keeps it from being opened at all.
        """

    def open_count(self, call: Call, label: str) -> int | None:
        """Return how often a mapping is open; None if that cannot be said."""

    def ask_multipathd(self, call: Call, *words: str) -> str | None:
        """Return what multipathd says to a question; None if it has to be asked by its client.

        ``TimeoutError``: it does not answer.
        """

    def holds_luks(self, call: Call, name: str, number: str, length: int) -> bool:
        """Read the first ``length`` bytes (whole MiB) of this very block device past the page
        cache, and tell whether a LUKS header is there."""

    def node_settings(self, call: Call, iqn: str, address: str, port: int) -> dict[str, str] | None:
        """Return startup and scan mode of an iSCSI node record; empty: no record; None: cannot be
        said."""

    def link(self, call: Call, target: str, link_name: str) -> None:
        """Make a symbolic link, in place of whatever has its name."""

    def unlink(self, call: Call, *links: str) -> None:
        """Remove links; a missing one is no error."""

    def store_ceph_conf(self, call: Call, name: str, text: str) -> str:
        """Write a configuration file of Ceph's that only root can read; return its path."""

    def delete_ceph_conf(self, call: Call, path: str) -> None:
        """Delete such a file; a missing one is no error."""

    def is_readable(self, call: Call, path: str) -> bool:
        """Tell whether root can read the beginning of a device or file."""


def _no_such_lun(answer: dict[str, Any]) -> bool:
    """Tell from the answer to an INQUIRY that the target has no such logical unit.

    Either the peripheral qualifier says so (SPC-4 6.4.2: 001b not connected, 011b not supported),
    or the sense data does: ILLEGAL REQUEST, LOGICAL UNIT NOT SUPPORTED (SPC-4 annex D.2: 25h/00h).
    """
    page = answer["page"]
    if _sense(answer) == (_ILLEGAL_REQUEST, 0x25):
        return True
    return isinstance(page, bytes) and answer["status"] == 0 and bool(page) and page[0] >> 5 != 0


def _sense(answer: dict[str, Any]) -> tuple[int, int]:
    """Return sense key and additional sense code of an answer (SPC-4 4.5); zeros without them."""
    sense = answer["sense"]
    if not isinstance(sense, bytes) or len(sense) <= 2:
        return 0, 0
    if sense[0] & 0x7F in (0x70, 0x71):
        return sense[2] & 0x0F, sense[12] if len(sense) > 12 else 0
    return sense[1] & 0x0F, sense[2]


class _NoSuchLun(Exception):
    """The target has no such logical unit (any more)."""


class PrivilegedChanges:
    """The library's own privileged verbs (:mod:`os_brick.privileged.scsi`)."""

    def scan(self, call: Call, host: int, channel: str, target: str, lun: int) -> None:
        with call.step(f"scan host{host} {channel} {target} {lun}"):
            privileged_scsi.scan(host, channel, target, str(lun), call.within(_WRITE_LIMIT_S))

    def delete(self, call: Call, disk: Disk) -> None:
        self._write(call, disk, "delete")

    def rescan(self, call: Call, disk: Disk) -> None:
        self._write(call, disk, "rescan")

    def set_offline(self, call: Call, disk: Disk) -> None:
        self._write(call, disk, "state")

    def _write(self, call: Call, disk: Disk, attribute: str) -> None:
        with call.step(f"{attribute} {disk}") as step:
            limit_s = call.within(_WRITE_LIMIT_S)
            if not privileged_scsi.write_attribute(
                str(disk.hctl), disk.instance, attribute, limit_s
            ):
                step.outcome = "was gone"

    def inquire(self, call: Call, disk: Disk) -> Identity | None:
        with call.step(f"inquire {disk}") as step:
            try:
                found = identity.parse_page83(self._page(call, disk, _IDENTIFICATION))
                if not found.ids:
                    # A device without page 0x83 still must say that it is there.
                    standard = self._page(call, disk, _STANDARD)
                    serial = self._page(call, disk, _SERIAL)
                    found = identity.parse_serial(*identity.vendor_and_model(standard), serial)
            except _NoSuchLun:
                step.outcome = "no such LUN"
                return None
            step.outcome = str(found)
            return found

    @staticmethod
    def _page(call: Call, disk: Disk, page: int) -> bytes:
        """Return an INQUIRY page; empty if the device does not have it."""
        limit_s = call.within(_INQUIRY_LIMIT_S)
        answer = privileged_scsi.inquire(disk.name, str(disk.hctl), disk.instance, page, limit_s)
        if _no_such_lun(answer):
            raise _NoSuchLun
        if answer["host_status"] != 0:
            raise OSError(f"{disk} does not answer (host status {answer['host_status']})")
        if answer["status"] == 0:
            return bytes(answer["page"])
        if page >= 0 and _sense(answer)[0] == _ILLEGAL_REQUEST:
            return b""
        # Busy, or an error of the moment: that says nothing about who it is.
        raise OSError(f"{disk} does not say who it is (SCSI status {answer['status']:#x})")

    def read_block(self, call: Call, disk: Disk) -> None:
        with call.step(f"read {disk}"):
            limit_s = call.within(_INQUIRY_LIMIT_S)
            privileged_scsi.read_block(disk.name, str(disk.hctl), disk.instance, limit_s)

    def rescan_ports(self, call: Call, adapter: str) -> None:
        with call.step(f"port_rescan {adapter}"):
            privileged_zfcp.rescan_ports(adapter, call.within(_WRITE_LIMIT_S))

    def configure_unit(self, call: Call, adapter: str, wwpn: str, lun: str) -> None:
        with call.step(f"unit_add {adapter} 0x{wwpn} {lun}"):
            limit_s = call.within(_WRITE_LIMIT_S)
            privileged_zfcp.change_unit(adapter, f"0x{wwpn}", "unit_add", lun, limit_s)

    def remove_unit(self, call: Call, adapter: str, wwpn: str, lun: str) -> None:
        with call.step(f"unit_remove {adapter} 0x{wwpn} {lun}"):
            limit_s = call.within(_WRITE_LIMIT_S)
            privileged_zfcp.change_unit(adapter, f"0x{wwpn}", "unit_remove", lun, limit_s)

    def is_claimed(self, call: Call, name: str) -> bool:
        return bool(privileged_scsi.is_claimed(name, call.within(_OPEN_LIMIT_S)))

    def open_count(self, call: Call, label: str) -> int | None:
        count: int | None = device_mapper.open_count(label)
        return count

    def ask_multipathd(self, call: Call, *words: str) -> str | None:
        what = f"ask multipathd: {' '.join(words)}"
        call.check(what)
        with call.step(what) as step:
            try:
                return multipathd.ask(words, call.within(_DAEMON_LIMIT_S))
            except TimeoutError:
                raise
            except OSError as exc:  # its client knows more ways, and says what is wrong
                step.outcome = str(exc)
                return None

    def holds_luks(self, call: Call, name: str, number: str, length: int) -> bool:
        with call.step(f"read the start of {name}") as step:
            limit_s = call.within(_START_LIMIT_S)
            found = bool(privileged_luks.holds_header(name, number, length, limit_s))
            step.outcome = "LUKS" if found else "no LUKS"
            return found

    def node_settings(self, call: Call, iqn: str, address: str, port: int) -> dict[str, str] | None:
        settings: dict[str, str] | None = privileged_scsi.read_node_settings(iqn, address, port)
        return settings

    def link(self, call: Call, target: str, link_name: str) -> None:
        rootwrap.link_root(target, link_name, force=True)

    def unlink(self, call: Call, *links: str) -> None:
        rootwrap.unlink_root(*links, no_errors=True)

    def store_ceph_conf(self, call: Call, name: str, text: str) -> str:
        with call.step(f"store {name}"):
            path: str = privileged_rbd.store_conf(name, text)
            return path

    def delete_ceph_conf(self, call: Call, path: str) -> None:
        with call.step(f"delete {path}"):
            privileged_rbd.delete_if_exists(path)

    def is_readable(self, call: Call, path: str) -> bool:
        with call.step(f"read {path}"):
            return bool(privileged_rbd.check_valid_path(path))


class ProgramChanges:
    """The same by programs, for an execute function that a service supplied."""

    def __init__(self, programs: Programs, sysfs: Tree) -> None:
        self._programs = programs
        self._sysfs = sysfs

    def scan(self, call: Call, host: int, channel: str, target: str, lun: int) -> None:
        self._tee(
            call,
            self._sysfs.path("class/scsi_host", f"host{host}", "scan"),
            f"{channel} {target} {lun}",
        )

    def delete(self, call: Call, disk: Disk) -> None:
        self._write(call, disk, "delete", "1")

    def rescan(self, call: Call, disk: Disk) -> None:
        self._write(call, disk, "rescan", "1")

    def set_offline(self, call: Call, disk: Disk) -> None:
        self._write(call, disk, "state", "offline")

    def _write(self, call: Call, disk: Disk, attribute: str, text: str) -> None:
        # Looked at just before: a program cannot hold the directory open as the privileged verb
        # does.
        if scsi.is_there(self._sysfs, disk):
            self._tee(call, self._sysfs.path("bus/scsi/devices", str(disk.hctl), attribute), text)

    def _tee(self, call: Call, path: str, text: str) -> None:
        self._programs.run(call, "tee", "-a", path, limit_s=_WRITE_LIMIT_S, stdin=text).check()

    def inquire(self, call: Call, disk: Disk) -> Identity | None:
        result = self._scsi_id(call, disk, _IDENTIFICATION)
        if result.code == 1 or not result.out.strip():  # it has no such page, or does not answer
            result = self._scsi_id(call, disk, _SERIAL)
        return identity.from_udev(result.check().out)

    def _scsi_id(self, call: Call, disk: Disk, page: int) -> Result:
        words = ("/lib/udev/scsi_id", "--page", f"{page:#x}", "--whitelisted", disk.path)
        return self._programs.run(call, *words, limit_s=_INQUIRY_LIMIT_S)

    def read_block(self, call: Call, disk: Disk) -> None:
        # 4096 bytes fit the blocks of every disk, which direct I/O has to respect.
        words = ("dd", f"if={disk.path}", "of=/dev/null", "bs=4096", "count=1", "iflag=direct")
        self._programs.run(call, *words, limit_s=_INQUIRY_LIMIT_S).check()

    def rescan_ports(self, call: Call, adapter: str) -> None:
        self._tee(call, self._sysfs.path(_ZFCP, adapter, "port_rescan"), "1")

    def configure_unit(self, call: Call, adapter: str, wwpn: str, lun: str) -> None:
        self._tee(call, self._sysfs.path(_ZFCP, adapter, f"0x{wwpn}", "unit_add"), lun)

    def remove_unit(self, call: Call, adapter: str, wwpn: str, lun: str) -> None:
        self._tee(call, self._sysfs.path(_ZFCP, adapter, f"0x{wwpn}", "unit_remove"), lun)

    def is_claimed(self, call: Call, name: str) -> bool:
        return False  # no program asks for this without opening the device for writing

    def open_count(self, call: Call, label: str) -> int | None:
        # dmsetup could tell, but this is asked again and again; `multipath -f` refuses by itself.
        return None

    def ask_multipathd(self, call: Call, *words: str) -> str | None:
        return None

    def holds_luks(self, call: Call, name: str, number: str, length: int) -> bool:
        read = ("dd", f"if=/dev/{name}", "iflag=direct")
        whole = (*read, "of=/dev/null", "bs=1M", f"count={length // _MIB}")
        self._programs.run(call, *whole, limit_s=_START_LIMIT_S).check()
        first = (*read, "bs=4096", "count=1")
        result = self._programs.run(call, *first, limit_s=_START_LIMIT_S).check()
        # What is no text of the magic "LUKS\xba\xbe" has been dropped.
        return result.out.startswith("LUKS")

    def node_settings(self, call: Call, iqn: str, address: str, port: int) -> dict[str, str] | None:
        return None

    def link(self, call: Call, target: str, link_name: str) -> None:
        self._programs.run(call, "ln", "-sfn", target, link_name, limit_s=_INQUIRY_LIMIT_S).check()

    def unlink(self, call: Call, *links: str) -> None:
        self._programs.run(call, "rm", "-f", *links, limit_s=_INQUIRY_LIMIT_S).check()

    def store_ceph_conf(self, call: Call, name: str, text: str) -> str:
        folder = privileged_rbd.FOLDER
        path = f"{folder}/{name}"
        mkdir = ("mkdir", "-p", "-m", "0700", folder)
        self._programs.run(call, *mkdir, limit_s=_INQUIRY_LIMIT_S).check()
        # The new file has this mode from its first moment on (install of coreutils).
        install = ("install", "-m", "0600", "/dev/stdin", path)
        self._programs.run(call, *install, limit_s=_INQUIRY_LIMIT_S, stdin=text).check()
        return path

    def delete_ceph_conf(self, call: Call, path: str) -> None:
        self._programs.run(call, "rm", "-f", path, limit_s=_INQUIRY_LIMIT_S).check()

    def is_readable(self, call: Call, path: str) -> bool:
        words = ("dd", f"if={path}", "of=/dev/null", "bs=4096", "count=1")
        return self._programs.run(call, *words, limit_s=_WRITE_LIMIT_S).code == 0
