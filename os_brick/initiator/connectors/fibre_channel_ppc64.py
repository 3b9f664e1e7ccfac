# SPDX-License-Identifier: Apache-2.0
"""Fibre Channel on POWER: virtual adapters, and udev's names of their paths."""

from __future__ import annotations

from typing import Any

from os_brick import executor, initiator
from os_brick.initiator.connectors import fibre_channel
from os_brick.initiator.linux import fc_links
from os_brick.initiator.linux.fc import Hba
from os_brick.initiator.linux.fc_volume import FcTarget


class FibreChannelConnectorPPC64(fibre_channel.FibreChannelConnector):
    """Attaches Fibre Channel volumes on POWER."""

    platform = initiator.PLATFORM_PPC64

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

    def _link_names(self, hba: Hba, target: FcTarget) -> list[str]:
        return fc_links.vio_names(hba, target)
