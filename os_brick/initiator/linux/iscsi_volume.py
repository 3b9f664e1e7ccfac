# SPDX-License-Identifier: Apache-2.0
"""An iSCSI volume as a value, made from the connection properties that a service hands over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from os_brick import exception
from os_brick.initiator.linux import scsi
from os_brick.initiator.linux.iscsi import IscsiPath, Portal, Target, target_name
from os_brick.initiator.linux.open_iscsi import Credentials


@dataclass(frozen=True, slots=True)
class IscsiVolume:
    """Where a volume is, by which names, and with which credentials.

    :ivar paths: the ways to it in the order given, each once; LUNs as the kernel numbers them.
    :ivar given: False if only one target was given: with multipath, others may have to be
        discovered.
    :ivar chap: credentials of the sessions; None if there are none, or none are needed.
    :ivar discovery_chap: credentials of the discovery, the same.
    :ivar enforce_multipath: fail rather than attach without multipath.
    """

    paths: tuple[IscsiPath, ...]
    given: bool
    chap: Credentials | None
    discovery_chap: Credentials | None
    enforce_multipath: bool

    @property
    def main(self) -> IscsiPath:
        """The first path: if only one target was given, one by its name."""
        return self.paths[0]

    def is_candidate(self, path: IscsiPath) -> bool:
        """Tell whether a path may be another volume's: a discovery found it, under another target
        name than the given one."""
        return not self.given and path.target.iqn.lower() != self.main.target.iqn.lower()

    @property
    def lock_names(self) -> list[str]:
        """Names of the locks that calls for the same volume have in common."""
        return [path.volume_lock_name for path in self.paths if not self.is_candidate(path)]

    def __str__(self) -> str:
        more = f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else ""
        return f"{self.main}{more}"

    @classmethod
    def parse(cls, properties: Mapping[str, Any], *, to_attach: bool = True) -> IscsiVolume:
        """Return the volume that connection properties describe.

        With both ``target_portals`` and ``target_iqns`` each entry is a path; ``target_luns`` holds
        their LUNs, or ``target_lun`` the LUN of all. Otherwise ``target_portal``, ``target_iqn``
        and ``target_lun`` (0 if absent) are the one path.

        :param to_attach: with what only an attach needs: without it credentials are not looked at.
        :raises InvalidParameterValue: names the key and what was expected.
        """
        mode = properties.get("addressing_mode")
        return cls(
            paths=tuple(dict.fromkeys(_read_paths(properties, mode))),
            given=_is_given(properties),
            chap=_credentials(properties, "auth_") if to_attach else None,
            discovery_chap=_credentials(properties, "discovery_auth_") if to_attach else None,
            enforce_multipath=bool(properties.get("enforce_multipath")),
        )


def names_a_target(properties: Mapping[str, Any]) -> bool:
    """Tell whether connection properties name a target at all."""
    return _is_given(properties) or bool(
        properties.get("target_portal") and properties.get("target_iqn")
    )


def _is_given(properties: Mapping[str, Any]) -> bool:
    return bool(properties.get("target_portals") and properties.get("target_iqns"))


def _read_paths(properties: Mapping[str, Any], mode: str | None) -> list[IscsiPath]:
    if not _is_given(properties):
        portal = Portal.parse(properties.get("target_portal"))
        iqn = target_name(properties.get("target_iqn"))
        lun = properties.get("target_lun")
        number = scsi.lun_number(0 if lun is None else lun)
        return [IscsiPath(Target(portal, iqn), scsi.lun_for_addressing(number, mode))]
    portals = _sequence(properties, "target_portals")
    iqns = _sequence(properties, "target_iqns", len(portals))
    if properties.get("target_luns"):
        luns = _sequence(properties, "target_luns", len(portals))
    else:
        lun = properties.get("target_lun")
        luns = [0 if lun is None else lun] * len(portals)
    return [
        IscsiPath(
            Target(
                Portal.parse(portal, f"target_portals[{at}]"),
                target_name(iqn, f"target_iqns[{at}]"),
            ),
            scsi.lun_for_addressing(scsi.lun_number(lun, f"target_luns[{at}]"), mode),
        )
        for at, (portal, iqn, lun) in enumerate(zip(portals, iqns, luns, strict=True))
    ]


def _sequence(properties: Mapping[str, Any], key: str, length: int | None = None) -> Sequence[Any]:
    value = properties[key]
    if not isinstance(value, list | tuple):
        raise exception.InvalidParameterValue(
            err=f"{key}: expected a list, got {type(value).__name__}"
        )
    if length is not None and len(value) != length:
        raise exception.InvalidParameterValue(
            err=f"{key}: expected as many entries as target_portals has, {length}, got {len(value)}"
        )
    return value


def _credentials(properties: Mapping[str, Any], prefix: str) -> Credentials | None:
    if not properties.get(f"{prefix}method"):
        return None
    values = {}
    for name in ("method", "username", "password"):
        value = properties.get(prefix + name)
        if not isinstance(value, str) or not value:
            # Never the value: it may be the secret.
            raise exception.InvalidParameterValue(
                err=f"{prefix}{name}: expected text, since {prefix}method is set, "
                f"got {type(value).__name__}"
            )
        values[name] = value
    return Credentials(**values)
