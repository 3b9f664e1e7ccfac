# SPDX-License-Identifier: Apache-2.0
"""StorPool: volumes of its own block client, attached by its API."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from oslo_config import cfg
from oslo_log import log as logging

from os_brick import exception, executor, utils
from os_brick.initiator import storpool_utils
from os_brick.initiator.connectors import base
from os_brick.initiator.linux import locking, nodes, udev
from os_brick.initiator.linux.call import Call
from os_brick.initiator.storpool_utils import DEV_STORPOOL as DEV_STORPOOL
from os_brick.initiator.storpool_utils import DEV_STORPOOL_BYID as DEV_STORPOOL_BYID
from os_brick.initiator.storpool_utils import StorPoolAPI, StorPoolAPIError
from os_brick.initiator.vendors import device, http

LOG = logging.getLogger(__name__)

_MODES = ("rw", "ro")
# StorPool's client has the device when its API answers; udev's link comes a moment later.
_LINK_S = 15.0
_GONE_S = 15.0
_BUSY_TRIES = 10
_BUSY_PAUSE_S = 0.2
_SIZE_S = 15.0
_UNDO_LIMIT_S = 15.0


def path_to_volname(path: str | os.PathLike[str]) -> str:
    """Return how StorPool's API calls the volume behind a path.

    :param path: ``/dev/storpool-byid/<global id>`` or ``/dev/storpool/<name>``.
    :raises BrickException: it is neither.
    """
    here = pathlib.PurePosixPath(path)
    if str(here.parent) == str(DEV_STORPOOL_BYID):
        return f"~{here.name}"
    if str(here.parent) == str(DEV_STORPOOL):
        return here.name
    raise exception.BrickException(f"Unexpected device path {str(path)!r}: not one of StorPool's")


@dataclass(frozen=True, slots=True)
class StorPoolVolume:
    """A volume as connection properties name it."""

    id: str
    name: str

    @property
    def lock_names(self) -> list[str]:
        """Names of the locks that calls for the same volume have in common."""
        return [f"storpool-{self.id}"]

    def __str__(self) -> str:
        return f"StorPool volume {self.id or 'without id'}"


class StorPoolConnector(base.BaseLinuxConnector):
    """Attaches StorPool volumes.

    :raises BrickException: this host is not configured for StorPool.
    """

    def __init__(
        self, root_helper: str | None, driver: Any = None, *args: Any, **kwargs: Any
    ) -> None:
        execute: executor.ExecuteFunction | None = kwargs.pop("execute", None)
        super().__init__(root_helper, driver, execute, *args, **kwargs)
        try:
            conf = storpool_utils.get_conf()
            self._api = StorPoolAPI(
                conf["SP_API_HTTP_HOST"],
                conf["SP_API_HTTP_PORT"],
                conf["SP_AUTH_TOKEN"],
                clock=self.host.clock,
            )
        except KeyError as exc:
            raise exception.BrickException(
                f"Could not initialize the StorPool API: {exc.args[0]} is not configured"
            ) from None
        except (exception.BrickException, ValueError, OSError) as exc:
            raise exception.BrickException(f"Could not initialize the StorPool API: {exc}") from exc
        self._ourid = _parse_ourid(conf.get("SP_OURID"))
        self._prefix = conf.get("SP_OPENSTACK_VOLUME_PREFIX") or "os"

    @staticmethod
    def get_connector_properties(
        root_helper: str | None, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Return nothing: StorPool knows its clients."""
        return {}

    # -- attach -------------------------------------------------------------------------------
    @utils.trace
    @utils.connect_volume_prepare_result
    def connect_volume(self, connection_properties: dict[str, Any]) -> dict[str, Any]:
        """Attach a volume.

        :returns: ``{"type": "block", "path": "/dev/storpool-byid/…"}``.
        :raises VolumeDeviceNotFound: its device did not appear; it is detached again.
        :raises BrickException: the properties cannot be used, or StorPool refused.
        """
        _get(connection_properties, "client_id")
        volume = self._volume(_get(connection_properties, "volume"))
        mode = _get(connection_properties, "access_mode")
        if mode not in _MODES:
            raise exception.InvalidParameterValue(
                err=f"access_mode is {mode!r} in the connection properties; expected is rw or ro."
            )
        with (
            self._public_call(f"Attach of {volume}") as call,
            self._volume_lock(call, volume),
        ):
            path = DEV_STORPOOL_BYID / self._global_id(call, volume.name)
            was_here = self._is_here(path)
            try:
                self._reassign(call, volume.name, {mode: [self._ourid]})
            except exception.BrickException:
                if not was_here:
                    self._undo(call, volume)
                raise
            with call.step("wait for the link", quiet=True):
                # While udev is behind, the link may be an old one, and lead to another's device.
                call.wait_until(
                    lambda: not udev.has_events(self.host) and self._is_here(path),
                    what=f"link {path}",
                    limit_s=_LINK_S,
                )
                here = self._is_here(path)
            if not here:
                # Whoever writes to a path that is not there writes a file below /dev.
                LOG.warning("StorPool has attached %s, and %s is not there", volume, path)
                if not self.has_own_execute:  # it may lead to where other files are
                    self._undo(call, volume)
                    raise exception.VolumeDeviceNotFound(device=str(path))
        return {"type": "block", "path": str(path)}

    def _global_id(self, call: Call, name: str) -> str:
        info = self._ask(lambda api: api.volume_get_info(name), call)
        number = info.get("globalId") if isinstance(info, dict) else None
        if not isinstance(number, str) or not number or "/" in number:
            raise exception.BrickException(
                f"Communication with the StorPool API failed: it tells no globalId of {name}"
            )
        return number

    def _undo(self, call: Call, volume: StorPoolVolume) -> None:
        """Detach what an attach that failed may have attached."""
        later = call.later(f"{call.operation}, undone", _UNDO_LIMIT_S)
        try:
            self._reassign(later, volume.name, {"detach": [self._ourid], "force": False})
        except exception.BrickException as exc:
            LOG.warning("Leftovers may remain: %s", exc)

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
        """Detach a volume. When it returns without ``force``, its data is on the storage and it is
        gone.

        :raises DeviceInUse: somebody uses it (without ``force``); nothing was changed.
        :raises ProcessExecutionError: its data could not be written out (without ``force``).
        :raises VolumePathNotRemoved: it is detached, and its device still there.
        :raises BrickException: the properties cannot be used, or StorPool refused.
        :raises ExceptionChainer: what failed (with ``force``, without ``ignore_errors``).
        """
        _get(connection_properties, "client_id")
        used = _path_of(connection_properties, device_info)
        name = path_to_volname(used)
        volume = self._volume(str(connection_properties.get("volume") or name))
        with self._detaching(volume, force, ignore_errors) as (call, errors):
            limit_s = cfg.CONF.os_brick.flush_timeout
            device.settle(self.host, call, used, force=force, errors=errors, limit_s=limit_s)
            self._detach(call, name, used, force)
            with call.step("wait until the device is gone", quiet=True):
                gone = call.wait_until(
                    lambda: not self._is_here(used), what=f"end of {used}", limit_s=_GONE_S
                )
            if not gone:
                raise exception.VolumePathNotRemoved(volume_path=used)

    def _detach(self, call: Call, name: str, used: str, force: bool) -> None:
        """Have StorPool detach a volume; who has it open gets some moments, and with force no
        more."""
        for tried in range(_BUSY_TRIES + 1):
            try:
                self._reassign(call, name, {"detach": [self._ourid], "force": False})
                return
            except exception.BrickException as exc:
                error = exc.__cause__
                if _is_unknown(error) and not self._is_here(used):
                    LOG.warning("StorPool knows no volume %s any more", name)
                    return
                if not _is_busy(error):
                    raise
                if tried == _BUSY_TRIES and not force:
                    raise exception.DeviceInUse(device=used, users=str(error)) from error
            if tried < _BUSY_TRIES:
                call.pause(_BUSY_PAUSE_S)
        self._reassign(call, name, {"detach": [self._ourid], "force": True})

    # -- size, paths --------------------------------------------------------------------------
    @utils.trace
    @utils.connect_volume_undo_prepare_result
    def extend_volume(self, connection_properties: dict[str, Any]) -> int:
        """Wait for a volume's new size and return it in bytes.

        :raises BrickException: the device has not taken it, or is not here.
        """
        volume = self._volume(_get(connection_properties, "volume"))
        with (
            self._public_call(f"Extend of {volume}") as call,
            self._volume_lock(call, volume),
        ):
            told = self._ask(lambda api: api.volume(volume.name), call)
            try:
                wanted = int(told[0]["size"])
            except (LookupError, TypeError, ValueError):
                raise exception.BrickException(
                    f"Communication with the StorPool API failed: it tells no size of {volume}"
                ) from None
            path = str(DEV_STORPOOL / volume.name)
            if not self._is_here(path):
                path = _path_of(connection_properties, None, default=path)
            with call.step("wait for the new size"):
                call.wait_until(
                    lambda: device.read_size(self.host, path) == wanted,
                    what=f"new size of {path}",
                    limit_s=_SIZE_S,
                )
            size = device.read_size(self.host, path)
        if size is None:
            raise exception.BrickException(f"{volume} cannot be extended: {path} is not here")
        if size != wanted:
            raise exception.BrickException(
                f"{volume} cannot be extended: {path} has {size} bytes, StorPool says {wanted}"
            )
        return size

    def get_search_path(self) -> str:
        """Return the directory of the volumes' links by name."""
        return str(DEV_STORPOOL)

    @utils.trace
    @utils.connect_volume_undo_prepare_result
    def get_volume_paths(self, connection_properties: dict[str, Any]) -> list[str]:
        """Return the path by which a volume is here: the one its user has, else that by name.

        :raises BrickException: ``device_path`` is another volume's.
        """
        named = str(DEV_STORPOOL / self._volume(_get(connection_properties, "volume")).name)
        used = _path_of(connection_properties, None, default=named)
        if used == named:
            return [named] if self._is_here(named) else []
        same = nodes.real_node(self.host, named) in (None, nodes.real_node(self.host, used))
        if path_to_volname(used)[0] != "~" or not same:
            raise exception.BrickException(
                f"device_path {used} is not {named}, the volume of the connection properties"
            )
        return [used] if self._is_here(used) else []

    def get_all_available_volumes(
        self, connection_properties: dict[str, Any] | None = None
    ) -> list[str]:
        """Return the ids of all volumes that are here."""
        prefix = storpool_utils.os_to_sp_volume_name(self._prefix, "")
        names = self.host.dev.names(DEV_STORPOOL.name)
        return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]

    # -- StorPool -----------------------------------------------------------------------------
    def _volume_lock(
        self, call: Call, volume: base.Volume
    ) -> contextlib.AbstractContextManager[None]:
        # Its services could always do without a directory for file locks.
        return locking.held_if_possible(self.host.locks, call, volume.lock_names)

    def _volume(self, number: str) -> StorPoolVolume:
        return StorPoolVolume(number, storpool_utils.os_to_sp_volume_name(self._prefix, number))

    def _is_here(self, path: str | os.PathLike[str]) -> bool:
        return nodes.real_node(self.host, os.fspath(path)) is not None

    def _reassign(self, call: Call, name: str, change: dict[str, Any]) -> None:
        request = {"reassign": [{"volume": name, **change}]}
        self._ask(lambda api: api.volumes_reassign_wait(request), call)

    def _ask(self, question: Any, call: Call) -> Any:
        """Ask StorPool.

        :raises BrickException: it refused, or did not answer; its ``__cause__`` is the error.
        """
        try:
            return question(self._api.within(call))
        except (StorPoolAPIError, *http.FAILURES) as exc:
            raise exception.BrickException(
                f"Communication with the StorPool API failed: {exc}"
            ) from exc


def _parse_ourid(text: str | None) -> int:
    if not text:
        raise exception.BrickException(
            "SP_OURID, this host's number in StorPool, is not configured on this host"
        )
    if not text.isdecimal():
        raise exception.BrickException(f"SP_OURID is {text!r} on this host; expected is a number")
    return int(text)


def _get(properties: Mapping[str, Any], key: str) -> str:
    value = properties.get(key)
    if value in (None, ""):
        raise exception.BrickException(
            f"Invalid StorPool connection data, no {key} specified in the connection properties"
        )
    return str(value)


def _path_of(properties: Mapping[str, Any], device_info: Any, default: str = "") -> str:
    """Return the path that the volume's user has.

    :raises BrickException: none is known, and there is no default.
    """
    path = utils.convert_str(properties.get("device_path"))
    path = path or utils.get_dev_path({}, device_info) or default
    if not isinstance(path, str) or not path:
        raise exception.BrickException(
            "Invalid StorPool connection data: no device_path in the connection properties and no "
            "path in the device's"
        )
    return path


def _is_busy(error: BaseException | None) -> bool:
    if not isinstance(error, StorPoolAPIError):
        return False
    return error.name == "busy" or (error.name == "invalidParam" and "is open at" in error.desc)


def _is_unknown(error: BaseException | None) -> bool:
    return isinstance(error, StorPoolAPIError) and error.name == "objectDoesNotExist"
