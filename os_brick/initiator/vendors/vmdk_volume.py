# SPDX-License-Identifier: Apache-2.0
"""Connection properties of a VMDK volume, as values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from os_brick import exception
from os_brick.initiator.vendors.http import Server, Tls

_DEFAULT_PORT = 443
_DEFAULT_RETRIES = 10
_DEFAULT_POLL_S = 2.0
_DEFAULT_TRANSFER_S = 7200.0
_DEFAULT_TMP_DIR = "/tmp"  # noqa: S108 - as the storage driver's option; files get names of their own
_DATASTORE_PATH = re.compile(r"\[(?P<datastore>[^]]+)\] *(?P<path>[^/ ].*\.vmdk)")


@dataclass(frozen=True, slots=True)
class DatastorePath:
    """A file on a datastore: ``[datastore] folder/name.vmdk``."""

    datastore: str
    path: str

    def __str__(self) -> str:
        return f"[{self.datastore}] {self.path}"

    @classmethod
    def parse(cls, text: object) -> DatastorePath | None:
        """Return the path that a text is; None if it is none."""
        found = _DATASTORE_PATH.fullmatch(text) if isinstance(text, str) else None
        return cls(found["datastore"], found["path"]) if found else None

    def beside(self, mark: str) -> DatastorePath:
        """Return the path of a file in the same folder, its name marked."""
        return DatastorePath(self.datastore, f"{self.path.removesuffix('.vmdk')}-{mark}.vmdk")


@dataclass(frozen=True, slots=True)
class Vcenter:
    """A vCenter server, how to log in there, and how patient to be."""

    server: Server
    username: str
    password: str = field(repr=False)
    retries: int = _DEFAULT_RETRIES
    poll_s: float = _DEFAULT_POLL_S
    tmp_dir: str = _DEFAULT_TMP_DIR
    transfer_s: float = _DEFAULT_TRANSFER_S


@dataclass(frozen=True, slots=True)
class VmdkVolume:
    """A volume: the disk of a backing virtual machine.

    :ivar backing: the machine's managed object, ``vm-17``.
    :ivar size: of its disk, in bytes.
    """

    id: str
    backing: str
    path: DatastorePath
    size: int
    datastore: str
    datacenter: str
    vcenter: Vcenter

    def __str__(self) -> str:
        return f"VMDK volume {self.id}"

    @classmethod
    def parse(cls, properties: Mapping[str, Any]) -> VmdkVolume:
        """Return the volume that connection properties name.

        :raises InvalidParameterValue: they cannot be used; the text names the key.
        """
        texts = {
            key: _text(properties, key)
            for key in ("volume_id", "volume", "datastore", "datacenter")
        }
        path = DatastorePath.parse(properties.get("vmdk_path"))
        if path is None:
            raise _wrong("vmdk_path", properties.get("vmdk_path"), "[datastore] folder/name.vmdk")
        if "/" in texts["volume_id"]:
            raise _wrong("volume_id", texts["volume_id"], "an id")
        config = properties.get("config")
        if not isinstance(config, Mapping):
            raise _wrong("config", type(config), "a dictionary of settings")
        return cls(
            texts["volume_id"],
            texts["volume"],
            path,
            int(_number(properties, "vmdk_size", None, 1)),
            texts["datastore"],
            texts["datacenter"],
            _parse_vcenter(config),
        )


def _parse_vcenter(config: Mapping[str, Any]) -> Vcenter:
    ca = config.get("vmware_ca_file") or None
    if ca is not None and not isinstance(ca, str):
        raise _wrong("vmware_ca_file", ca, "a path")
    insecure = config.get("vmware_insecure")
    if insecure is not None and not isinstance(insecure, bool):
        raise _wrong("vmware_insecure", insecure, "true or false")
    # As the storage driver's options say: a file of certificates is used whatever the other says.
    tls = Tls(verify=ca is not None or not insecure, ca=ca)
    password = config.get("vmware_host_password")
    if not isinstance(password, str):
        raise _wrong("vmware_host_password", type(password), "a text")
    port = int(_number(config, "vmware_host_port", _DEFAULT_PORT, 1))
    if port > 65535:
        raise _wrong("vmware_host_port", port, "a port number")
    return Vcenter(
        server=Server(_text(config, "vmware_host_ip"), port, tls),
        username=_text(config, "vmware_host_username"),
        password=password,
        retries=int(_number(config, "vmware_api_retry_count", _DEFAULT_RETRIES, 0)),
        poll_s=_number(config, "vmware_task_poll_interval", _DEFAULT_POLL_S, 0),
        tmp_dir=config.get("vmware_tmp_dir") or _DEFAULT_TMP_DIR,
        transfer_s=_number(config, "vmware_image_transfer_timeout_secs", _DEFAULT_TRANSFER_S, 0),
    )


def _text(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    if not isinstance(value, str) or not value:
        raise _wrong(key, value, "a text")
    return value


def _number(values: Mapping[str, Any], key: str, default: float | None, least: float) -> float:
    value = values.get(key)
    if value is None and default is not None:
        return default
    try:
        number = float(value) if isinstance(value, (int, float, str)) else -1.0
    except ValueError:
        number = -1.0
    if not least <= number < float("inf"):
        raise _wrong(key, value, "a number")
    return number


def _wrong(key: str, value: object, expected: str) -> exception.InvalidParameterValue:
    return exception.InvalidParameterValue(
        err=f"{key} is {value!r} in the connection properties; expected is {expected}."
    )
