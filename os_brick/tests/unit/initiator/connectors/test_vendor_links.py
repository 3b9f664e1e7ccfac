# SPDX-License-Identifier: Apache-2.0
"""Links of ScaleIO and StorPool that udev has not come to: they lead to another volume."""

from __future__ import annotations

from typing import Any

from os_brick.initiator.linux import nodes
from os_brick.testing import FakeHost
from os_brick.testing.vendor_disk import VendorDisk
from os_brick.tests.unit.initiator.connectors import test_scaleio, test_storpool

OTHER = "/dev/disk/by-id/emc-vol-5d9af0e11a2b3c4d-a1b2c3d400000099"


def udev_is_behind(host: FakeHost, link: str, stale: str, right: str) -> None:
    """A link of an earlier mapping leads to a name that is another volume's by now; a second later
    udev has come to it."""
    world = host._world
    world.run.write("udev/queue", "")
    world.dev.link(link.removeprefix("/dev/"), stale)

    def handle() -> None:
        world.dev.link(link.removeprefix("/dev/"), right)
        world.run.remove("udev/queue")

    host.after(1.0, handle)


def test_a_link_of_scaleio_that_udev_has_not_come_to(fake_host: FakeHost) -> None:
    VendorDisk.appear(fake_host, "scinia", [OTHER])  # had been our volume's name
    VendorDisk.appear(fake_host, "scinib")
    udev_is_behind(fake_host, test_scaleio.LINK, "scinia", "scinib")
    connector = fake_host.connector("SCALEIO")
    info = connector.connect_volume(test_scaleio.managed())
    assert nodes.kernel_name(fake_host.host, info["path"]) == "scinib"


def test_scaleio_with_a_udev_that_never_ends(fake_host: FakeHost) -> None:
    VendorDisk.appear(fake_host, "scinia", [test_scaleio.LINK])
    fake_host._world.run.write("udev/queue", "")
    connector = fake_host.connector("SCALEIO")
    assert connector.connect_volume(test_scaleio.managed())["path"] == test_scaleio.LINK


cluster = test_storpool.cluster
conf = test_storpool.conf
connector = test_storpool.connector


def test_a_link_of_storpool_that_udev_has_not_come_to(
    fake_host: FakeHost, connector: Any, cluster: Any
) -> None:
    def appear(volume: Any) -> None:
        VendorDisk.appear(fake_host, "sp-1")
        udev_is_behind(fake_host, test_storpool.PATH, "sp-0", "sp-1")

    VendorDisk.appear(fake_host, "sp-0")
    cluster.when_attached = appear
    info = connector.connect_volume(test_storpool.PROPERTIES)
    assert nodes.kernel_name(fake_host.host, info["path"]) == "sp-1"
    cluster.when_detached = lambda volume: None
