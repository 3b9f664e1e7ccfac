# SPDX-License-Identifier: Apache-2.0
"""Connection properties of a Fibre Channel volume as a value; what cannot be used is refused by
key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any

from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux import fc, scsi

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, order=True)
class FcTarget:
    """A target port, and the LUN's number there (as the kernel codes it)."""

    wwpn: str
    lun: int

    @property
    def volume_lock_name(self) -> str:
        """Name of the lock of the volume that is reached here, whatever the coding."""
        return f"fc volume {self.wwpn} {scsi.plain_lun(self.lun)}"

    def __str__(self) -> str:
        return f"LUN {self.lun} of 0x{self.wwpn}"


@dataclass(frozen=True, slots=True)
class FcVolume:
    """Where a volume is, and by which ports of this host it is meant to be reached.

    :ivar targets: the ways to it in the order given, each once.
    :ivar zones: (WWPN of a port of this host, targets that it is meant for); None: each is meant
        for all.
    :ivar wildcard: whether unknown target ports may be scanned for by wildcard.
    :ivar read_only: whether the volume is only to be read.
    :ivar enforce_multipath: fail rather than attach without multipath.
    :ivar wwid: the identity that it had when it was attached, if the properties say so.
    """

    targets: tuple[FcTarget, ...]
    zones: tuple[tuple[str, tuple[FcTarget, ...]], ...] | None
    wildcard: bool
    read_only: bool
    enforce_multipath: bool
    wwid: str

    @property
    def wwpns(self) -> tuple[str, ...]:
        """WWPNs of its target ports."""
        return tuple(dict.fromkeys(target.wwpn for target in self.targets))

    @property
    def lock_names(self) -> list[str]:
        """Names of the locks that calls for the same volume have in common."""
        return [target.volume_lock_name for target in self.targets]

    def targets_by(self, initiator: str) -> tuple[FcTarget, ...]:
        """Return the targets that a port of this host is meant for, by its WWPN."""
        if self.zones is None:
            return self.targets
        return dict(self.zones).get(initiator, ())

    def is_meant_for(self, initiator: str) -> bool:
        """Tell whether a port of this host is to be used at all, by its WWPN (bug 1765000)."""
        return self.zones is None or initiator in dict(self.zones)

    def __str__(self) -> str:
        more = f" and {len(self.targets) - 1} more" if len(self.targets) > 1 else ""
        return f"{self.targets[0]}{more}"

    @classmethod
    def parse(
        cls, properties: Mapping[str, Any], kernel_lun: Callable[[int], int] = int
    ) -> FcVolume:
        """Return the volume that connection properties describe.

        ``target_wwns`` or ``target_wwn`` are its ports, ``target_luns`` or ``target_lun`` its LUNs:
        one for all ports, or one for each.

        :param kernel_lun: the kernel's number of a LUN, where that depends on the platform.
        :raises VolumePathsNotFound: ports or LUNs are missing, or their numbers do not agree.
        :raises InvalidParameterValue: names the key and what was expected.
        """
        mode = properties.get("addressing_mode")
        wwns_key, wwns = _first_given(properties, str, "target_wwns", "target_wwn")
        luns_key, luns = _first_given(properties, str | int, "target_luns", "target_lun")
        if len(luns) == 1:
            luns = luns * len(wwns)
        if not wwns or len(luns) != len(wwns):
            raise exception.VolumePathsNotFound(
                "Unable to find potential volume paths for FC device with luns: "
                f"{properties.get(luns_key)!r} and wwns: {properties.get(wwns_key)!r}."
            )
        targets = tuple(
            dict.fromkeys(
                FcTarget(
                    _wwpn(wwn, wwns_key),
                    kernel_lun(scsi.lun_for_addressing(scsi.lun_number(lun, luns_key), mode)),
                )
                for wwn, lun in zip(wwns, luns, strict=True)
            )
        )
        wwid = properties.get("multipath_id")
        return cls(
            targets=targets,
            zones=_zones(properties.get("initiator_target_map"), targets),
            wildcard=bool(properties.get("enable_wildcard_scan", True)),
            read_only=properties.get("access_mode") == "ro",
            enforce_multipath=bool(properties.get("enforce_multipath")),
            wwid=wwid if isinstance(wwid, str) else "",
        )


def _first_given(
    properties: Mapping[str, Any], kind: type | UnionType, *keys: str
) -> tuple[str, list[Any]]:
    """Return the first key that has a value, and its values; none if it is neither a list nor of
    this kind."""
    key = next((key for key in keys if properties.get(key) not in (None, "", [], ())), keys[-1])
    value = properties.get(key)
    if isinstance(value, list | tuple):
        return key, list(value)
    return key, [value] if isinstance(value, kind) and value != "" else []


def _wwpn(value: object, key: str) -> str:
    wwpn = fc.parse_wwn(value) if isinstance(value, str) else None
    if wwpn is None:
        raise exception.InvalidParameterValue(
            err=f"{key}: expected WWPNs of 16 hexadecimal digits, got {value!r}"
        )
    return wwpn


def _zones(
    given: object, targets: Iterable[FcTarget]
) -> tuple[tuple[str, tuple[FcTarget, ...]], ...] | None:
    """Return which port of this host is meant for which targets, as the zone manager or the driver
    says."""
    if not given:
        return None
    if not isinstance(given, Mapping):
        raise exception.InvalidParameterValue(
            err=f"initiator_target_map: expected a dictionary, got {type(given).__name__}"
        )
    zones: dict[str, dict[FcTarget, None]] = {}
    for initiator, wwpns in given.items():
        name = fc.parse_wwn(str(initiator))
        if name is None:
            LOG.warning("initiator_target_map: %r is no WWPN and is left out", initiator)
            continue
        zone = zones.setdefault(name, {})
        if wwpns is not None and not isinstance(wwpns, Iterable):
            raise exception.InvalidParameterValue(
                err=f"initiator_target_map: expected a list of WWPNs for {initiator}, got {wwpns!r}"
            )
        for wwpn in [wwpns] if isinstance(wwpns, str) else wwpns or ():
            meant = [one for one in targets if one.wwpn == fc.parse_wwn(str(wwpn))]
            if not meant:
                LOG.warning(
                    "initiator_target_map: target %s of %s is no port of the volume and is left "
                    "out",
                    wwpn,
                    initiator,
                )
            zone.update(dict.fromkeys(meant))
    return tuple((name, tuple(zone)) for name, zone in zones.items())
