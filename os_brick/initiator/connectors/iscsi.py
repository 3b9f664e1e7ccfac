# SPDX-License-Identifier: Apache-2.0
"""iSCSI and iSER: connection properties in, device out."""

from __future__ import annotations

import dataclasses
import functools
import glob
import os
from typing import Any, ClassVar

from oslo_config import cfg
from oslo_log import log as logging

from os_brick import executor, initiator, utils
from os_brick.initiator.connectors import base, base_iscsi
from os_brick.initiator.linux import (
    iscsi,
    iscsi_attach,
    iscsi_detach,
    iscsi_discovery,
    iscsi_presence,
    iscsi_sessions,
    iscsi_volume,
    multipath,
    scsi,
    scsi_attach,
)
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.iscsi import IscsiPath
from os_brick.initiator.linux.iscsi_volume import IscsiVolume

LOG = logging.getLogger(__name__)

_IFACE_LIMIT_S = 60.0
_INITIATOR_NAME_FILE = "/etc/iscsi/initiatorname.iscsi"
_BY_PATH = "/dev/disk/by-path"


class ConnData(dict[str, Any]):
    """Facts of one attach. Kept for connectors outside this library; not used here."""


class ISCSIConnector(base.BaseLinuxConnector, base_iscsi.BaseISCSIConnector):
    """Attaches iSCSI volumes, by one path or by multipath; protocol ISER is this with
    ``transport="iser"``.

    :param use_multipath: attach by all portals and return a multipath map.
    :param device_scan_attempts: how often to scan for a LUN that does not appear.
    :param transport: ``default``, ``iser``, or the name of an open-iscsi interface.
    """

    _device_may_stay = False
    supported_transports: ClassVar[list[str]] = [
        "be2iscsi",
        "bnx2i",
        "cxgb3i",
        "default",
        "cxgb4i",
        "qla4xxx",
        "ocs",
        "iser",
        "tcp",
    ]
    #: Kept for connectors outside this library: sessions are read from sysfs, of every transport.
    VALID_SESSIONS_PREFIX = ("tcp:", "iser:")

    def __init__(
        self,
        root_helper: str | None,
        driver: Any = None,
        execute: executor.ExecuteFunction | None = None,
        use_multipath: bool = False,
        device_scan_attempts: int = initiator.DEVICE_SCAN_ATTEMPTS_DEFAULT,
        transport: str = "default",
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            root_helper,
            driver,
            execute,
            *args,
            use_multipath=use_multipath,
            device_scan_attempts=device_scan_attempts,
            **kwargs,
        )
        # Whether a portal can be asked by TCP from here: not if a card or RDMA does the transport.
        self._plain_tcp = transport == "default"
        self.transport = self._validate_transport(transport or "default")

    def _validate_transport(self, transport: str) -> str:
        if transport in ("default", "iser"):
            return transport
        call = Call("check of the iSCSI interface", self.host.clock, _IFACE_LIMIT_S)
        result = self.host.programs.run(
            call, "iscsiadm", "-m", "iface", "-I", transport, limit_s=_IFACE_LIMIT_S
        )
        if result.code in (0, 2, 6):
            for line in result.out.splitlines():
                name, equals, value = (part.strip() for part in line.partition("="))
                if equals and name == "iface.transport_name" and value in self.supported_transports:
                    self._plain_tcp = value == "tcp"
                    return transport
            LOG.warning("No usable iSCSI interface %s, falling back to default", transport)
        else:
            LOG.warning(
                "iSCSI interface %s could not be looked up (%s), falling back to default",
                transport,
                result.summary,
            )
        self._plain_tcp = True
        return "default"

    # -- this host ----------------------------------------------------------------------------
    @staticmethod
    def get_connector_properties(
        root_helper: str | None, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Return the initiator name of this host as ``initiator``; nothing if it has none."""
        execute = kwargs.get("execute")
        if execute is None:
            name = _remembered_initiator(root_helper)
        else:
            # It may lead into another container, with another file.
            name = ISCSIConnector(root_helper, execute=execute).get_initiator()
        return {"initiator": name} if name else {}

    def get_initiator(self) -> str | None:
        """Return the name of this host's iSCSI initiator; None if it cannot be read."""
        call = Call("read the initiator name", self.host.clock, _IFACE_LIMIT_S)
        result = self.host.programs.run(call, "cat", _INITIATOR_NAME_FILE, limit_s=_IFACE_LIMIT_S)
        if result.code == 0:
            for line in result.out.splitlines():
                if line.startswith("InitiatorName="):
                    name = line.partition("=")[2].strip()
                    if name:
                        return name
        LOG.warning("Could not find the iSCSI Initiator File %s", _INITIATOR_NAME_FILE)
        return None

    def supports_multipath(self) -> bool:
        """Tell whether multipathd is running."""
        call = Call("is multipathd running", self.host.clock, _IFACE_LIMIT_S)
        return multipath.daemon_answers(self.host, call)

    # -- attach -------------------------------------------------------------------------------
    @utils.trace
    @utils.connect_volume_prepare_result
    def connect_volume(self, connection_properties: dict[str, Any]) -> dict[str, Any]:
        """Attach a volume.

        :returns: ``{"type": "block", "path": "/dev/…", "scsi_wwn": identity or ""}`` and, for a
            multipath map, ``"multipath_id": identity``.
        :raises InvalidParameterValue: the properties cannot be used; nothing was changed.
        :raises VolumeDeviceNotFound: no path led to a device; the host is as it was before.
        :raises TargetPortalNotFound: discovery failed, or all portals are names without address.
        :raises DeadlineExceeded: option ``call_timeout``.
        """
        volume = IscsiVolume.parse(connection_properties)
        with self._public_call(f"Attach of {volume}") as call:
            if self.use_multipath and volume.enforce_multipath:
                self.check_multipath(connection_properties)
            with self.host.locks.held(call, volume.lock_names):
                volume = self._with_all_paths(call, volume)
                attempt = iscsi_attach.Attempt(self.host, call, volume, self._settings())
                attached = attempt.multipath() if self.use_multipath else attempt.single_path()
        result = {"type": "block", "scsi_wwn": attached.wwid, "path": attached.path}
        if attached.map is not None:
            result["multipath_id"] = attached.map.wwid
        return result

    def _with_all_paths(self, call: Call, volume: IscsiVolume) -> IscsiVolume:
        paths = iscsi_sessions.resolve_to_attach(self.host, call, volume.paths)
        volume = dataclasses.replace(volume, paths=paths)
        if self.use_multipath and not volume.given:
            found = iscsi_discovery.discover(self.host, call, volume, self._discovery_iface)
            volume = dataclasses.replace(volume, paths=found)
        return volume

    @property
    def _discovery_iface(self) -> str:
        return "iser" if self.transport == "iser" else "default"

    def _settings(self) -> iscsi_attach.Settings:
        options = cfg.CONF.os_brick
        return iscsi_attach.Settings(
            iface=self.transport,
            probe=self._plain_tcp,
            attempts=self.device_scan_attempts,
            readiness=scsi_attach.Readiness(
                options.wait_mpath_device_attempts, options.wait_mpath_device_interval
            ),
        )

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
        :raises ExceptionChainer: what failed (with ``force``, without ``ignore_errors``).
        :raises OSError: the host could not be looked at.
        :raises TargetPortalNotFound: nothing was found, and a portal's name has no address.
        """
        volume = IscsiVolume.parse(connection_properties, to_attach=False)
        path_used = utils.get_dev_path(connection_properties, device_info)
        with self._detaching(volume, force, ignore_errors) as (call, errors):
            resolved = iscsi_sessions.resolve_to_detach(self.host, call, volume.paths)
            presence = iscsi_presence.find(
                self.host,
                call,
                dataclasses.replace(volume, paths=resolved.paths),
                self._discovery_iface,
                base.known_wwid(device_info),
                path_used,
            )
            with errors.context(force, "Looking for %s failed", volume):
                self._check_looked(resolved, presence)
            iscsi_detach.detach(
                self.host,
                call,
                presence,
                path_used=path_used,
                force=force,
                errors=errors,
                flush_limit_s=cfg.CONF.os_brick.flush_timeout,
            )
            iscsi_detach.wait_for_late_paths(self.host, call, resolved.paths)

    @staticmethod
    def _check_looked(resolved: iscsi_sessions.Resolved, presence: iscsi_presence.Presence) -> None:
        """Raise if nothing was found, and it is not known whether that is because there is
        nothing."""
        if presence.trouble is not None:
            raise presence.trouble
        if resolved.trouble is not None and not (presence.disks or presence.maps):
            raise resolved.trouble

    # -- size, paths --------------------------------------------------------------------------
    @utils.trace
    @utils.connect_volume_undo_prepare_result
    def extend_volume(self, connection_properties: dict[str, Any]) -> int | None:
        """Take notice of a volume's new size on all its paths and its map, and return it in bytes.

        :raises VolumePathsNotFound: it is not here.
        :raises TargetPortalNotFound: nothing was found, and a portal's name has no address.
        """
        volume = IscsiVolume.parse(connection_properties, to_attach=False)
        with (
            self._public_call(f"Extend of {volume}") as call,
            self.host.locks.held(call, volume.lock_names),
        ):
            resolved = iscsi_sessions.resolve_to_detach(self.host, call, volume.paths)
            volume = dataclasses.replace(volume, paths=resolved.paths)
            presence = iscsi_presence.find(self.host, call, volume, self._discovery_iface)
            self._check_looked(resolved, presence)
            return self._extend(call, connection_properties, presence.disks, presence.maps)

    def get_search_path(self) -> str:
        """Return the directory of udev's links by path."""
        return _BY_PATH

    @utils.trace
    @utils.connect_volume_undo_prepare_result
    def get_volume_paths(self, connection_properties: dict[str, Any]) -> list[str]:
        """Return the existing by-path links of a volume; without multipath, only those with a
        session."""
        if not iscsi_volume.names_a_target(connection_properties):
            return []
        volume = IscsiVolume.parse(connection_properties, to_attach=False)
        found: list[str] = []
        for path in volume.paths:
            if self.use_multipath or iscsi.find_sessions(self.host.sysfs, path.target):
                found.extend(self._links_of(path))
        return found

    def _links_of(self, path: IscsiPath) -> list[str]:
        lun = scsi.lun_for_by_path(path.lun)
        name = f"ip-{path.target.portal.bare}-iscsi-{path.target.iqn}-lun-{lun}"
        if self.transport == "default":
            return [f"{_BY_PATH}/{name}"] if self.host.dev.exists("disk/by-path", name) else []
        folder = self.host.dev.path("disk/by-path")
        # Cards put their PCI address before the name.
        return [f"{_BY_PATH}/{one}" for one in glob.glob(f"*{glob.escape(name)}", root_dir=folder)]


def _remembered_initiator(root_helper: str | None) -> str | None:
    """Return this host's initiator name; a program reads it anew only when its file is another."""
    try:
        status = os.stat(_INITIATOR_NAME_FILE)
    except OSError:
        return ISCSIConnector(root_helper).get_initiator()
    try:
        return _initiator_in_file(root_helper, (status.st_ino, status.st_mtime_ns, status.st_size))
    except LookupError:
        return None


@functools.lru_cache(maxsize=1)
def _initiator_in_file(root_helper: str | None, stamp: tuple[int, ...]) -> str:
    """Return the initiator name; one that could not be read is not remembered."""
    name = ISCSIConnector(root_helper).get_initiator()
    if not name:
        raise LookupError(_INITIATOR_NAME_FILE)
    return name
