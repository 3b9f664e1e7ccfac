# SPDX-License-Identifier: Apache-2.0
"""Ceph RBD: a handle of librbd, or a block device that the kernel maps."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from typing import Any

from oslo_config import cfg
from oslo_log import log as logging

from os_brick import exception, initiator, utils
from os_brick.initiator import linuxrbd
from os_brick.initiator.connectors import base, base_rbd
from os_brick.initiator.linux import locking, rbd_conf, rbd_kernel, rbd_map
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.rbd_volume import RbdImage, RbdVolume
from os_brick.initiator.linux.sysfs import Tree
from os_brick.privileged import guarded
from os_brick.privileged import rbd as privileged_rbd

LOG = logging.getLogger(__name__)

_HANDLE_READ_BYTES = 4096
_READ_LIMIT_S = 60.0


class RBDConnector(base_rbd.RBDConnectorMixin, base.BaseLinuxConnector):
    """Attaches RBD images: as a file object by librbd, or by ``rbd map``.

    :param do_local_attach: whether the kernel maps the image and a path of a device is returned;
        the connection property of that name counts more.
    """

    _device_may_stay = False

    def __init__(
        self,
        root_helper: str | None,
        driver: Any = None,
        use_multipath: bool = False,
        device_scan_attempts: int = initiator.DEVICE_SCAN_ATTEMPTS_DEFAULT,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        self.do_local_attach: bool = kwargs.pop("do_local_attach", False)
        super().__init__(
            root_helper,
            driver,
            kwargs.pop("execute", None),
            *args,
            use_multipath=use_multipath,
            device_scan_attempts=device_scan_attempts,
            **kwargs,
        )

    @staticmethod
    def get_connector_properties(
        root_helper: str | None, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Return whether the caller wants images mapped by the kernel."""
        return {"do_local_attach": kwargs.get("do_local_attach", False)}

    # -- names that services know -------------------------------------------------------------
    @staticmethod
    def get_rbd_device_name(pool: str, volume: str) -> str:
        """Return the link that Ceph's udev rules make to a mapped image."""
        return RbdImage(pool, volume).link

    @classmethod
    def create_non_openstack_config(cls, connection_properties: Mapping[str, Any]) -> str | None:
        """Write a configuration file that only root can read, where the properties hold a keyring.

        :returns: its path, for the caller to delete; None without a keyring.
        """
        if not connection_properties.get("keyring"):
            return None
        volume = RbdVolume.for_handle(connection_properties)
        path: str = privileged_rbd.root_create_ceph_conf(
            list(connection_properties["hosts"]),
            [str(port) for port in connection_properties["ports"]],
            volume.cluster,
            volume.user or None,
            volume.keyring,
        )
        return path

    @classmethod
    def configuration_text(cls, properties: Mapping[str, Any]) -> str:
        """Return the text of a configuration file; for root, which reads the host's keyring."""
        volume = RbdVolume.parse({"name": "any/image", **properties})
        return volume.configuration(rbd_conf.read_keyring(Tree("/etc"), volume))

    # -- attach -------------------------------------------------------------------------------
    @utils.trace
    @utils.connect_volume_prepare_result
    def connect_volume(self, connection_properties: dict[str, Any]) -> dict[str, Any]:
        """Attach an image.

        :returns: ``{"path": file object}``, or where the kernel maps the image ``{"type": "block",
            "path": "/dev/rbd/pool/image"}`` and, with a keyring, ``"conf": path``, a file that is
            deleted at disconnect.
        :raises BrickException: properties that cannot be used, no connection, no ``rbd``; the
            host is as it was before.
        :raises ProcessExecutionError: ``rbd map`` failed, with its words.
        :raises rbd.Error: librbd could not open the image.
        :raises DeadlineExceeded: option ``call_timeout``.
        """
        if connection_properties.get("do_local_attach", self.do_local_attach):
            return self._map(connection_properties)
        return {"path": self._get_rbd_handle(connection_properties)}

    def _get_rbd_handle(
        self, connection_properties: Mapping[str, Any], read_only: bool = False
    ) -> linuxrbd.RBDVolumeIOWrapper:
        """Open an image by librbd; closing the handle closes and removes all that belongs to it."""
        volume = RbdVolume.for_handle(connection_properties)
        with self._public_call(f"Attach of {volume}") as call:
            return self._open_handle(call, volume, read_only)

    def _open_handle(
        self, call: Call, volume: RbdVolume, read_only: bool
    ) -> linuxrbd.RBDVolumeIOWrapper:
        keyring = rbd_conf.read_keyring(self.host.etc, volume)
        conf = rbd_conf.HandleConf(volume.configuration(keyring))
        return base_rbd.open_handle(call, volume, conf, read_only=read_only or volume.read_only)

    def _map(self, connection_properties: Mapping[str, Any]) -> dict[str, Any]:
        volume = RbdVolume.parse(connection_properties)
        with (
            self._public_call(f"Attach of {volume}") as call,
            self._volume_lock(call, volume),
        ):
            conf = self._store_conf(call, volume)
            args = self._get_rbd_args(connection_properties, conf)
            try:
                path = rbd_map.attach(self.host, call, volume, args)
            except Exception:
                self._drop_confs(call, volume, [conf], when_unsure=True)
                raise
        result: dict[str, Any] = {"path": path, "type": "block"}
        if conf:
            result["conf"] = conf
        return result

    def _volume_lock(
        self, call: Call, volume: base.Volume
    ) -> contextlib.AbstractContextManager[None]:
        return locking.held_if_possible(self.host.locks, call, volume.lock_names)

    # -- the configuration file of a mapping --------------------------------------------------
    def _store_conf(self, call: Call, volume: RbdVolume) -> str | None:
        """Write the configuration file of a mapping, if there is a keyring to put into it.

        Its name is made of the volume's, so that a detach finds it also without what the attach
        returned.
        """
        if not volume.keyring:
            return None
        made_of = f"{volume.cluster}\n{volume.user}\n{volume.image}"
        name = rbd_conf.PREFIX + hashlib.sha256(made_of.encode()).hexdigest()[:32]
        text = volume.configuration(volume.keyring)
        return self.host.changes.store_ceph_conf(call, name, text)

    def _drop_confs(
        self, call: Call, volume: RbdVolume, confs: list[str | None], *, when_unsure: bool
    ) -> None:
        """Delete configuration files after a failure, unless the mapping is there.

        :param when_unsure: delete them also where nobody can say.
        """
        try:
            if rbd_kernel.has_bus(self.host.sysfs):
                delete = not rbd_kernel.find(self.host, call, volume.image, ())
            else:
                delete = when_unsure
            if delete:
                self._delete_confs(call.later(f"Clean-up of {volume}", _READ_LIMIT_S), confs)
        except Exception:
            LOG.warning("A configuration file of %s may be left", volume, exc_info=True)

    def _delete_confs(self, call: Call, confs: list[str | None]) -> None:
        for conf in dict.fromkeys(filter(None, confs)):
            self.host.changes.delete_ceph_conf(call, conf)

    # -- detach -------------------------------------------------------------------------------
    @utils.trace
    @utils.connect_volume_undo_prepare_result(unlink_after=True)
    def disconnect_volume(
        self,
        connection_properties: dict[str, Any],
        device_info: Any,
        force: bool = False,
        ignore_errors: bool = False,
    ) -> None:
        """Close a handle, or have the kernel unmap an image. Without ``force`` its data is on the
        storage when this returns.

        :raises DeviceInUse: somebody uses the mapped image (without ``force``); nothing was
            changed.
        :raises ProcessExecutionError: writing out or unmapping failed (without ``force``).
        :raises rbd.Error: what was written by the handle may not be on the storage; it is closed.
        :raises ExceptionChainer: what failed (with ``force``, without ``ignore_errors``).
        """
        info = device_info if isinstance(device_info, Mapping) else {}
        path = info.get("path")
        if path is not None and not isinstance(path, (str, bytes)):
            self._close(path, force, ignore_errors)
        elif path or connection_properties.get("do_local_attach", self.do_local_attach):
            self._unmap(connection_properties, info.get("conf"), force, ignore_errors)

    def _close(self, handle: Any, force: bool, ignore_errors: bool) -> None:
        if not hasattr(handle, "close"):
            self.check_IO_handle_valid(handle, linuxrbd.RBDVolumeIOWrapper, "RBD")
        errors = exception.ExceptionChainer()
        with (
            self._public_call("Detach of a handle of an RBD image") as call,
            errors.context(force, "Closing the handle of an RBD image failed"),
        ):
            try:
                base_rbd.answer(call, "close the image", handle.close)
            finally:
                # Ours are gone by now; a service may have made its own kind of handle of one.
                conf = getattr(handle, "rbd_conf", None)
                if isinstance(conf, str) and os.path.basename(conf).startswith(rbd_conf.PREFIX):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(conf)
        if errors and not ignore_errors:
            raise errors

    def _unmap(
        self,
        connection_properties: Mapping[str, Any],
        known_conf: Any,
        force: bool,
        ignore_errors: bool,
    ) -> None:
        volume = RbdVolume.parse(connection_properties)
        with self._detaching(volume, force, ignore_errors) as (call, errors):
            stored = None
            with errors.context(force, "No configuration file of %s can be written", volume):
                stored = self._store_conf(call, volume)
            confs = [stored, known_conf if isinstance(known_conf, str) else None]
            args = self._get_rbd_args(connection_properties, stored or confs[1])
            try:
                rbd_map.detach(
                    self.host,
                    call,
                    volume,
                    args,
                    force=force,
                    errors=errors,
                    flush_limit_s=cfg.CONF.os_brick.flush_timeout,
                )
            except Exception:
                self._drop_confs(call, volume, confs, when_unsure=False)
                raise
            if errors:
                self._drop_confs(call, volume, confs, when_unsure=False)
            else:
                self._delete_confs(call, confs)

    # -- size, paths --------------------------------------------------------------------------
    @utils.trace
    @utils.connect_volume_undo_prepare_result
    def extend_volume(self, connection_properties: dict[str, Any]) -> int:
        """Return an image's size in bytes; the kernel hears of a new one by itself.

        :raises BrickException: it is to be mapped here, but is not.
        """
        if connection_properties.get("do_local_attach", self.do_local_attach):
            volume = RbdVolume.parse(connection_properties)
            with self._public_call(f"Extend of {volume}") as call:
                args = self._get_rbd_args(connection_properties)
                return rbd_map.read_size(self.host, call, volume, args)
        volume = RbdVolume.for_handle(connection_properties)
        with self._public_call(f"Extend of {volume}") as call:
            handle = self._open_handle(call, volume, read_only=True)
            return base_rbd.answer(call, f"size of {volume}", lambda: _measure(handle))

    def check_valid_device(self, path: Any, run_as_root: bool = True) -> bool:
        """Tell whether a handle, or the device or file of a path, can be read.

        A handle's position stays as it is.
        """
        if not path:
            return False
        if isinstance(path, bytes):
            path = path.decode()
        if not isinstance(path, str):
            return _is_readable_handle(path)
        if not run_as_root:
            return privileged_rbd.is_readable(path)
        call = Call(f"check of {path}", self.host.clock, _READ_LIMIT_S)
        return self.host.changes.is_readable(call, path)

    def get_volume_paths(self, connection_properties: dict[str, Any]) -> list[str]:
        """Return an empty list: a handle has no path."""
        return []

    def get_search_path(self) -> str | None:
        """Return None."""
        return None

    def get_all_available_volumes(
        self, connection_properties: dict[str, Any] | None = None
    ) -> list[str]:
        """Return an empty list."""
        return []


def _measure(handle: linuxrbd.RBDVolumeIOWrapper) -> int:
    """Return the size of an image, and close it."""
    with handle:
        return handle.seek(0, os.SEEK_END)


def _is_readable_handle(handle: Any) -> bool:
    """Tell whether the first bytes at a handle's position can be read; the position stays."""

    def read() -> bool:
        offset = handle.tell()
        try:
            handle.read(_HANDLE_READ_BYTES)
        finally:
            handle.seek(offset, os.SEEK_SET)
        return True

    try:
        return bool(guarded.within(_READ_LIMIT_S, read, "a read of an RBD image"))
    except Exception as exc:  # noqa: BLE001 - librbd's errors have no common base that is known here
        LOG.error("Failed to access device handle: %s", exc)
        return False
