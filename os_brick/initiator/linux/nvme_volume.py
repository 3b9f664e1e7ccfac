# SPDX-License-Identifier: Apache-2.0
"""An NVMe-oF volume as a value, made from the connection properties that a service hands over."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from os_brick import exception
from os_brick.initiator.linux.nvme import Portal, parse_nqn
from os_brick.initiator.linux.nvme_ids import NamespaceIds, normal_uuid

_ALIAS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+-]{0,127}")
#: Where udev puts the names of arrays.
RAID_PATH = "/dev/md/"


class MalformedIdentifier(exception.InvalidParameterValue, ValueError):
    """A UUID or NGUID that is none; services know it as a ValueError."""


@dataclass(frozen=True, slots=True)
class NvmeTarget:
    """A namespace of a subsystem, and the portals to it.

    :ivar portals: in the order given, each once.
    :ivar host_nqn: the name to present there; None for this host's own.
    """

    nqn: str
    portals: tuple[Portal, ...]
    ids: NamespaceIds
    host_nqn: str | None = None

    @property
    def lock_name(self) -> str:
        """Name of the lock that calls for the same namespace have in common."""
        what = self.ids.uuid or self.ids.nguid or ("" if self.ids.nsid is None else self.ids.nsid)
        return f"nvme namespace {self.nqn} {what}"

    def __str__(self) -> str:
        return f"namespace with {self.ids} of {self.nqn}"

    @classmethod
    def parse(cls, properties: Mapping[str, Any], where: str = "") -> NvmeTarget:
        """Return the target that a dictionary of the new format describes.

        :param where: put before the names of keys in errors.
        :raises InvalidParameterValue: names the key and what was expected.
        """
        return cls(
            nqn=parse_nqn(properties.get("target_nqn"), f"{where}target_nqn"),
            portals=_portals(properties.get("portals"), f"{where}portals"),
            ids=_ids(properties, where),
            host_nqn=_host_nqn(properties, where),
        )

    @classmethod
    def parse_old(cls, properties: Mapping[str, Any]) -> NvmeTarget:
        """Return the target that a dictionary of the old format describes.

        :raises InvalidParameterValue: names the key and what was expected.
        """
        portal = Portal.parse(
            properties.get("target_portal"),
            properties.get("target_port"),
            properties.get("transport_type"),
            "target_portal, target_port, transport_type",
        )
        # vol_uuid is a key of the new format only; drivers of the old one may send the volume's id.
        known = {key: properties.get(key) for key in ("volume_nguid", "ns_id")}
        return cls(
            nqn=parse_nqn(properties.get("nqn"), "nqn"),
            portals=(portal,),
            ids=_ids(known, ""),
            host_nqn=_host_nqn(properties, ""),
        )


@dataclass(frozen=True, slots=True)
class NvmeVolume:
    """What a service calls a volume: one namespace, or several that an md array joins.

    :ivar is_replicated: True for an array of several legs; None for one leg that may be an array's;
        False for a plain namespace.
    :ivar alias: name of the array; empty for a plain namespace.
    :ivar replica_count: legs that the array has.
    """

    targets: tuple[NvmeTarget, ...]
    is_replicated: bool | None = False
    alias: str = ""
    replica_count: int = 0
    enforce_multipath: bool = False
    read_only: bool = False

    @property
    def md_path(self) -> str:
        """Path of the array."""
        return RAID_PATH + self.alias

    @property
    def lock_names(self) -> list[str]:
        """Names of the locks that calls for the same volume have in common."""
        array = [f"md array {self.alias}"] if self.alias else []
        return array + [target.lock_name for target in self.targets]

    def __str__(self) -> str:
        if self.alias:
            return f"array {self.alias} of {len(self.targets)} namespaces"
        return str(self.targets[0])

    @classmethod
    def parse(cls, properties: Mapping[str, Any]) -> NvmeVolume:
        """Return the volume that connection properties of either format describe.

        With ``volume_replicas`` it is replicated; without it and ``target_nqn`` the format is the
        old one.

        :raises InvalidParameterValue: names the key and what was expected.
        :raises BrickException: a replicated volume has no ``alias``.
        """
        replicas = properties.get("volume_replicas")
        common = {
            "enforce_multipath": bool(properties.get("enforce_multipath")),
            "read_only": properties.get("access_mode", "rw") == "ro",
        }
        if replicas:
            return cls(**_replicated(properties, replicas), **common)
        if properties.get("target_nqn") is None:
            return cls((NvmeTarget.parse_old(properties),), **common)
        return cls((NvmeTarget.parse(properties),), **common)


def _replicated(properties: Mapping[str, Any], replicas: object) -> dict[str, Any]:
    if not isinstance(replicas, list | tuple):
        raise _bad("volume_replicas", "a list of targets", replicas)
    alias = properties.get("alias")
    if not alias:
        raise exception.BrickException("alias missing in connection info")
    if not isinstance(alias, str) or not _ALIAS.fullmatch(alias):
        raise _bad("alias", "a name for the array, without '/'", alias)
    targets = []
    for at, replica in enumerate(replicas):
        if not isinstance(replica, Mapping):
            raise _bad(f"volume_replicas[{at}]", "a dictionary", replica)
        targets.append(NvmeTarget.parse(replica, f"volume_replicas[{at}]."))
    count = properties.get("replica_count") or len(targets)
    if isinstance(count, bool) or not str(count).isdecimal():
        raise _bad("replica_count", "a number", count)
    number = int(count)
    return {
        "targets": tuple(targets),
        "is_replicated": True if number > 1 else None,
        "alias": alias,
        "replica_count": number,
    }


def _bad(key: str, expected: str, got: object) -> exception.InvalidParameterValue:
    return exception.InvalidParameterValue(err=f"{key}: expected {expected}, got {got!r}")


def _portals(value: object, key: str) -> tuple[Portal, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise _bad(key, "a list of [address, port, transport]", value)
    portals = []
    for at, entry in enumerate(value):
        if not isinstance(entry, Sequence) or isinstance(entry, str) or len(entry) != 3:
            raise _bad(f"{key}[{at}]", "[address, port, transport]", entry)
        portals.append(Portal.parse(entry[0], entry[1], entry[2], f"{key}[{at}]"))
    return tuple(dict.fromkeys(portals))


def _ids(properties: Mapping[str, Any], where: str) -> NamespaceIds:
    return NamespaceIds(
        uuid=_uuid(properties.get("vol_uuid"), f"{where}vol_uuid"),
        nguid=_uuid(properties.get("volume_nguid"), f"{where}volume_nguid"),
        nsid=_nsid(properties.get("ns_id"), f"{where}ns_id"),
    )


def _uuid(value: object, key: str) -> str:
    if value is None or value == "":
        return ""
    try:
        if isinstance(value, str):
            return normal_uuid(value)
    except ValueError:
        pass
    raise MalformedIdentifier(err=f"{key}: expected 32 hexadecimal digits, got {value!r}")


def _nsid(value: object, key: str) -> int | None:
    if value is None or value == "":
        return None
    text = str(value).strip() if isinstance(value, int | str) else ""
    # NVM Express base specification 3.2.1.2: 1 to FFFFFFFEh.
    if isinstance(value, bool) or not (text.isascii() and text.isdecimal()) or int(text) == 0:
        raise _bad(key, "a namespace's number", value)
    return int(text)


def _host_nqn(properties: Mapping[str, Any], where: str) -> str | None:
    value = properties.get("host_nqn")
    return parse_nqn(value, f"{where}host_nqn") if value else None
