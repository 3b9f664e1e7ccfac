# SPDX-License-Identifier: Apache-2.0
"""Portals and backends of NVMe-oF that are late: paths that come during the detach, controllers
that show before they are made, name services that hang."""

from __future__ import annotations

from typing import Any

import pytest

from os_brick import exception
from os_brick.testing import FakeHost
from os_brick.testing.nvme_storage import INACCESSIBLE
from os_brick.tests.unit.initiator.connectors.iscsi_helpers import side_by_side
from os_brick.tests.unit.initiator.connectors.nvme_helpers import connector, controllers

SETTLE_S = 400


# -- without multipath, the first portal is inaccessible by ANA
@pytest.mark.parametrize("connected", [False, True])
def test_without_multipath_an_inaccessible_portal_gives_the_next_its_turn(
    fake_host: FakeHost, connected: bool
) -> None:
    subsystem = fake_host.nvme_subsystem(portals=2)
    other, volume = subsystem.namespace(), subsystem.namespace()
    subsystem.ana = {(0, volume.nsid): INACCESSIBLE}
    one = connector(fake_host, use_multipath=False)
    if connected:
        one.connect_volume(other.properties)
    began = fake_host.now
    info = one.connect_volume(volume.properties)
    assert fake_host.now - began < 20
    one.disconnect_volume(volume.properties, info)
    if connected:
        one.disconnect_volume(other.properties, None)


# -- a connect that was stopped, whose controller shows while the kernel makes it
@pytest.mark.parametrize("portals", [1, 2])
def test_a_stopped_connect_whose_controller_shows_while_it_is_made(
    fake_host: FakeHost, portals: int
) -> None:
    """As in Linux: nvme_tcp_create_ctrl makes the device first (nvme_init_ctrl), in state
    "connecting", and only then talks to the portal."""
    volume = fake_host.nvme_subsystem(portals=portals).namespace()
    fake_host.remember()
    fake_host.nvme.shows_early = True
    fake_host.nvme.connect_s = 120
    with pytest.raises(exception.VolumeDeviceNotFound):
        connector(fake_host).connect_volume(volume.properties)
    fake_host.pass_time(900)
    assert fake_host.leftovers() == []


# -- a controller that we made and that loses its portal at once
def test_a_controller_that_is_in_trouble_as_soon_as_it_is_made_is_no_leftover(
    fake_host: FakeHost,
) -> None:
    subsystem = fake_host.nvme_subsystem()
    volume = subsystem.namespace()
    fake_host.remember()
    real = fake_host.nvme.add

    def add(*words: Any, **more: Any) -> Any:
        made = real(*words, **more)
        fake_host.nvme.set_state(made, "connecting")
        return made

    fake_host.nvme.add = add  # type: ignore[method-assign]
    with pytest.raises(exception.VolumeDeviceNotFound):
        connector(fake_host).connect_volume(volume.properties)
    fake_host.pass_time(SETTLE_S)
    assert fake_host.leftovers() == []


# -- a path that comes up while the volume is detached
@pytest.mark.parametrize("at_s", [19.6, 19.9, 19.95, 19.96, 19.97, 19.98, 19.99, 20.0, 20.01])
def test_a_path_that_comes_during_the_detach_does_not_keep_the_volume(
    fake_host: FakeHost, at_s: float
) -> None:
    volume = fake_host.nvme_subsystem(portals=2).namespace()
    fake_host.remember()
    fake_host.faults.slow("nvme", "connect", "10.0.1.2", seconds=20, times=1)
    fake_host.faults.slow("sync", seconds=0.5)
    one = connector(fake_host)
    info = one.connect_volume(volume.properties)
    fake_host.pass_time(at_s - fake_host.now)
    one.disconnect_volume(volume.properties, info)
    fake_host.pass_time(SETTLE_S)
    assert fake_host.leftovers() == []


# -- the controller is left to who attaches; the backend unmaps a moment after
@pytest.mark.parametrize("unmap_s", [0, 1, 20])
def test_a_controller_left_to_an_attach_that_fails_goes_when_the_volume_is_unmapped(
    fake_host: FakeHost, unmap_s: float
) -> None:
    subsystem = fake_host.nvme_subsystem()
    volume, missing = subsystem.namespace(), subsystem.namespace(mapped=False)
    one = connector(fake_host)
    short = connector(fake_host, device_scan_attempts=1)
    fake_host.remember()
    info = one.connect_volume(volume.properties)

    def attach() -> None:
        with pytest.raises(exception.VolumeDeviceNotFound):
            short.connect_volume(missing.properties)

    def detach() -> None:
        fake_host.pass_time(2)
        one.disconnect_volume(volume.properties, info)
        fake_host.after(unmap_s, volume.vanish)

    ends = side_by_side(fake_host, attach, detach)
    assert ends == [None, None]
    fake_host.pass_time(SETTLE_S)
    assert controllers(fake_host) == []


# -- a name service that hangs
def test_a_name_service_that_hangs_costs_only_the_portals_with_names(
    fake_host: FakeHost,
) -> None:
    subsystem = fake_host.nvme_subsystem(portals=2)
    volume = subsystem.namespace()
    one = connector(fake_host)
    properties = volume.properties
    properties["portals"] = [["array.example.org", 4420, "tcp"], *properties["portals"]]

    def hang(name: str) -> list[str]:
        fake_host.pass_time(300)
        return []

    fake_host.network.addresses = hang  # type: ignore[method-assign]
    info = one.connect_volume(properties)
    one.disconnect_volume(properties, info, force=True)
    assert fake_host.leftovers() == []


def test_a_volume_is_detached_while_the_name_service_hangs(fake_host: FakeHost) -> None:
    subsystem = fake_host.nvme_subsystem()
    volume = subsystem.namespace()
    one = connector(fake_host)
    fake_host.network.names["array.example.org"] = [subsystem.portals[0].address]
    properties = volume.properties
    properties["portals"] = [["array.example.org", 4420, "tcp"]]
    info = one.connect_volume(properties)

    def hang(name: str) -> list[str]:
        fake_host.pass_time(300)
        return []

    fake_host.network.addresses = hang  # type: ignore[method-assign]
    one.disconnect_volume(properties, info)
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("sync_s", [0.0, 0.3, 1.5])
@pytest.mark.parametrize("step", range(0, 24, 3))
def test_late_paths_keep_nothing_and_take_nothing(
    fake_host: FakeHost, step: int, sync_s: float
) -> None:
    """Two late paths, and a neighbour that attaches meanwhile."""
    subsystem = fake_host.nvme_subsystem(portals=3)
    volume, other = subsystem.namespace(), subsystem.namespace()
    fake_host.remember()
    fake_host.faults.slow("nvme", "connect", "10.0.1.2", seconds=20, times=1)
    fake_host.faults.slow("nvme", "connect", "10.0.1.3", seconds=20.1, times=1)
    fake_host.faults.slow("sync", seconds=sync_s)
    one = connector(fake_host)
    info = one.connect_volume(volume.properties)
    fake_host.pass_time(19.0 - sync_s + step * 0.05 - fake_host.now)
    if step % 2:
        other.vanish()
        fake_host.pass_time(0.02)
        one.disconnect_volume(volume.properties, info)
        volume.vanish()
    else:
        infos: list[Any] = []

        def detach() -> None:
            one.disconnect_volume(volume.properties, info)
            volume.vanish()

        ends = side_by_side(
            fake_host, detach, lambda: infos.append(one.connect_volume(other.properties))
        )
        assert ends == [None, None]
        fake_host.write(infos[0]["path"], b"data")
        fake_host.pass_time(100)
        assert fake_host.lost == []
        assert fake_host.device(infos[0]["path"]).storage()[1] is other.unit
        one.disconnect_volume(other.properties, infos[0])
    fake_host.pass_time(400)
    assert controllers(fake_host) == []
