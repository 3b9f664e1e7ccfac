# SPDX-License-Identifier: Apache-2.0
"""The front door: which connector serves a protocol, and what storage has to know of this host.

Importing this module loads no connector: each is loaded when it is first asked for, also as an
attribute (``connector.ISCSIConnector``).
"""

from __future__ import annotations

import importlib
import platform as host_platform
import socket
import sys
from typing import TYPE_CHECKING, Any

from os_brick import exception, initiator
from os_brick.i18n import _

# Services read these constants here too.
from os_brick.initiator import (
    DEVICE_SCAN_ATTEMPTS_DEFAULT,
    FIBRE_CHANNEL,
    GLUSTERFS,
    GPFS,
    HUAWEISDSHYPERVISOR,
    ISCSI,
    ISER,
    LIGHTOS,
    LOCAL,
    MULTIPATH_ERROR_REGEX,
    MULTIPATH_PATH_CHECK_REGEX,
    NFS,
    NVME,
    NVMEOF,
    OS_TYPE_ALL,
    OS_TYPE_LINUX,
    PLATFORM_ALL,
    PLATFORM_PPC64,
    PLATFORM_S390,
    PPC64,
    PPC64LE,
    QUOBYTE,
    RBD,
    S390,
    S390X,
    SCALEIO,
    SCALITY,
    STORPOOL,
    VMDK,
    VZSTORAGE,
    PLATFORM_x86,
)

if TYPE_CHECKING:
    from os_brick.initiator.initiator_connector import InitiatorConnector as _Connector

__all__ = [
    "DEVICE_SCAN_ATTEMPTS_DEFAULT",
    "FIBRE_CHANNEL",
    "GLUSTERFS",
    "GPFS",
    "HUAWEISDSHYPERVISOR",
    "ISCSI",
    "ISER",
    "LIGHTOS",
    "LOCAL",
    "MULTIPATH_ERROR_REGEX",
    "MULTIPATH_PATH_CHECK_REGEX",
    "NFS",
    "NVME",
    "NVMEOF",
    "OS_TYPE_ALL",
    "OS_TYPE_LINUX",
    "PLATFORM_ALL",
    "PLATFORM_PPC64",
    "PLATFORM_S390",
    "PPC64",
    "PPC64LE",
    "QUOBYTE",
    "RBD",
    "S390",
    "S390X",
    "SCALEIO",
    "SCALITY",
    "STORPOOL",
    "VMDK",
    "VZSTORAGE",
    "InitiatorConnector",
    "PLATFORM_x86",
    "connector_list",
    "get_connector_mapping",
    "get_connector_properties",
    "unix_connector_list",
]

_ROOM = "os_brick.initiator.connectors"

#: All connector classes by their dotted names, in the order in which they describe this host.
unix_connector_list = [
    f"{_ROOM}.base.BaseLinuxConnector",
    f"{_ROOM}.iscsi.ISCSIConnector",
    f"{_ROOM}.fibre_channel.FibreChannelConnector",
    f"{_ROOM}.fibre_channel_s390x.FibreChannelConnectorS390X",
    f"{_ROOM}.fibre_channel_ppc64.FibreChannelConnectorPPC64",
    f"{_ROOM}.remotefs.RemoteFsConnector",
    f"{_ROOM}.rbd.RBDConnector",
    f"{_ROOM}.local.LocalConnector",
    f"{_ROOM}.gpfs.GPFSConnector",
    f"{_ROOM}.huawei.HuaweiStorHyperConnector",
    f"{_ROOM}.scaleio.ScaleIOConnector",
    f"{_ROOM}.vmware.VmdkConnector",
    f"{_ROOM}.storpool.StorPoolConnector",
    f"{_ROOM}.nvmeof.NVMeOFConnector",
    f"{_ROOM}.lightos.LightOSConnector",
]
connector_list = unix_connector_list

_REMOTE_FS = f"{_ROOM}.remotefs.RemoteFsConnector"
_ISCSI = f"{_ROOM}.iscsi.ISCSIConnector"
_EVERYWHERE = {
    initiator.NFS: _REMOTE_FS,
    initiator.ISCSI: _ISCSI,
    initiator.LOCAL: f"{_ROOM}.local.LocalConnector",
    initiator.RBD: f"{_ROOM}.rbd.RBDConnector",
    initiator.GPFS: f"{_ROOM}.gpfs.GPFSConnector",
}
_MAPPING_X86 = {
    **_EVERYWHERE,
    initiator.ISER: _ISCSI,
    initiator.FIBRE_CHANNEL: f"{_ROOM}.fibre_channel.FibreChannelConnector",
    initiator.GLUSTERFS: _REMOTE_FS,
    initiator.SCALITY: _REMOTE_FS,
    initiator.QUOBYTE: _REMOTE_FS,
    initiator.VZSTORAGE: _REMOTE_FS,
    initiator.HUAWEISDSHYPERVISOR: f"{_ROOM}.huawei.HuaweiStorHyperConnector",
    initiator.SCALEIO: f"{_ROOM}.scaleio.ScaleIOConnector",
    initiator.VMDK: f"{_ROOM}.vmware.VmdkConnector",
    initiator.STORPOOL: f"{_ROOM}.storpool.StorPoolConnector",
    initiator.NVME: f"{_ROOM}.nvmeof.NVMeOFConnector",
    initiator.NVMEOF: f"{_ROOM}.nvmeof.NVMeOFConnector",
    initiator.LIGHTOS: f"{_ROOM}.lightos.LightOSConnector",
}
_MAPPING_S390 = {
    **_EVERYWHERE,
    initiator.FIBRE_CHANNEL: f"{_ROOM}.fibre_channel_s390x.FibreChannelConnectorS390X",
}
_MAPPING_PPC64 = {
    **_EVERYWHERE,
    initiator.FIBRE_CHANNEL: f"{_ROOM}.fibre_channel_ppc64.FibreChannelConnectorPPC64",
    initiator.ISER: _ISCSI,
    initiator.VZSTORAGE: _REMOTE_FS,
}
#: Protocols that had a connector once, and what it was for.
RETIRED = {
    "AOE": "ATA over Ethernet",
    "DISCO": "DISCO",
    "DRBD": "DRBD",
    "HGST": "HGST",
    "SHEEPDOG": "Sheepdog",
    initiator.SMBFS: "SMB on Windows",
    "VERITAS_HYPERSCALE": "Veritas HyperScale",
}
_MOUNTED = frozenset(
    {
        initiator.NFS,
        initiator.GLUSTERFS,
        initiator.SCALITY,
        initiator.QUOBYTE,
        initiator.VZSTORAGE,
    }
)


def __getattr__(name: str) -> Any:
    for path in unix_connector_list:
        if path.rpartition(".")[2] == name:
            found = _load(path)
            if found is not None:
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _load(path: str) -> type[_Connector] | None:
    """Return a connector class by its dotted name; None if this version does not have it."""
    module, _dot, name = path.rpartition(".")
    try:
        found: type[_Connector] = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as exc:
        if exc.name != module:
            raise
        return None
    return found


def get_connector_mapping(arch: str | None = None) -> dict[str, str]:
    """Return protocol → dotted name of its connector class.

    :param arch: machine name such as ``"x86_64"``; None for this machine's.
    """
    arch = arch or host_platform.machine()
    if arch in (initiator.S390, initiator.S390X):
        return dict(_MAPPING_S390)
    if arch in (initiator.PPC64, initiator.PPC64LE):
        return dict(_MAPPING_PPC64)
    return dict(_MAPPING_X86)


class InitiatorConnector:
    """Makes connectors."""

    @staticmethod
    def factory(
        protocol: str,
        root_helper: str | None,
        driver: Any = None,
        use_multipath: bool = False,
        device_scan_attempts: int = initiator.DEVICE_SCAN_ATTEMPTS_DEFAULT,
        arch: str | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Return a connector for a protocol.

        :param protocol: its name in any letter case, such as ``"iscsi"``.
        :param arch: machine name; None for this machine's.
        :raises InvalidConnectorProtocol: there is none on this architecture, or no more.
        """
        name = protocol.upper()
        path = get_connector_mapping(arch).get(name)
        found = _load(path) if path else None
        if found is None:
            raise exception.InvalidConnectorProtocol(_no_connector(protocol))
        kwargs.update(
            root_helper=root_helper,
            driver=driver,
            use_multipath=use_multipath,
            device_scan_attempts=device_scan_attempts,
        )
        if name in _MOUNTED:
            kwargs.setdefault("mount_type", name.lower())
        elif name == initiator.ISER:
            kwargs["transport"] = "iser"
        return found(*args, **kwargs)


def _no_connector(protocol: str) -> str:
    text = _("Invalid InitiatorConnector protocol specified %(protocol)s") % {"protocol": protocol}
    retired = RETIRED.get(protocol.upper())
    if retired:
        reason = _("the connector of %(what)s was retired")
        text = f"{text}: {reason % {'what': retired}}"
    return text


def get_connector_properties(
    root_helper: str | None,
    my_ip: str | None,
    multipath: bool,
    enforce_multipath: bool,
    host: str | None = None,
    execute: Any = None,
) -> dict[str, Any]:
    """Return what storage has to know to export a volume to this host: plain data, ready for JSON.

    :param my_ip: address of this host, handed through as ``ip``.
    :param multipath: whether the caller wants multipath; handed through.
    :param enforce_multipath: whether an attach without multipath must fail; handed through.
    :param host: name of this host; None for the system's.
    :returns: the keys ``platform``, ``os_type``, ``ip``, ``host``, ``multipath``,
        ``enforce_multipath``, and those of each protocol that this host can do, such as
        ``initiator``. A probe that fails or hangs costs its keys and a warning.
    """
    from os_brick.initiator import host_properties  # with the first connector that is loaded

    properties: dict[str, Any] = {
        "platform": host_platform.machine(),
        "os_type": sys.platform,
        "ip": my_ip,
        "host": host if host else socket.gethostname(),
    }
    classes = [found for found in map(_load, unix_connector_list) if found is not None]
    properties.update(
        host_properties.collect(
            classes,
            properties["platform"],
            properties["os_type"],
            root_helper,
            host=host,
            multipath=multipath,
            enforce_multipath=enforce_multipath,
            execute=execute,
        )
    )
    return properties
