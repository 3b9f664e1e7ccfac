# SPDX-License-Identifier: Apache-2.0
"""Ports that come, go and come back, and that number the LUN each in its own way."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from os_brick import exception
from os_brick.testing import FakeHost
from os_brick.tests.unit.initiator.connectors.fc_helpers import attached, prepared
from os_brick.tests.unit.initiator.connectors.test_fc_changes import only_map, see
from os_brick.tests.unit.initiator.connectors.test_fc_platforms import connector_of, on_ibm_z

BOTH = pytest.mark.parametrize("multipath", [False, True])


@pytest.mark.parametrize("told", ["info", "used", "name"])
@pytest.mark.parametrize("friendly", [False, True])
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("ports", [1, 2])
def test_paths_that_come_back_to_an_empty_map_during_its_detach_go_too(
    fake_host: FakeHost, ports: int, force: bool, friendly: bool, told: str
) -> None:
    """All ports were away for so long that the kernel has removed every disk; the map has queued
    data. They are back while the detach waits for the write-out."""
    fake_host.multipathd.user_friendly_names = friendly
    fake_host.multipathd.no_path_retry = "queue"
    connector, volume, info = attached(fake_host, multipath=True, hbas=1, ports=ports)
    fake_host.pass_time(1)
    fake_host.write(info["path"], b"data")
    opening = fake_host.open(info["path"])
    for port in volume.array.ports:
        port.lose(dev_loss_s=60)
    fake_host.pass_time(100)
    assert fake_host.disks() == []
    opening.close()
    (over,) = fake_host.multipathd.maps()

    def back() -> None:
        for port in volume.array.ports:
            port.restore()

    fake_host.after(5, back)
    device_info: Any = {
        "info": info,
        "used": {"path": info["path"]},
        "name": {"path": f"/dev/mapper/{over.dm_name}"},
    }[told]
    if force:
        with contextlib.suppress(exception.ExceptionChainer):  # the data may be lost
            connector.disconnect_volume(volume.properties, device_info, force=True)
    else:
        connector.disconnect_volume(volume.properties, device_info)
        assert volume.data == b"data"
        assert fake_host.lost == []
    assert fake_host.leftovers() == []


@BOTH
def test_a_port_that_comes_while_the_others_are_tried_in_vain(
    fake_host: FakeHost, multipath: bool
) -> None:
    array = prepared(fake_host, hbas=1, ports=2)
    volume = array.lun(1)
    array.show([1, 7], None)  # hides the LUN at the first port
    array.ports[1].lose(dev_loss_s=3600)
    fake_host.after(1, array.ports[1].restore)
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=multipath)
    info = connector.connect_volume(volume.properties)
    assert info["scsi_wwn"] == volume.wwid


@pytest.mark.parametrize("back", [False, True])
def test_a_map_that_lives_by_a_port_that_is_not_named_under_another_lun(
    fake_host: FakeHost, back: bool
) -> None:
    fake_host.fc_hbas(1)
    volume = fake_host.fc_array(2, seen=False).lun([1, 9])
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    see(fake_host, volume.array)
    info = connector.connect_volume(volume.connection(ports=[0]))
    fake_host.pass_time(2)
    assert len(only_map(fake_host).slaves) == 2
    fake_host.write(info["path"], b"data")
    volume.array.ports[0].lose(dev_loss_s=60)
    fake_host.pass_time(100)
    assert len(fake_host.disks()) == 1
    if back:
        fake_host.multipathd.stop()
        volume.array.ports[0].restore()
        fake_host.pass_time(2)
        assert len(fake_host.disks()) == 2
    properties = volume.connection(ports=[0])
    connector.disconnect_volume(properties, info)
    assert volume.data == b"data"
    assert fake_host.lost == []


def test_the_zfcp_unit_of_a_port_that_is_away_goes_too(fake_host: FakeHost) -> None:
    volume = on_ibm_z(fake_host).lun(1)
    connector = connector_of(fake_host, "s390x")
    info = connector.connect_volume(volume.properties)
    volume.array.ports[0].lose(dev_loss_s=10)
    fake_host.pass_time(100)
    assert fake_host.disks() == []
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.zfcp.units() == []


def test_a_port_that_comes_while_the_disk_of_another_cannot_be_read(fake_host: FakeHost) -> None:
    fake_host.multipathd.stop()
    array = prepared(fake_host, hbas=1, ports=2)
    volume = array.lun(1)
    connector = fake_host.connector("FIBRE_CHANNEL")
    connector.connect_volume(volume.connection(ports=[0]))
    fake_host.pass_time(1)
    array.ports[0].lose(fast_io_fail_s=1, dev_loss_s=3600)
    array.ports[1].lose(dev_loss_s=3600)
    fake_host.pass_time(20)
    array.ports[0].restore()
    array.ports[0].silence()
    fake_host.after(3, array.ports[1].restore)
    info = connector.connect_volume(volume.properties)
    assert array.wwpns[1] in info["path"]
