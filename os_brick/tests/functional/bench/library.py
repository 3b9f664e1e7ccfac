# SPDX-License-Identifier: Apache-2.0
"""A library under measurement, ours or the peer: both have the name ``os_brick``.

Which of them it is depends on the interpreter that this runs in.  Only calls that services make
are made, in the same way for both: see ``guest.service``.
"""

from __future__ import annotations

import copy
import importlib.metadata
import logging
import pathlib
from typing import Any

import os_brick

from ..guest import kernel, service

#: Where our library tells the steps of each call; the peer has no such logger.
_TIMELINES = "os_brick.initiator.linux.call"


class Library:
    """The connectors of a service, set up once and used by all its threads."""

    def __init__(self, log: str) -> None:
        service.log_to(pathlib.Path(log))
        # As services run; what a library formats below that level is its own affair.
        logging.getLogger().setLevel(logging.INFO)
        service.set_up()
        service.as_root()
        # As services do before they attach anything. The peer keeps for good what it learns here,
        # such as whether the kernel has multipath of its own for NVMe.
        kernel.load("nvme_core")
        service.host_properties()
        self._timelines = _Timelines()
        logging.getLogger(_TIMELINES).addHandler(self._timelines)
        self._services = {
            (protocol, several): service.Service(protocol, multipath=several)
            for protocol in ("ISCSI", "NVMEOF", "FIBRE_CHANNEL")
            for several in (False, True)
        }
        self._infos: dict[str, dict[str, Any]] = {}

    def about(self) -> dict[str, str]:
        """Say which library this is: its version and its file."""
        try:
            version = importlib.metadata.version("os-brick")
        except importlib.metadata.PackageNotFoundError:
            version = "not installed"
        return {"version": version, "file": str(os_brick.__file__)}

    def attach(self, name: str, properties: dict[str, Any]) -> str:
        """Attach a volume and return its device."""
        connector = self._connector(properties)
        # A copy, since the peer may change what it is given.
        info = connector.connect_volume(copy.deepcopy(properties))
        self._infos[name] = info
        return str(info["path"])

    def detach(self, name: str, properties: dict[str, Any]) -> None:
        """Detach a volume."""
        connector = self._connector(properties)
        connector.disconnect_volume(
            copy.deepcopy(properties), self._infos.pop(name), force=False, ignore_errors=False
        )

    def extend(self, name: str, properties: dict[str, Any]) -> str:
        """Learn a volume's new size and return it in bytes."""
        used = copy.deepcopy(properties) | {"device_path": self._infos[name]["path"]}
        return str(self._connector(properties).extend_volume(used))

    def _connector(self, properties: dict[str, Any]) -> Any:
        """Return the connector for a volume: of its protocol, with multipath for two ways."""
        if "target_nqn" in properties:
            return self._services["NVMEOF", len(properties["portals"]) > 1].connector
        if "target_wwn" in properties:
            return self._services["FIBRE_CHANNEL", len(properties["target_wwn"]) > 1].connector
        return self._services["ISCSI", "target_portals" in properties].connector

    def told(self) -> list[str]:
        """Return the timelines of the calls since the last question."""
        return self._timelines.take()


class _Timelines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        self._lines.append(record.getMessage())

    def take(self) -> list[str]:
        """Return what was kept and keep it no longer."""
        lines, self._lines = self._lines, []
        return lines
