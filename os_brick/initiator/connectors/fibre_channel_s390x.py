# SPDX-License-Identifier: Apache-2.0
"""Fibre Channel on IBM Z: units of the zfcp driver, and its names of paths."""

from __future__ import annotations

from typing import Any

from os_brick import executor, initiator
from os_brick.initiator.connectors import fibre_channel
from os_brick.initiator.linux import fc_links, fc_scan, zfcp
from os_brick.initiator.linux.fc import Hba
from os_brick.initiator.linux.fc_volume import FcTarget, FcVolume
from os_brick.initiator.linux.host import Host


class FibreChannelConnectorS390X(fibre_channel.FibreChannelConnector):
    """Attaches Fibre Channel volumes on IBM Z, where LUNs are found by themselves (NPIV) and where
    each has to be configured."""

    platform = initiator.PLATFORM_S390

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
            root_helper, driver, execute, use_multipath, device_scan_attempts, *args, **kwargs
        )

    def _parse(self, connection_properties: dict[str, Any]) -> FcVolume:
        return FcVolume.parse(connection_properties, zfcp.kernel_lun)

    def _scanner(self, host: Host) -> fc_scan.Scanner:
        return fc_scan.ZfcpScanner(host)

    def _link_names(self, hba: Hba, target: FcTarget) -> list[str]:
        return fc_links.ccw_names(hba, target)
