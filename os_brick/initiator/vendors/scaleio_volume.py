# SPDX-License-Identifier: Apache-2.0
"""Connection properties of a PowerFlex (ScaleIO) volume, as values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from os_brick import exception
from os_brick.initiator.vendors.http import Server, Tls

# Where the mapping is left to the connector, all of these have to be there (values may be None for
# the limits).
_LEGACY_KEYS = (
    "hostIP",
    "serverIP",
    "serverPort",
    "serverUsername",
    "iopsLimit",
    "bandwidthLimit",
)
_ID = re.compile(r"[0-9A-Za-z]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a host may do with a volume; None is no limit."""

    iops: Any = None
    kbps: Any = None

    def __bool__(self) -> bool:
        return self.iops is not None or self.kbps is not None


@dataclass(frozen=True, slots=True)
class Access:
    """A gateway and how to log in there.

    :ivar password: None: it is in the host's file, section ``config_group``.
    """

    server: Server
    username: str
    limits: Limits
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    config_group: str = ""
    failed_over: bool = False


@dataclass(frozen=True, slots=True)
class ScaleIOVolume:
    """A volume, and who maps it.

    :ivar id: None on very old attachments: to be asked for by name (bug 1648629).
    :ivar access: the gateway, where the connector maps the volume; None where storage does.
    """

    name: str
    id: str | None
    access: Access | None

    @property
    def lock_names(self) -> list[str]:
        """Names of the locks that calls for the same volume have in common."""
        return [f"scaleio-{self.name}"]

    def __str__(self) -> str:
        return f"ScaleIO volume {self.name} ({self.id or 'id unknown'})"

    @classmethod
    def parse(cls, properties: Mapping[str, Any]) -> ScaleIOVolume:
        """Return the volume that connection properties name.

        :raises InvalidParameterValue: they cannot be used; the text names the key.
        """
        name = properties.get("scaleIO_volname")
        if not isinstance(name, str) or not name:
            raise _wrong("scaleIO_volname", name, "the volume's name")
        number = properties.get("scaleIO_volume_id") or None
        if number is not None and not (isinstance(number, str) and _ID.fullmatch(number)):
            raise _wrong("scaleIO_volume_id", number, "the volume's id, letters and digits")
        if properties.get("sdc_guid"):
            if number is None:
                raise _wrong("scaleIO_volume_id", number, "the volume's id")
            return cls(name, number, None)
        return cls(name, number, _parse_access(properties))


def _parse_access(properties: Mapping[str, Any]) -> Access:
    missing = [key for key in _LEGACY_KEYS if key not in properties]
    if missing:
        raise exception.InvalidParameterValue(
            err="ScaleIO connection properties need sdc_guid, where storage maps the volume, or "
            f"else all of {', '.join(_LEGACY_KEYS)}; missing: {', '.join(missing)}."
        )
    for key in ("serverIP", "serverUsername"):
        if not isinstance(properties[key], str) or not properties[key]:
            raise _wrong(key, properties[key], "a text")
    port = str(properties["serverPort"])
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise _wrong("serverPort", properties["serverPort"], "a port number")
    password = properties.get("serverPassword") or None
    group = properties.get("config_group")
    if password is None and not (isinstance(group, str) and group):
        raise _wrong("config_group", group, "the section of the host's file with the password")
    return Access(
        server=Server(properties["serverIP"], int(port), _parse_tls(properties)),
        username=properties["serverUsername"],
        limits=Limits(properties["iopsLimit"], properties["bandwidthLimit"]),
        password=password,
        token=properties.get("serverToken") or None if password else None,
        config_group=group or "",
        failed_over=bool(properties.get("failed_over", False)),
    )


def _parse_tls(properties: Mapping[str, Any]) -> Tls:
    """Return how to check the gateway's certificate; it is checked unless told otherwise."""
    verify = properties.get("verify_certificate")
    ca = properties.get("certificate_path") or None
    if verify is not None and not isinstance(verify, bool):
        raise _wrong("verify_certificate", verify, "true or false")
    if ca is not None and not isinstance(ca, str):
        raise _wrong("certificate_path", ca, "a path")
    return Tls(verify=verify is not False, ca=ca)


def _wrong(key: str, value: object, expected: str) -> exception.InvalidParameterValue:
    return exception.InvalidParameterValue(
        err=f"{key} is {value!r} in the connection properties; expected is {expected}."
    )
