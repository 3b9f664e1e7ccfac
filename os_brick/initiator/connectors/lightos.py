# SPDX-License-Identifier: Apache-2.0
"""LightOS (Lightbits): volumes over NVMe/TCP, connected by its own discovery client."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping, MutableMapping
from typing import Any, NoReturn

from oslo_config import cfg
from oslo_log import log as logging

from os_brick import exception, executor, opts, utils
from os_brick.initiator.connectors import base
from os_brick.initiator.linux import nvme_identity, nvme_namespaces, nvme_resize
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.nvme_changes import FAILURES
from os_brick.initiator.vendors import device, lightos_client, lightos_device
from os_brick.initiator.vendors.lightos_volume import LightOSVolume, parse_uuid

LOG = logging.getLogger(__name__)

DEVICE_SCAN_ATTEMPTS_DEFAULT = 5

#: Names of hidden paths and controllers' namespaces, of which none is to be used.
nvmec_pattern = ".*nvme[0-9]+[cp][0-9]+.*"
nvmec_match = re.compile(nvmec_pattern)

lightos_opts = [
    cfg.HostAddressOpt(
        "lightos_discovery_client_address",
        default="localhost",
        help="Address at which LightOS's discovery client of this host answers.",
    ),
    cfg.PortOpt(
        "lightos_discovery_client_port",
        default=6060,
        help="Port at which LightOS's discovery client of this host answers.",
    ),
    cfg.StrOpt(
        "lightos_discovery_client_dir_path",
        default="/etc/discovery-client/discovery.d/",
        help="Directory of the files that tell LightOS's discovery client what to connect.",
    ),
]
cfg.CONF.register_opts(lightos_opts, group=opts.GROUP)

_PROPERTIES_LIMIT_S = 20.0
_UNDO_LIMIT_S = 30.0
# Of the monitor: the discovery client may still be starting when a service does.
_FIRST_PAUSE_S = 5.0
_PAUSE_S = 1.0


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Options for sample configuration files (entry point ``oslo.config.opts``).

    :returns: ``[("os_brick", [option, ...])]``; the options are copies.
    """
    return [(opts.GROUP, copy.deepcopy(lightos_opts))]


class LightOSConnector(base.BaseLinuxConnector):
    """Attaches LightOS volumes.

    :param device_scan_attempts: accepted; how long a device is waited for does not depend on it.
    :param message_queue: gets ``("add", properties)`` after each attach and ``("delete",
        properties)`` with each detach, for :meth:`lightos_monitor` in another process.
    """

    WAIT_DEVICE_TIMEOUT = 60

    def __init__(
        self,
        root_helper: str | None,
        driver: Any = None,
        execute: executor.ExecuteFunction | None = None,
        device_scan_attempts: int = DEVICE_SCAN_ATTEMPTS_DEFAULT,
        message_queue: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            root_helper,
            driver,
            execute,
            *args,
            device_scan_attempts=device_scan_attempts,
            **kwargs,
        )
        self.message_queue = message_queue

    # -- this host ----------------------------------------------------------------------------
    @staticmethod
    def get_ip_addresses() -> list[str]:
        """Return the addresses of all interfaces but ``lo``; IPv6 ones, without their scope, where
        the host uses IPv6."""
        import socket

        import psutil
        from oslo_utils import netutils

        families = [socket.AF_INET] + [socket.AF_INET6] * netutils.is_ipv6_enabled()
        return [
            one.address.partition("%")[0]
            for name, addresses in psutil.net_if_addrs().items()
            if name != "lo"
            for one in addresses
            if one.family in families
        ]

    @staticmethod
    def get_connector_properties(
        root_helper: str | None, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Return ``nqn``, ``found_dsc`` (``"found"`` or empty) and ``host_ips``; nothing on a host
        that has no NVMe host name and no discovery client's directory."""
        connector = LightOSConnector(root_helper, execute=kwargs.get("execute"))
        return connector.read_host_properties()

    def read_host_properties(self) -> dict[str, Any]:
        """Return what :meth:`get_connector_properties` does, for the host of this connector."""
        call = Call("LightOS properties of this host", self.host.clock, _PROPERTIES_LIMIT_S)
        nqn = self._host_nqn(call)
        if not nqn:
            return {}
        return {
            "nqn": nqn,
            "found_dsc": self.find_dsc(),
            "host_ips": self.get_ip_addresses(),
        }

    def _host_nqn(self, call: Call) -> str:
        """Return this host's NVMe name; made and stored only where a discovery client or nvme-cli
        is."""
        nqn = self.host.nvme.read_identity(call).nqn
        if nqn:
            return nqn
        # The NVMe connector makes it where nvme-cli is, and may be at it at this very moment: what
        # this host tells must not depend on who is first.
        folder = cfg.CONF.os_brick.lightos_discovery_client_dir_path
        if os.path.isdir(folder) or nvme_identity.find_cli(self.host, call, in_path=self.runs_here):
            return nvme_identity.settle(self.host, call).nqn or ""
        return ""

    def find_dsc(self) -> str:
        """Return ``"found"`` if the discovery client answers, else an empty text."""
        options = cfg.CONF.os_brick
        address = options.lightos_discovery_client_address
        if lightos_client.answers(address, options.lightos_discovery_client_port):
            return "found"
        LOG.debug("LightOS: did not find a discovery client on this host")
        return ""

    # -- the discovery client -----------------------------------------------------------------
    @property
    def _files(self) -> lightos_client.Files:
        directory = cfg.CONF.os_brick.lightos_discovery_client_dir_path
        return lightos_client.Files(self.host, directory, foreign=self.has_own_execute)

    def dsc_file_name(self, uuid: str) -> str:
        """Return the path of a volume's file for the discovery client."""
        return self._files.path(parse_uuid(uuid))

    def dsc_need_connect(self, connection_info: Mapping[str, Any]) -> bool:
        """Tell whether the discovery client has still to be told of a volume."""
        return not self._files.has(parse_uuid(connection_info.get("uuid")))

    def dsc_connect_volume(self, connection_info: Mapping[str, Any]) -> None:
        """Tell the discovery client of a volume, if it has not been told."""
        volume = LightOSVolume.parse(connection_info)
        with self._public_call(f"Connection of {volume}") as call:
            self._tell(call, volume)

    def dsc_disconnect_volume(self, connection_info: Mapping[str, Any]) -> None:
        """Have the discovery client forget a volume."""
        uuid = parse_uuid(connection_info.get("uuid"))
        with self._public_call(f"Disconnection of LightOS volume {uuid}") as call:
            self._files.delete(call, uuid)

    def _tell(self, call: Call, volume: LightOSVolume) -> bool:
        """Tell the discovery client of a volume; False if it had been told."""
        if self._files.has(volume.uuid):
            return False
        nqn = nvme_identity.settle(self.host, call).nqn
        if not nqn:
            raise exception.BrickException("This host has no NVMe host name, and none can be made")
        self._files.write(call, volume.uuid, volume.text(nqn))
        return True

    # -- attach -------------------------------------------------------------------------------
    @utils.trace
    @utils.connect_volume_prepare_result
    def connect_volume(self, connection_properties: dict[str, Any]) -> dict[str, Any]:
        """Attach a volume.

        :returns: ``{"type": "block", "path": "/dev/nvme…"}``.
        :raises InvalidParameterValue: the properties cannot be used; nothing was changed.
        :raises VolumeDeviceNotFound: its device did not appear, or the cluster could not be asked
            whether it still is the volume; the discovery client forgets it.
        """
        volume = LightOSVolume.parse(connection_properties)
        with (
            self._public_call(f"Attach of {volume}") as call,
            self.host.locks.held(call, volume.lock_names),
        ):
            told = False
            try:
                told = self._tell(call, volume)
                limit_s = float(self.WAIT_DEVICE_TIMEOUT)
                path = lightos_device.wait_for(self.host, call, volume, limit_s)
                if path is None:
                    raise exception.VolumeDeviceNotFound(
                        f"Device with uuid {volume.uuid} did not show up. Does the discovery "
                        "client run, and does it reach the cluster?"
                    )
            except Exception:
                if told:
                    self._undo(call, volume)
                raise
            # Under the lock: a detach's message must come after this one.
            self._send("add", connection_properties)
        return {"type": "block", "path": path}

    def _undo(self, call: Call, volume: LightOSVolume) -> None:
        try:
            self._files.delete(call.later(f"{call.operation}, undone", _UNDO_LIMIT_S), volume.uuid)
        except (exception.BrickException, *FAILURES) as exc:
            LOG.warning("Leftovers may remain: %s", exc)

    def _send(self, verb: str, connection_properties: Mapping[str, Any]) -> None:
        if self.message_queue is not None:
            self.message_queue.put((verb, connection_properties))

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
        """Detach a volume. When it returns without ``force``, its data is on the storage; its
        device goes when storage takes it away.

        :raises DeviceInUse: somebody uses it (without ``force``); nothing was changed.
        :raises WrongVolume: the cluster gave its number to another volume (without ``force``).
        :raises ProcessExecutionError: its data could not be written out (without ``force``).
        :raises ExceptionChainer: what failed (with ``force``, without ``ignore_errors``).
        """
        volume = LightOSVolume.parse(connection_properties)
        with self._detaching(volume, force, ignore_errors) as (call, errors):
            with errors.context(force):
                self._settle(call, volume, force, errors)
            # Before the file goes: a monitor that knew the volume would make it again.
            self._send("delete", connection_properties)
            try:
                self._files.delete(call, volume.uuid)
            except Exception:
                self._send("add", connection_properties)
                raise

    def _is_device_of(self, path: str, connection_properties: Mapping[str, Any]) -> bool:
        found = lightos_device.find(self.host, LightOSVolume.parse(connection_properties))
        return path in {one.path for one in found}

    def _settle(
        self, call: Call, volume: LightOSVolume, force: bool, errors: exception.ExceptionChainer
    ) -> None:
        """Refuse a volume in use and write its data out, where it is here."""
        paths = lightos_device.find(self.host, volume)
        for one in paths:
            try:
                wrong = lightos_device.says_another(self.host, call, volume, one)
            except FAILURES as exc:
                # No danger: nothing reaches anybody by a controller that does not answer.
                LOG.debug("%s could not be asked about %s: %s", one.controller, one, exc)
                continue
            if wrong is not None:
                raise wrong
        limit_s = cfg.CONF.os_brick.flush_timeout
        for node in dict.fromkeys(one.path for one in paths):
            device.settle(self.host, call, node, force=force, errors=errors, limit_s=limit_s)

    # -- size, paths --------------------------------------------------------------------------
    @utils.trace
    @utils.connect_volume_undo_prepare_result
    def extend_volume(self, connection_properties: dict[str, Any]) -> int | None:
        """Take notice of a volume's new size and return it in bytes; None if it is not here.

        :raises BrickException: its device has not taken the size that the cluster tells.
        """
        volume = LightOSVolume.parse(connection_properties)
        with (
            self._public_call(f"Extend of {volume}") as call,
            self.host.locks.held(call, volume.lock_names),
        ):
            paths = lightos_device.find(self.host, volume)
            if not paths:
                LOG.warning("%s is not here, its size is not known", volume)
                return None
            return nvme_resize.extend(self.host, call, paths)

    def get_search_path(self) -> str:
        """Return the directory of the devices."""
        return "/dev"

    @utils.trace
    @utils.connect_volume_undo_prepare_result
    def get_volume_paths(self, connection_properties: dict[str, Any]) -> list[str]:
        """Return the path that the volume's user has, or else its device here, if there is one."""
        used = utils.get_dev_path(connection_properties, None)
        if used:
            return [used]
        paths = lightos_device.find(self.host, LightOSVolume.parse(connection_properties))
        usable = [one.path for one in paths if nvme_namespaces.is_usable(self.host, one)]
        return list(dict.fromkeys(usable))

    # -- the monitor --------------------------------------------------------------------------
    def lightos_monitor(self, lightos_db: MutableMapping[str, Any], message_queue: Any) -> NoReturn:
        """Keep the discovery client told of all known volumes, for as long as the process lives.

        After a reboot of the host its files may be gone; the volumes are in use all the same.

        :param lightos_db: connection properties by UUID; changed by messages.
        :param message_queue: of ``("add" or "delete", connection properties)``.
        """
        pause_s = _FIRST_PAUSE_S
        while True:
            self.host.clock.wait(pause_s)
            pause_s = _PAUSE_S
            self.monitor_db(lightos_db, message_queue)
            self.monitor_message_queue(message_queue, lightos_db)

    def monitor_db(self, lightos_db: MutableMapping[str, Any], message_queue: Any = None) -> None:
        """Tell the discovery client of known volumes that it has not been told of.

        :param message_queue: a volume whose file is missing may just have been detached: it is
            looked for what that has sent.
        """
        for connection_info in list(lightos_db.values()):
            try:
                if self.dsc_need_connect(connection_info):
                    self._restore(connection_info, lightos_db, message_queue)
            except (exception.BrickException, *FAILURES) as exc:
                # The other volumes need their connections too.
                LOG.warning("A known LightOS volume is not connected: %s", exc)

    def _restore(
        self,
        connection_info: Mapping[str, Any],
        lightos_db: MutableMapping[str, Any],
        message_queue: Any,
    ) -> None:
        volume = LightOSVolume.parse(connection_info)
        with (
            self._public_call(f"Connection of {volume}") as call,
            self.host.locks.held_if_soon(call, volume.lock_names, _PAUSE_S) as alone,
        ):
            if not alone:  # it is being attached or detached: next time
                return
            # A detach sends its message and deletes the file under this lock.
            if message_queue is not None:
                self.monitor_message_queue(message_queue, lightos_db)
            if connection_info["uuid"] in lightos_db:
                self._tell(call, volume)

    def monitor_message_queue(
        self, message_queue: Any, lightos_db: MutableMapping[str, Any]
    ) -> None:
        """Take the messages that have come into the known volumes."""
        while not message_queue.empty():
            verb, connection_info = message_queue.get()
            uuid = connection_info["uuid"]
            if verb == "add":
                lightos_db[uuid] = connection_info
            elif verb == "delete" and lightos_db.pop(uuid, None) is None:
                LOG.warning("LightOS volume %s was to be forgotten and is not known", uuid)
