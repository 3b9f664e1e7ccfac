# SPDX-License-Identifier: Apache-2.0
"""Fibre Channel and FCoE: connection properties in, device out."""

from __future__ import annotations

from typing import Any

from oslo_config import cfg
from oslo_log import log as logging

from os_brick import exception, executor, initiator, utils
from os_brick.initiator.connectors import base
from os_brick.initiator.linux import (
    fc,
    fc_attach,
    fc_detach,
    fc_links,
    fc_scan,
    multipath,
    scsi_attach,
)
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.fc import Hba
from os_brick.initiator.linux.fc_volume import FcTarget, FcVolume
from os_brick.initiator.linux.host import Host

LOG = logging.getLogger(__name__)

_QUESTION_LIMIT_S = 60.0


class FibreChannelConnector(base.BaseLinuxConnector):
    """Attaches Fibre Channel volumes by all connected ports, with or without multipath.

    :param use_multipath: return a multipath map over the paths; otherwise the first that can be
        read.
    :param device_scan_attempts: how often to scan for a LUN that does not appear.
    """

    _device_may_stay = False

    def __init__(
        self,
        root_helper: str | None,
        driver: Any = None,
        execute: executor.ExecuteFunction | None = None,
        use_multipath: bool = False,
        device_scan_attempts: int = initiator.DEVICE_SCAN_ATTEMPTS_DEFAULT,
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

    def set_execute(self, execute: executor.ExecuteFunction | None) -> None:
        """Run all further programs, and make all changes of the host, by this function."""
        super().set_execute(execute)

    # -- what differs between platforms -------------------------------------------------------
    def _parse(self, connection_properties: dict[str, Any]) -> FcVolume:
        return FcVolume.parse(connection_properties)

    def _scanner(self, host: Host) -> fc_scan.Scanner:
        return fc_scan.HostScanner(host)

    def _link_names(self, hba: Hba, target: FcTarget) -> list[str]:
        return fc_links.pci_names(hba, target)

    # -- this host ----------------------------------------------------------------------------
    @staticmethod
    def get_connector_properties(
        root_helper: str | None, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Return the names of this host's connected ports as ``wwpns`` and ``wwnns``; nothing if
        there are none."""
        connector = FibreChannelConnector(
            root_helper, execute=kwargs.get("execute"), host=kwargs.get("host")
        )
        hbas = fc.read_hbas(connector.host.sysfs, strict=False)
        return fc.names_of(hbas)

    def supports_multipath(self) -> bool:
        """Tell whether multipathd is running."""
        call = Call("is multipathd running", self.host.clock, _QUESTION_LIMIT_S)
        return multipath.daemon_answers(self.host, call)

    def _check_hbas(self) -> None:
        if not fc.has_hbas(self.host.sysfs):
            LOG.warning("We are unable to locate any Fibre Channel devices.")
            raise exception.NoFibreChannelHostsFound()

    # -- attach -------------------------------------------------------------------------------
    @utils.trace
    @utils.connect_volume_prepare_result
    def connect_volume(self, connection_properties: dict[str, Any]) -> dict[str, Any]:
        """Attach a volume.

        :returns: ``{"type": "block", "path": link below /dev, "scsi_wwn": identity or ""}`` and,
            for a multipath map, ``"multipath_id": identity``.
        :raises InvalidParameterValue: the properties cannot be used; nothing was changed.
        :raises VolumePathsNotFound: they name no ports or no LUNs, or their numbers do not agree.
        :raises NoFibreChannelHostsFound: this host has no Fibre Channel.
        :raises NoFibreChannelVolumeDeviceFound: no path led to a device; the host is as it was
            before.
        :raises WrongVolume: the paths lead to different volumes; the host is as it was before.
        :raises DeadlineExceeded: option ``call_timeout``.
        """
        volume = self._parse(connection_properties)
        with self._public_call(f"Attach of {volume}") as call:
            if self.use_multipath and volume.enforce_multipath:
                self.check_multipath(connection_properties)
            self._check_hbas()
            attempt: fc_attach.Attempt | None = None
            try:
                with self.host.locks.held(call, volume.lock_names):
                    attempt = self._attempt(call, volume)
                    multiple = self.use_multipath
                    attached = attempt.multipath() if multiple else attempt.single_path()
            finally:
                if attempt is not None:
                    attempt.close()
        result = {"type": "block", "scsi_wwn": attached.wwid, "path": attached.path}
        if attached.map is not None:
            result["multipath_id"] = attached.map.wwid
        return result

    def _attempt(self, call: Call, volume: FcVolume) -> fc_attach.Attempt:
        options = cfg.CONF.os_brick
        return fc_attach.Attempt(
            self.host,
            call,
            volume,
            self._scanner(self.host),
            self._link_names,
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

        :param device_info: what :meth:`connect_volume` returned, the properties again, or nothing.
        :raises DeviceInUse: somebody uses it (without ``force``); nothing was changed.
        :raises ProcessExecutionError: its data could not be written out (without ``force``).
        :raises WrongVolume: at its address are different volumes; nothing was changed.
        :raises ExceptionChainer: what failed (with ``force``, without ``ignore_errors``).
        :raises OSError: the host could not be looked at.
        """
        volume = self._parse(connection_properties)
        path_used = utils.get_dev_path(connection_properties, device_info)
        with self._detaching(volume, force, ignore_errors) as (call, errors):
            presence = fc_detach.find(
                self.host,
                call,
                volume,
                self._link_names,
                base.known_wwid(device_info),
                path_used,
            )
            self._detach(call, presence, path_used, force, errors)
            if (presence.disks or presence.maps) and presence.wwid:
                # Without an identity it may be another volume that the array shows there now.
                returned = fc_detach.find_returned(
                    self.host, call, volume, self._link_names, presence
                )
                if returned is not None:
                    self._detach(call, returned, None, force, errors)

    def _detach(
        self,
        call: Call,
        presence: fc_detach.Presence,
        path_used: str | None,
        force: bool,
        errors: exception.ExceptionChainer,
    ) -> None:
        fc_detach.detach(
            self.host,
            call,
            presence,
            path_used=path_used,
            force=force,
            errors=errors,
            flush_limit_s=cfg.CONF.os_brick.flush_timeout,
        )

    # -- size, paths --------------------------------------------------------------------------
    @utils.trace
    @utils.connect_volume_undo_prepare_result
    def extend_volume(self, connection_properties: dict[str, Any]) -> int | None:
        """Take notice of a volume's new size on all its paths and its map, and return it in bytes.

        :raises VolumePathsNotFound: it is not here.
        """
        volume = self._parse(connection_properties)
        with (
            self._public_call(f"Extend of {volume}") as call,
            self.host.locks.held(call, volume.lock_names),
        ):
            presence = fc_detach.find(self.host, call, volume, self._link_names)
            return self._extend(call, connection_properties, presence.disks, presence.maps)

    def get_search_path(self) -> str:
        """Return the directory of udev's links by path."""
        return fc_links.BY_PATH

    @utils.trace
    @utils.connect_volume_undo_prepare_result
    def get_volume_paths(self, connection_properties: dict[str, Any]) -> list[str]:
        """Return the existing by-path links of a volume.

        :raises VolumePathsNotFound: the properties name no ports or no LUNs.
        """
        volume = self._parse(connection_properties)
        hbas = fc.read_hbas(self.host.sysfs, strict=False)
        names = fc_links.names(self._link_names, hbas, volume.targets)
        return fc_links.existing(self.host, names)
