# SPDX-License-Identifier: Apache-2.0
"""Targets, portals and connection properties of NVMe-oF under the names that others know.

The connector does not use these: what they tell is read from sysfs by
:mod:`os_brick.initiator.linux.nvme`. They read the host and change nothing.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, TypeVar

from os_brick import exception
from os_brick.initiator.linux import nvme, nvme_namespaces
from os_brick.initiator.linux.call import Call, SystemClock
from os_brick.initiator.linux.nvme_ids import NamespaceIds, head_of, normal_uuid
from os_brick.initiator.linux.nvme_volume import RAID_PATH, NvmeVolume
from os_brick.initiator.linux.sysfs import Tree
from os_brick.utils import HOST_NQN_FILE

F = TypeVar("F", bound=Callable[..., Any])

DEV_SEARCH_PATH = "/dev/"
DEVICE_SCAN_ATTEMPTS_DEFAULT = 5
NVME_CTRL_SYSFS_PATH = "/sys/class/nvme-fabrics/ctl/"
BLK_SYSFS_PATH = "/sys/class/block/"

# Keys of connection properties: of both formats, of the old one, of the new one, of replicas.
NGUID, NSID, HOST_NQN, ALIAS = "volume_nguid", "ns_id", "host_nqn", "alias"
OLD_NQN, TRANSPORT, PORTAL, PORT = "nqn", "transport_type", "target_portal", "target_port"
UUID, NQN, PORTALS = "vol_uuid", "target_nqn", "portals"
REPLICAS, REPLICA_COUNT = "volume_replicas", "replica_count"

_LOOK_LIMIT_S = 15.0


def sysfs_property(prop_name: str, path_or_name: str) -> str | None:
    """Return the stripped text of a file in a directory of sysfs; None if it cannot be read."""
    try:
        with open(os.path.join(path_or_name, prop_name), encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return None


def ctrl_property(prop_name: str, ctrl_name: str) -> str | None:
    """Return an attribute of a controller (``"nvme0"``); None if it cannot be read."""
    return sysfs_property(prop_name, os.path.join(NVME_CTRL_SYSFS_PATH, ctrl_name))


def blk_property(prop_name: str, blk_name: str) -> str | None:
    """Return an attribute of a block device (``"nvme0n1"``); None if it cannot be read."""
    return sysfs_property(prop_name, os.path.join(BLK_SYSFS_PATH, blk_name))


def nvme_basename(path: str) -> str:
    """Return the disk to use for a path in sysfs or ``/dev``: ``…/nvme0c1n2`` → ``nvme0n2``."""
    return head_of(os.path.basename(path))


class Portal:
    """A portal of a target, and its controller once :meth:`Target.set_portals_controllers` has
    found it.

    :param address: IP address or name.
    :param port: text or int.
    :param transport: as drivers call it.
    """

    LIVE = nvme.LIVE
    MISSING = None
    CONNECTING = "connecting"
    DEFAULT_RECONNECT_DELAY = 10
    controller: str | None = None

    def __init__(
        self, parent_target: Target, address: str, port: int | str, transport: str
    ) -> None:
        self.parent_target = parent_target
        self.address = address
        self.port = str(port)
        self.transport = nvme.parse_transport(transport)

    def __repr__(self) -> str:
        return (
            f"Portal(address={self.address!r}, port={self.port!r}, transport={self.transport!r}, "
            f"controller={self.controller!r})"
        )

    @property
    def state(self) -> str | None:
        """The kernel's word for its controller's state; None if it has none."""
        return ctrl_property("state", self.controller) if self.controller else self.MISSING

    @property
    def is_live(self) -> bool:
        """Whether it has a controller that can be used."""
        return self.state == self.LIVE

    @property
    def reconnect_delay(self) -> int:
        """Seconds between two tries of its controller to reconnect."""
        told = ctrl_property("reconnect_delay", self.controller) if self.controller else None
        delay = nvme.parse_delay(told or "")
        return self.DEFAULT_RECONNECT_DELAY if delay is None else delay

    def get_device(self) -> str | None:
        """Return the path of the target's namespace on its controller; None if it is not there."""
        wanted = self.parent_target.ids
        for path in self.get_all_namespaces_ctrl_paths():
            shown = NamespaceIds(
                sysfs_property("uuid", path) or "",
                sysfs_property("nguid", path) or "",
                _number(sysfs_property("nsid", path)),
            )
            if wanted.fits(shown):
                return DEV_SEARCH_PATH + nvme_basename(path)
        return None

    def get_all_namespaces_ctrl_paths(self) -> list[str]:
        """Return the directories of all namespaces on its controller."""
        if not self.controller:
            return []
        folder = os.path.join(NVME_CTRL_SYSFS_PATH, self.controller)
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            return []
        return [os.path.join(folder, name) for name in names if nvme_namespaces.is_entry(name)]

    def get_device_by_property(self, prop_name: str, value: object) -> str | None:
        """Return the path of the namespace on its controller whose attribute has a value."""
        for path in self.get_all_namespaces_ctrl_paths():
            if sysfs_property(prop_name, path) == str(value):
                return DEV_SEARCH_PATH + nvme_basename(path)
        return None

    def can_disconnect(self) -> bool:
        """Tell whether its controller has nothing on it but the target's namespace, if that."""
        if not self.controller:
            return False
        there = self.get_all_namespaces_ctrl_paths()
        if len(there) > 1:
            return False
        return not there or self.get_device() == DEV_SEARCH_PATH + nvme_basename(there[0])


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


class Target:
    """A namespace of a subsystem.

    :param portals: of ``(address, port, transport)``.
    :param find_controllers: look the portals' controllers up at once.
    :raises ValueError: the UUID or NGUID is malformed.
    """

    devices_on_start: list[str] | None = None

    def __init__(
        self,
        source_conn_props: NVMeOFConnProps | None,
        nqn: str,
        portals: Iterable[tuple[str, int | str, str]],
        uuid: str | None = None,
        nguid: str | None = None,
        ns_id: int | str | None = None,
        host_nqn: str | None = None,
        find_controllers: bool = False,
    ) -> None:
        self.source_conn_props = source_conn_props
        self.nqn = nqn
        self.portals = [Portal(self, *portal) for portal in portals]
        self.uuid = normal_uuid(uuid) if uuid else uuid
        self.nguid = normal_uuid(nguid) if nguid else nguid
        self.ns_id = ns_id
        self.host_nqn = host_nqn or sysfs_property(*reversed(os.path.split(HOST_NQN_FILE))) or ""
        if not (self.uuid or self.nguid or ns_id):
            self.devices_on_start = self._disks()
        if find_controllers:
            self.set_portals_controllers()

    @classmethod
    def factory(
        cls,
        source_conn_props: NVMeOFConnProps | None,
        target_nqn: str,
        portals: Iterable[tuple[str, int | str, str]],
        vol_uuid: str | None = None,
        volume_nguid: str | None = None,
        ns_id: int | str | None = None,
        host_nqn: str | None = None,
        find_controllers: bool = False,
        **ignore: Any,
    ) -> Target:
        """Return a target made from the keys of connection properties; others are ignored."""
        return cls(
            source_conn_props,
            target_nqn,
            portals,
            vol_uuid,
            volume_nguid,
            ns_id,
            host_nqn,
            find_controllers,
        )

    @property
    def ids(self) -> NamespaceIds:
        """What identifies the namespace."""
        number = str(self.ns_id).strip() if self.ns_id not in (None, "") else None
        return NamespaceIds(self.uuid or "", self.nguid or "", _number(number))

    @staticmethod
    def _disks() -> list[str]:
        try:
            names = sorted(os.listdir(BLK_SYSFS_PATH))
        except OSError:
            return []
        return [
            DEV_SEARCH_PATH + name
            for name in names
            if nvme_namespaces.is_entry(name) and head_of(name) == name
        ]

    @property
    def live_portals(self) -> list[Portal]:
        """The portals whose controller can be used."""
        return [portal for portal in self.portals if portal.is_live]

    @property
    def present_portals(self) -> list[Portal]:
        """The portals that have a controller, whatever its state."""
        return [portal for portal in self.portals if portal.state is not Portal.MISSING]

    def set_portals_controllers(self) -> None:
        """Look up the controllers of all portals that have none yet."""
        tree = Tree(
            os.path.dirname(NVME_CTRL_SYSFS_PATH.rstrip("/")[: -len(nvme.CONTROLLERS)] + "/")
        )
        waiting = {
            nvme.Portal.parse(one.address, one.port, one.transport): one
            for one in self.portals
            if not one.controller
        }
        found = nvme.find_controllers(tree, self.nqn, list(waiting), self.host_nqn or None)
        for portal, controllers in found.items():
            if controllers:
                waiting[portal].controller = controllers[0].name

    def get_devices(self, only_live: bool = False, get_one: bool = False) -> list[str]:
        """Return the paths of the namespace's disks, each once.

        :param only_live: leave out controllers that cannot be used.
        :param get_one: stop at the first.
        """
        portals = self.live_portals if only_live else self.present_portals
        found: dict[str, None] = {}
        for portal in portals:
            device = portal.get_device() if self.ids else None
            if device:
                found[device] = None
                if get_one:
                    break
        return list(found)

    def find_device(self) -> str:
        """Return the path of the namespace's disk once it is there.

        :raises VolumeDeviceNotFound: it does not come.
        """

        def look() -> str | None:
            self.set_portals_controllers()
            if not self.ids:
                return self.get_device_path_by_initial_devices()
            return next(iter(self.get_devices(only_live=True, get_one=True)), None)

        call = Call(f"find the namespace of {self.nqn}", SystemClock(), _LOOK_LIMIT_S)
        found = call.wait_until(look, what="namespace")
        if not found:
            raise exception.VolumeDeviceNotFound(device=self.nqn)
        return found

    def get_device_path_by_initial_devices(self) -> str | None:
        """Return the disk that has come since this object was made, on the target's controllers;
        None if there is none, or it is not clear which."""
        before = set(self.devices_on_start or ())
        ours = {
            DEV_SEARCH_PATH + nvme_basename(path)
            for portal in self.present_portals
            for path in portal.get_all_namespaces_ctrl_paths()
        }
        came = sorted(ours - before)
        identities = {blk_property("uuid", nvme_basename(one)) for one in came}
        if len(came) > 1 and (len(identities) > 1 or None in identities):
            return None
        return came[0] if came else None


class NVMeOFConnProps:
    """Connection properties of either format, as objects.

    :param conn_props: the dictionary; it is not changed.
    :param find_controllers: look the portals' controllers up at once.
    :raises InvalidParameterValue: they cannot be used; names the key.
    """

    RO = "ro"
    RW = "rw"
    replica_count: int | None = None
    cinder_volume_id: str | None = None
    _READ_ONLY_KEYS: ClassVar[tuple[str, ...]] = (
        "qos_specs",
        "encrypted",
        "cacheable",
        "discard",
        "enforce_multipath",
        "device_path",
    )

    def __init__(self, conn_props: Mapping[str, Any], find_controllers: bool = False) -> None:
        self.properties = dict(conn_props)
        volume = NvmeVolume.parse(conn_props)
        self.is_replicated = volume.is_replicated
        self.readonly = conn_props.get("access_mode", self.RW) == self.RO
        self.qos_specs = conn_props.get("qos_specs")
        self.encrypted = conn_props.get("encrypted")
        self.cacheable = conn_props.get("cacheable")
        self.discard = conn_props.get("discard")
        self.enforce_multipath = conn_props.get("enforce_multipath")
        self.device_path = conn_props.get("device_path")
        self.alias = conn_props.get(ALIAS)
        if volume.alias:
            self.replica_count = volume.replica_count
            self.cinder_volume_id = conn_props.get(UUID)
        else:
            self.cinder_volume_id = conn_props.get("volume_id")
        self.targets = [
            Target(
                self,
                one.nqn,
                [(portal.address, portal.port, portal.transport) for portal in one.portals],
                one.ids.uuid or None,
                one.ids.nguid or None,
                one.ids.nsid,
                one.host_nqn,
                find_controllers,
            )
            for one in volume.targets
        ]

    @property
    def md_path(self) -> str:
        """Path of a replicated volume's array."""
        return f"{RAID_PATH}{self.alias}"

    def get_devices(self, only_live: bool = False) -> list[str]:
        """Return the paths of the disks of all targets, each once."""
        found = (device for target in self.targets for device in target.get_devices(only_live))
        return list(dict.fromkeys(found))

    @classmethod
    def from_dictionary_parameter(cls, func: F) -> F:
        """Decorate a method to get an object of this class for its first argument, a dictionary."""

        @functools.wraps(func)
        def wrapper(self: Any, connection_properties: Any, *args: Any, **kwargs: Any) -> Any:
            if not isinstance(connection_properties, cls):
                connection_properties = cls(connection_properties)
            return func(self, connection_properties, *args, **kwargs)

        return wrapper  # type: ignore[return-value]
