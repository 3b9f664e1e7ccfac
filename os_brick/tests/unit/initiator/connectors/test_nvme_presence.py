# SPDX-License-Identifier: Apache-2.0
"""Finding what of a volume is here, when it is not where the connection says."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from os_brick import exception
from os_brick.testing import FakeHost
from os_brick.testing.nvme_storage import NvmeVolume, replicated
from os_brick.tests.unit.initiator.connectors.iscsi_helpers import side_by_side
from os_brick.tests.unit.initiator.connectors.nvme_helpers import connector, controllers, legs

WITH_PATH = pytest.mark.parametrize("with_path", [False, True])
OTHER_NQN = "nqn.2014-08.org.nvmexpress:uuid:7a1b2c3d-0000-4000-8000-0000000000ff\n"


def written(host: FakeHost, one: Any, properties: dict[str, Any]) -> dict[str, Any]:
    """Attach a volume, write to it and return the attach's result."""
    host.remember()
    info: dict[str, Any] = one.connect_volume(properties)
    host.write(info["path"], b"data")
    return info


def named(volume: NvmeVolume, *names: str) -> dict[str, Any]:
    """Return connection properties with the names of hosts as portals."""
    return volume.connection("uuid", portals=[[name, 4420, "tcp"] for name in names])


def no_names(host: FakeHost) -> None:
    """Have the name service be down."""

    def fail(name: str) -> list[str]:
        raise OSError(errno.EAGAIN, "Temporary failure in name resolution")

    host.network.addresses = fail  # type: ignore[method-assign]


# -- portals -------------------------------------------------------------------------------
@WITH_PATH
@pytest.mark.parametrize("multipath", [False, True])
def test_other_portals_than_at_the_attach(
    fake_host: FakeHost, multipath: bool, with_path: bool
) -> None:
    """Services refresh connections: those of an array may change while a volume is attached."""
    volume = fake_host.nvme_subsystem(portals=3).namespace()
    one = connector(fake_host, use_multipath=multipath)
    before = volume.properties["portals"]
    info = written(fake_host, one, volume.connection("uuid", portals=before[:2]))
    now = volume.connection("uuid", portals=before[2:])
    one.disconnect_volume(now, info if with_path else None)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


def test_some_of_the_portals_of_the_attach(fake_host: FakeHost) -> None:
    volume = fake_host.nvme_subsystem(portals=2).namespace()
    one = connector(fake_host)
    info = written(fake_host, one, volume.properties)
    fewer = volume.connection("uuid", portals=volume.properties["portals"][:1])
    one.disconnect_volume(fewer, info)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


def test_the_new_size_by_other_portals(fake_host: FakeHost) -> None:
    volume = fake_host.nvme_subsystem(portals=2).namespace()
    before = volume.properties["portals"]
    one = connector(fake_host)
    path = one.connect_volume(volume.connection("uuid", portals=before[:1]))["path"]
    volume.grow(3 * 1024**3)
    now = volume.connection("uuid", portals=before[1:])
    assert one.get_volume_paths(now) == [path]
    assert one.extend_volume(now) == 3 * 1024**3


def test_a_controller_that_others_attach_through_is_left_to_them(fake_host: FakeHost) -> None:
    """It is not one of the connection's portals, but its locks are those of its own."""
    subsystem = fake_host.nvme_subsystem(portals=2)
    volume, coming = subsystem.namespace(), subsystem.namespace(mapped=False)
    before = volume.properties["portals"]
    one = connector(fake_host)
    info = written(fake_host, one, volume.connection("uuid", portals=before[:1]))

    def detach() -> None:
        fake_host.pass_time(1)
        one.disconnect_volume(volume.connection("uuid", portals=before[1:]), info)
        fake_host.pass_time(1)
        coming.map()

    attach = coming.connection("uuid", portals=before[:1])
    side_by_side(fake_host, lambda: one.connect_volume(attach), detach)
    assert volume.data == b"data"
    assert controllers(fake_host) == ["nvme0"]


def test_an_address_that_cannot_be_read(fake_host: FakeHost) -> None:
    volume = fake_host.nvme_subsystem().namespace()
    one = connector(fake_host)
    info = written(fake_host, one, volume.properties)
    fake_host.faults.unreadable("sys/class/nvme-fabrics/ctl/nvme0/address", errno.EIO)
    one.disconnect_volume(volume.properties, info)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


# -- names of this host --------------------------------------------------------------------
@pytest.mark.parametrize("foreign", [False, True])
def test_another_name_of_this_host_than_at_the_attach(fake_host: FakeHost, foreign: bool) -> None:
    volume = fake_host.nvme_subsystem(portals=2).namespace()
    one = connector(fake_host, foreign=foreign)
    info = written(fake_host, one, volume.properties)
    fake_host.nvme_identity.files["hostnqn"] = OTHER_NQN
    one.disconnect_volume(volume.properties, info)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


def test_another_name_of_this_host_than_at_the_attach_of_an_array(fake_host: FakeHost) -> None:
    both = legs(fake_host)
    one = connector(fake_host)
    properties = replicated("vol-1", both)
    info = written(fake_host, one, properties)
    fake_host.nvme_identity.files["hostnqn"] = OTHER_NQN
    one.disconnect_volume(properties, info)
    assert b"data" in (both[0].data, both[1].data)
    assert fake_host.md.arrays == []
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("native", [False, True])
def test_what_another_name_has_is_not_taken_without_a_device(
    fake_host: FakeHost, native: bool
) -> None:
    """Somebody else on this machine may have the volume, under a name of his."""
    fake_host.nvme.native_multipath = native
    subsystem = fake_host.nvme_subsystem(portals=2)
    volume = subsystem.namespace()
    fake_host.nvme.add(subsystem, 0, "nqn.other-host", "other")
    fake_host.pass_time(1)
    connector(fake_host).disconnect_volume(volume.properties, None)
    assert controllers(fake_host) == ["nvme0"]


def test_the_same_disk_under_another_name_is_not_taken_with_ours(fake_host: FakeHost) -> None:
    """With native multipath one disk goes over the controllers of all names."""
    subsystem = fake_host.nvme_subsystem(portals=2)
    volume = subsystem.namespace()
    fake_host.nvme.add(subsystem, 0, "nqn.other-host", "other")
    fake_host.pass_time(1)
    before = volume.properties["portals"]
    one = connector(fake_host)
    info = written(fake_host, one, volume.connection("uuid", portals=before[:1]))
    one.disconnect_volume(volume.connection("uuid", portals=before[1:]), info)
    assert volume.data == b"data"
    assert controllers(fake_host) == ["nvme0"]


# -- names of portals ----------------------------------------------------------------------
@WITH_PATH
@pytest.mark.parametrize("what", ["elsewhere", "nowhere", "down"])
@pytest.mark.parametrize("force", [False, True])
def test_a_portals_name_that_leads_elsewhere_or_nowhere(
    fake_host: FakeHost, what: str, force: bool, with_path: bool
) -> None:
    volume = fake_host.nvme_subsystem(portals=["10.0.1.2"]).namespace()
    fake_host.network.names = {"a.example": ["10.0.1.2"], "b.example": ["10.0.1.9"]}
    one = connector(fake_host)
    properties = named(volume, "a.example", "b.example")
    info = written(fake_host, one, properties)
    fake_host.pass_time(100)
    if what == "elsewhere":
        fake_host.network.names["a.example"] = ["10.0.1.77"]
    elif what == "nowhere":
        del fake_host.network.names["a.example"]
    else:
        no_names(fake_host)
    one.disconnect_volume(properties, info if with_path else None, force=force)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


def test_without_its_portals_nothing_found_is_no_answer(fake_host: FakeHost) -> None:
    """The subsystem is connected, and which of its controllers are the volume's is not known."""
    subsystem = fake_host.nvme_subsystem(portals=["10.0.1.2"], connected=True)
    volume = subsystem.namespace(mapped=False)
    no_names(fake_host)
    one = connector(fake_host)
    properties = named(volume, "a.example")
    with pytest.raises(exception.TargetPortalNotFound, match=r"a\.example"):
        one.disconnect_volume(properties, None)
    with pytest.raises(exception.TargetPortalNotFound, match=r"a\.example"):
        one.extend_volume(properties)
    with pytest.raises(exception.TargetPortalNotFound, match=r"a\.example"):
        one.get_volume_paths(properties)
    with pytest.raises(exception.ExceptionChainer, match=r"a\.example"):
        one.disconnect_volume(properties, None, force=True)
    one.disconnect_volume(properties, None, force=True, ignore_errors=True)


def test_without_its_portals_a_subsystem_that_is_not_here_is_detached(fake_host: FakeHost) -> None:
    """After a reboot of the host."""
    volume = fake_host.nvme_subsystem().namespace()
    no_names(fake_host)
    connector(fake_host).disconnect_volume(named(volume, "a.example"), {"path": "/dev/nvme2n1"})
