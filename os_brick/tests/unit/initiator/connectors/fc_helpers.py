# SPDX-License-Identifier: Apache-2.0
"""What the tests of Fibre Channel volumes have in common."""

from __future__ import annotations

from typing import Any

from os_brick.testing import FakeHost
from os_brick.testing.fc_storage import FcArray, FcVolume


def prepared(host: FakeHost, *, hbas: int = 2, ports: int = 2) -> FcArray:
    """Return an array all of whose ports are seen by all ports of the host."""
    host.fc_hbas(hbas)
    return host.fc_array(ports)


def attached(
    host: FakeHost, *, multipath: bool, hbas: int = 2, ports: int = 2, **unit: Any
) -> tuple[Any, FcVolume, dict[str, Any]]:
    """Return a connector, a volume that is attached by it, and what the attach returned."""
    volume = prepared(host, hbas=hbas, ports=ports).lun(1, **unit)
    connector = host.connector("FIBRE_CHANNEL", use_multipath=multipath)
    return connector, volume, connector.connect_volume(volume.properties)


def scans(host: FakeHost) -> list[str]:
    """Return the writes to ``scan`` files, sorted: ports are scanned side by side."""
    return sorted(f"{one.what} {one.text}" for one in host.changes if one.kind == "scan")


def map_link(volume: FcVolume) -> str:
    """Return the path by which a map is handed out."""
    return f"/dev/disk/by-id/dm-uuid-mpath-{volume.wwid}"
