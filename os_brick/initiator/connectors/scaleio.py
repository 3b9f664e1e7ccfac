# SPDX-License-Identifier: Apache-2.0
"""ScaleIO, called VxFlex OS and PowerFlex later: volumes of its own client's driver."""

from __future__ import annotations

import contextlib
import functools
import os
from typing import Any

from oslo_concurrency import processutils
from oslo_config import cfg
from oslo_log import log as logging

from os_brick import exception, executor, initiator, utils
from os_brick.initiator.connectors import base
from os_brick.initiator.linux.call import Call
from os_brick.initiator.vendors import device, scaleio_device
from os_brick.initiator.vendors.scaleio_gateway import Gateway, MappingError
from os_brick.initiator.vendors.scaleio_volume import Access, ScaleIOVolume
from os_brick.privileged import scaleio as priv_scaleio

LOG = logging.getLogger(__name__)

CONNECTOR_CONF_PATH = "/opt/emc/scaleio/openstack/connector.conf"
DEVICE_SCAN_ATTEMPTS_DEFAULT = initiator.DEVICE_SCAN_ATTEMPTS_DEFAULT

_CLIENT_LIMIT_S = 60.0
# What asking the client, or reading the file, may raise.
_CLIENT_FAILURES = (OSError, ValueError, processutils.ProcessExecutionError)
_UNDO_LIMIT_S = 15.0


def ioc(direction: int, _type: str | int, nr: int, size: int) -> int:
    """Return the number of a driver's request, as ``_IOC`` of ``linux/ioctl.h`` codes it.

    :param direction: already at its place, the highest two bits.
    :param _type: a character or its number.
    """
    letter = ord(_type) if isinstance(_type, str) else _type
    return direction | (size & 0x1FFF) << 16 | letter << 8 | nr


def io(_type: str | int, nr: int) -> int:
    """Return the number of a driver's request without data, as ``_IO`` codes it."""
    return ioc(0, _type, nr, 0)


class ScaleIOConnector(base.BaseLinuxConnector):
    """Attaches ScaleIO (PowerFlex) volumes.

    With ``sdc_guid`` in the connection properties storage maps and unmaps the volume; the connector
    finds its device, and writes its data out at the detach. Without (attachments of older drivers)
    the connector has the gateway map and unmap it.

    :param device_scan_attempts: accepted; how long a device is waited for does not depend on it.
    """

    OK_STATUS_CODE = 200
    VOLUME_NOT_MAPPED_ERROR = 84
    VOLUME_NOT_MAPPED_ERROR_v4 = 4039
    VOLUME_ALREADY_MAPPED_ERROR = 81
    VOLUME_ALREADY_MAPPED_ERROR_v4 = 4037
    GET_GUID_OP_CODE = io("a", 14)
    RESCAN_VOLS_OP_CODE = io("a", 10)
    #: The client's own tool: used where the caller supplied the function that runs programs.
    GET_GUID_CMD = ("/opt/emc/scaleio/sdc/bin/drv_cfg", "--query_guid")
    RESCAN_VOLS_CMD = ("/opt/emc/scaleio/sdc/bin/drv_cfg", "--rescan")

    def __init__(
        self,
        root_helper: str | None,
        driver: Any = None,
        device_scan_attempts: int = DEVICE_SCAN_ATTEMPTS_DEFAULT,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        execute: executor.ExecuteFunction | None = kwargs.pop("execute", None)
        super().__init__(
            root_helper,
            driver,
            execute,
            *args,
            device_scan_attempts=device_scan_attempts,
            **kwargs,
        )

    # -- this host ----------------------------------------------------------------------------
    @staticmethod
    def get_connector_properties(
        root_helper: str | None, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Return the GUID of this host's client as ``sdc_guid``; nothing where there is none."""
        execute = kwargs.get("execute")
        try:
            if execute is not None:
                # It may lead into another container, with another client.
                connector = ScaleIOConnector(root_helper, execute=execute)
                with connector._public_call("Query of the ScaleIO client") as call:
                    return {"sdc_guid": connector._read_guid(call)}
            status = os.stat(priv_scaleio.SCINI_DEVICE_PATH)
            stamp = (status.st_rdev, status.st_ino, status.st_ctime_ns)
            return {"sdc_guid": _guid_of_client(stamp)}
        except (FileNotFoundError, exception.BrickException, *_CLIENT_FAILURES) as exc:
            LOG.debug("This host has no ScaleIO client that answers: %s", exc)
            return {}

    def _guid(self, call: Call) -> str:
        try:
            with call.step("query the client's GUID"):
                return self._read_guid(call)
        except _CLIENT_FAILURES as exc:
            raise exception.BrickException(f"Failed to query sdc guid: {exc}") from exc

    def _read_guid(self, call: Call) -> str:
        if not self.has_own_execute:
            return str(priv_scaleio.get_guid(self.GET_GUID_OP_CODE))
        result = self.host.programs.run(call, *self.GET_GUID_CMD, limit_s=_CLIENT_LIMIT_S)
        guid = result.check().out.strip()
        if not guid:
            raise ValueError("the client's tool printed nothing")
        return guid

    def _rescan(self, call: Call) -> None:
        with call.step("rescan of the client"):
            if self.has_own_execute:
                words = self.RESCAN_VOLS_CMD
                self.host.programs.run(call, *words, limit_s=_CLIENT_LIMIT_S).check()
            else:
                priv_scaleio.rescan_vols(self.RESCAN_VOLS_OP_CODE)

    # -- the gateway --------------------------------------------------------------------------
    def _gateway(self, call: Call, access: Access) -> Gateway:
        if access.password is not None:
            return Gateway(call, access, access.username, access.password)
        username, password = self._credentials(call, access)
        # The account may have been renamed after the attach (bug 2142083).
        return Gateway(call, access, username or access.username, password)

    def _credentials(self, call: Call, access: Access) -> tuple[str | None, str]:
        try:
            with call.step(f"read section [{access.config_group}] of {CONNECTOR_CONF_PATH}"):
                if self.has_own_execute:
                    text = self.host.programs.run(
                        call, "cat", CONNECTOR_CONF_PATH, limit_s=_CLIENT_LIMIT_S
                    )
                    return priv_scaleio.parse_credentials(
                        text.check().out, access.config_group, access.failed_over
                    )
                found = priv_scaleio.get_connector_username_password(
                    CONNECTOR_CONF_PATH, access.config_group, access.failed_over
                )
        except (exception.BrickException, *_CLIENT_FAILURES) as exc:
            raise exception.BrickException(
                f"Error getting ScaleIO connector password from configuration file: {exc}"
            ) from exc
        username, password = found
        # Of a class that hides them from the daemon's log; equal text is all that is needed here.
        return (None if username is None else str(username)), str(password)

    # -- attach -------------------------------------------------------------------------------
    @utils.trace
    @utils.connect_volume_prepare_result
    def connect_volume(self, connection_properties: dict[str, Any]) -> dict[str, Any]:
        """Attach a volume.

        :returns: ``{"type": "block", "path": "/dev/disk/by-id/emc-vol-…"}``.
        :raises InvalidParameterValue: the properties cannot be used; nothing was changed.
        :raises VolumeDeviceNotFound: its device did not appear; what this call mapped is unmapped.
        :raises BrickException: the gateway or the client refused.
        """
        volume = ScaleIOVolume.parse(connection_properties)
        with (
            self._public_call(f"Attach of {volume}") as call,
            self.host.locks.held(call, volume.lock_names),
        ):
            if volume.access is None:
                path = scaleio_device.wait_for(self.host, call, volume.id or "")
            else:
                path = self._map(call, volume, volume.access)
        return {"type": "block", "path": path}

    def _map(self, call: Call, volume: ScaleIOVolume, access: Access) -> str:
        guid = self._guid(call)
        gateway = self._gateway(call, access)
        volume_id = volume.id or gateway.find_volume_id(volume.name)
        was_here = scaleio_device.find(self.host, volume_id) is not None
        mapped = False
        try:
            mapped = gateway.map(volume_id, volume.name, guid)
            path = scaleio_device.wait_for(self.host, call, volume_id)
        except Exception as exc:
            if not was_here and (mapped or (isinstance(exc, MappingError) and exc.unknown)):
                self._undo(call, access, volume, volume_id, guid)
            raise
        if access.limits:
            try:
                gateway.set_limits(volume_id, volume.name, guid, access.limits)
            except exception.BrickException as exc:
                LOG.error("%s", exc)
        return path

    def _undo(
        self, call: Call, access: Access, volume: ScaleIOVolume, volume_id: str, guid: str
    ) -> None:
        """End a mapping that this attach made; its own failure is what gets raised."""
        later = call.later(f"{call.operation}, undone", _UNDO_LIMIT_S)
        try:
            self._gateway(later, access).unmap(volume_id, volume.name, guid)
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
        """Detach a volume. When it returns without ``force``, its data is on the storage.

        Where storage maps it, its device stays until storage unmaps it.

        :raises DeviceInUse: somebody uses it (without ``force``); nothing was changed.
        :raises ProcessExecutionError: its data could not be written out (without ``force``).
        :raises VolumePathNotRemoved: it is unmapped, and its device still there.
        :raises BrickException: the gateway or the client refused.
        :raises ExceptionChainer: what failed (with ``force``, without ``ignore_errors``).
        """
        volume = ScaleIOVolume.parse(connection_properties)
        used = utils.get_dev_path(connection_properties, None)
        with self._detaching(volume, force, ignore_errors) as (call, errors):
            gateway = self._gateway(call, volume.access) if volume.access else None
            volume_id = volume.id
            if volume_id is None and gateway is not None:
                volume_id = gateway.find_volume_id(volume.name)
            path = scaleio_device.find(self.host, volume_id or "")
            paths = scaleio_device.same(self.host, path, used)
            limit_s = cfg.CONF.os_brick.flush_timeout
            device.settle(self.host, call, path, force=force, errors=errors, limit_s=limit_s)
            if gateway is None:
                return
            gateway.unmap(volume_id or "", volume.name, self._guid(call))
            scaleio_device.wait_until_gone(self.host, call, paths)

    # -- size, paths --------------------------------------------------------------------------
    @utils.trace
    @utils.connect_volume_undo_prepare_result
    def extend_volume(self, connection_properties: dict[str, Any]) -> int:
        """Take notice of a volume's new size and return it in bytes.

        :raises BrickException: it is not here, or the client refused; with a gateway to ask, also
            if the device has not taken the size that the gateway tells.
        """
        volume = ScaleIOVolume.parse(connection_properties)
        with (
            self._public_call(f"Extend of {volume}") as call,
            self.host.locks.held(call, volume.lock_names),
        ):
            wanted: int | None = None
            volume_id = volume.id
            if volume.access is not None:
                gateway = self._gateway(call, volume.access)
                volume_id = volume_id or gateway.find_volume_id(volume.name)
                with contextlib.suppress(exception.BrickException):  # then the device is asked
                    wanted = gateway.read_size(volume_id)
            path = scaleio_device.find(self.host, volume_id or "")
            if path is None:
                raise exception.BrickException(
                    f"Error extending ScaleIO volume {volume_id}: it has no device here"
                )
            try:
                return scaleio_device.extend(self.host, call, path, wanted, self._rescan)
            except _CLIENT_FAILURES as exc:
                raise exception.BrickException(f"Error extending ScaleIO volume: {exc}") from exc

    def get_search_path(self) -> str:
        """Return the directory of the volumes' links."""
        return scaleio_device.SEARCH_PATH

    def get_config(self, connection_properties: dict[str, Any]) -> dict[str, Any]:
        """Check connection properties, and return what is known of the volume here.

        For callers of old; nothing is kept on the connector.

        :returns: ``{"type": "block", "path": its link or None}``.
        :raises InvalidParameterValue: they cannot be used.
        """
        volume = ScaleIOVolume.parse(connection_properties)
        return {"type": "block", "path": scaleio_device.find(self.host, volume.id or "")}

    @utils.trace
    @utils.connect_volume_undo_prepare_result
    def get_volume_paths(self, connection_properties: dict[str, Any]) -> list[str]:
        """Return the link to a volume's device; none if it is not here.

        :raises BrickException: its id is not known, and the gateway did not tell it.
        """
        volume = ScaleIOVolume.parse(connection_properties)
        with self._public_call(f"Look for {volume}") as call:
            volume_id = volume.id
            if volume_id is None and volume.access is not None:
                volume_id = self._gateway(call, volume.access).find_volume_id(volume.name)
            path = scaleio_device.find(self.host, volume_id or "")
        return [] if path is None else [path]


@functools.lru_cache(maxsize=1)
def _guid_of_client(stamp: tuple[int, ...]) -> str:
    """Return the client's GUID; asked again only when its control device is another."""
    return str(priv_scaleio.get_guid(ScaleIOConnector.GET_GUID_OP_CODE))
