# SPDX-License-Identifier: Apache-2.0
"""The disk of a backing virtual machine: out of it into a file, and a file in its place."""

from __future__ import annotations

import contextlib
import os
import urllib.parse
from collections.abc import Iterator
from typing import IO, Any

from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.vendors import vmdk_transfer
from os_brick.initiator.vendors.vmdk_volume import DatastorePath, VmdkVolume
from os_brick.initiator.vendors.vsphere import Session, VsphereError

LOG = logging.getLogger(__name__)

_PROGRESS_EVERY_S = 60.0
_DISK = "VirtualDisk"
_EXISTS = "FileAlreadyExists"


def _moref(value: str, kind: str) -> Any:
    from oslo_vmware import vim_util

    return vim_util.get_moref(value, kind)


# -- out ---------------------------------------------------------------------------------------
def export(session: Session, volume: VmdkVolume, file: IO[bytes]) -> None:
    """Write a volume's disk to a file, in the stream-optimized format.

    :raises BrickException: it is not there whole.
    """
    lease = session.invoke("ExportVm", _moref(volume.backing, "VirtualMachine"))
    done = False
    try:
        info = session.wait_for_lease(lease)
        url, thumbprint = _disk_of(info)
        with session.call.step("download") as step:
            step.waited_for = "the disk"
            report = _Progress(session, lease, volume.size)
            vmdk_transfer.download(session, url, thumbprint, file, report)
        session.invoke("HttpNfcLeaseComplete", lease)
        done = True
    finally:
        if not done:
            session.tidy_up()
            with _only_logged("end the export"):
                session.invoke("HttpNfcLeaseAbort", lease)


def _disk_of(info: Any) -> tuple[str, str]:
    for one in getattr(info, "deviceUrl", None) or ():
        if getattr(one, "disk", False):
            return str(one.url), str(getattr(one, "sslThumbprint", "") or "")
    raise VsphereError("The export's lease names no disk")


class _Progress:
    """Tells the server now and then that the export goes on; it would end it otherwise."""

    def __init__(self, session: Session, lease: Any, size: int) -> None:
        self._session = session
        self._lease = lease
        self._size = size
        self._last_s = session.call.elapsed_s()

    def __call__(self, count: int) -> None:
        now_s = self._session.call.elapsed_s()
        if now_s - self._last_s >= _PROGRESS_EVERY_S:
            self._last_s = now_s
            # The stream is usually shorter than the disk; 100 would say that it is over.
            percent = min(99, count * 100 // self._size)
            self._session.invoke("HttpNfcLeaseProgress", self._lease, percent=percent)


# -- in ----------------------------------------------------------------------------------------
def replace(session: Session, volume: VmdkVolume, path: str, folder: str) -> None:
    """Put the disk in a file in the place of a volume's disk.

    The old disk is kept aside until the new one is in its place and attached; whatever fails before
    leaves the old one there.

    :param path: of the file here.
    :param folder: of the volume's datastore, for what is under way.
    :raises BrickException: the old disk is still, or again, in its place.
    """
    _Replacement(session, volume).carry_out(path, folder)


class _Replacement:
    """Putting one disk in another's place, step by step."""

    def __init__(self, session: Session, volume: VmdkVolume) -> None:
        self._session = session
        self._volume = volume
        self._backing = _moref(volume.backing, "VirtualMachine")
        self._datacenter = _moref(volume.datacenter, "Datacenter")
        mark = os.urandom(4).hex()
        self._new = volume.path.beside(f"new-{mark}")
        self._old = volume.path.beside(f"old-{mark}")

    def carry_out(self, path: str, folder: str) -> None:
        session, volume = self._session, self._volume
        self._refuse_snapshots()
        disk = self._find_disk()
        name = session.read(_moref(volume.datastore, "Datastore"), "name")
        sent = DatastorePath(str(name), f"{folder}/{os.path.basename(path)}")
        self._make_folder(DatastorePath(str(name), folder))
        try:
            with session.call.step("upload") as step:
                step.waited_for = "the disk"
                vmdk_transfer.upload(session, path, self._place_of(sent))
            # Only a copy inflates the disk to the format that machines use.
            self._copy(sent, self._new)
            with self._removed_if_left(self._new):
                self._exchange(disk)
        except Exception:
            session.tidy_up()
            raise
        finally:
            with _only_logged(f"delete {sent}"):
                self._run("DeleteDatastoreFile_Task", "fileManager", name=str(sent), datacenter=1)
        with _only_logged(f"delete {self._old}, the disk that was replaced"):
            self._delete_disk(self._old)

    def _refuse_snapshots(self) -> None:
        found = self._session.read(self._backing, "snapshot")
        if found is not None and getattr(found, "rootSnapshotList", None):
            raise exception.BrickException(
                f"Backing of volume: {self._volume.id} contains one or more snapshots; "
                "cannot disconnect."
            )

    def _find_disk(self) -> Any:
        devices = self._session.read(self._backing, "config.hardware.device")
        devices = getattr(devices, "VirtualDevice", devices) or ()
        for one in devices:
            file = getattr(getattr(one, "backing", None), "fileName", None)
            if type(one).__name__ == _DISK and DatastorePath.parse(file) == self._volume.path:
                return one
        raise exception.WrongVolume(
            device=str(self._volume.path),
            reason=f"The machine {self._volume.backing} has no such disk; nothing was changed.",
        )

    def _make_folder(self, folder: DatastorePath) -> None:
        try:
            self._session.invoke(
                "MakeDirectory",
                self._session.manager("fileManager"),
                name=str(folder),
                datacenter=self._datacenter,
                createParentDirectories=True,
            )
        except VsphereError as exc:
            if _EXISTS not in exc.faults:
                raise

    def _place_of(self, file: DatastorePath) -> str:
        """Return where a file of a datastore is over HTTP (vSphere Web Services SDK guide)."""
        names: list[str] = []
        entity = self._datacenter
        while entity is not None:
            parent = self._session.read(entity, "parent")
            if parent is not None:  # the root folder has a name too, but is no part of paths
                names.insert(0, urllib.parse.unquote(str(self._session.read(entity, "name"))))
            entity = parent
        query = urllib.parse.urlencode({"dcPath": "/".join(names), "dsName": file.datastore})
        return f"/folder/{urllib.parse.quote(file.path)}?{query}"

    # -- the exchange -------------------------------------------------------------------------
    def _exchange(self, disk: Any) -> None:
        with contextlib.ExitStack() as undo:
            # Each is noted before its step: one whose answer was lost may have been carried out.
            undo.callback(self._undo, "attach the old disk again", self._attach_again, disk)
            self._reconfigure("remove", disk)
            undo.callback(
                self._undo, "put the old disk back", self._move, self._old, self._volume.path
            )
            self._move(self._volume.path, self._old)
            undo.callback(
                self._undo, "take the new disk away", self._move, self._volume.path, self._new
            )
            self._move(self._new, self._volume.path)
            self._reconfigure("add", disk)
            undo.pop_all()

    def _attach_again(self, disk: Any) -> None:
        try:
            self._find_disk()
        except exception.WrongVolume:
            self._reconfigure("add", disk)

    def _undo(self, what: str, step: Any, *arguments: Any) -> None:
        self._session.tidy_up()
        with _only_logged(what):
            step(*arguments)

    def _reconfigure(self, operation: str, disk: Any) -> None:
        """Take the disk out of the machine (its file stays), or put it in."""
        if operation == "add":
            # As the file says, not as the old one did (bugs 1814346 and 1814347): what is None is
            # not sent.
            disk.capacityInKB = 0
            for owner, name in (
                (disk, "capacityInBytes"),
                (disk.backing, "uuid"),
                (disk.backing, "contentId"),
            ):
                if hasattr(owner, name):
                    setattr(owner, name, None)
        change = self._session.new("VirtualDeviceConfigSpec", operation=operation, device=disk)
        spec = self._session.new("VirtualMachineConfigSpec", deviceChange=[change])
        self._session.run("ReconfigVM_Task", self._backing, spec=spec)

    def _copy(self, source: DatastorePath, target: DatastorePath) -> None:
        self._run(
            "CopyVirtualDisk_Task",
            "virtualDiskManager",
            sourceName=str(source),
            sourceDatacenter=1,
            destName=str(target),
            destDatacenter=1,
            force=False,
        )

    def _move(self, source: DatastorePath, target: DatastorePath) -> None:
        self._run(
            "MoveVirtualDisk_Task",
            "virtualDiskManager",
            sourceName=str(source),
            sourceDatacenter=1,
            destName=str(target),
            destDatacenter=1,
            force=False,
        )

    def _delete_disk(self, path: DatastorePath) -> None:
        self._run("DeleteVirtualDisk_Task", "virtualDiskManager", name=str(path), datacenter=1)

    @contextlib.contextmanager
    def _removed_if_left(self, path: DatastorePath) -> Iterator[None]:
        done = False
        try:
            yield
            done = True
        finally:
            if not done:
                self._session.tidy_up()
                with _only_logged(f"delete {path}"):
                    self._delete_disk(path)

    def _run(self, method: str, manager: str, **arguments: Any) -> None:
        """Run a task of a part of the server; arguments about datacenters are the volume's."""
        given = {
            name: self._datacenter if name.lower().endswith("datacenter") else value
            for name, value in arguments.items()
        }
        self._session.run(method, self._session.manager(manager), **given)


@contextlib.contextmanager
def _only_logged(what: str) -> Iterator[None]:
    """Let a step of tidying up fail: what came before it counts."""
    try:
        yield
    except exception.BrickException as exc:
        LOG.warning("Leftovers may remain: could not %s: %s", what, exc)
