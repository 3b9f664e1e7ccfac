# SPDX-License-Identifier: Apache-2.0
"""Images that the kernel has mapped."""

from __future__ import annotations

import json

import pytest
from oslo_concurrency import processutils

from os_brick.initiator.linux import rbd_kernel
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.rbd_kernel import Mapping
from os_brick.initiator.linux.rbd_volume import RbdImage
from os_brick.testing import FakeHost


def make_call(host: FakeHost) -> Call:
    return Call("a test", host.host.clock, 600)


def test_sysfs_tells_pool_namespace_name_and_snapshot(fake_host: FakeHost) -> None:
    ceph = fake_host.ceph
    ceph.map(ceph.image("a", pool="one"))
    ceph.map(ceph.image("a", pool="two", namespace="space"))
    ceph.map(ceph.images[0], snapshot="snap")
    assert [one.image for one in rbd_kernel.read_mappings(fake_host.host.sysfs)] == [
        RbdImage("one", "a"),
        RbdImage("two", "a", "space"),
        RbdImage("one", "a", snapshot="snap"),
    ]


@pytest.mark.parametrize(
    ("pool", "namespace", "snapshot"),
    [("two", "", "-"), ("one", "space", "-"), ("one", "", "snap")],
)
def test_another_image_of_the_same_name_is_another(
    fake_host: FakeHost, pool: str, namespace: str, snapshot: str
) -> None:
    ceph = fake_host.ceph
    ceph.map(ceph.image("a", pool=pool, namespace=namespace), snapshot=snapshot)
    mine = ceph.map(ceph.image("a", pool="one"))
    call = make_call(fake_host)
    found = rbd_kernel.find(fake_host.host, call, RbdImage("one", "a"), ())
    assert [one.name for one in found] == [mine.name]
    assert fake_host.started == []


def test_a_later_mapping_of_a_number_is_another(fake_host: FakeHost) -> None:
    ceph, sysfs = fake_host.ceph, fake_host.host.sysfs
    device = ceph.map(ceph.image("a"))
    (first,) = rbd_kernel.read_mappings(sysfs)
    assert rbd_kernel.is_there(sysfs, first)
    ceph.unmap(device)
    assert not rbd_kernel.is_there(sysfs, first)
    ceph.map(ceph.images[0])
    assert not rbd_kernel.is_there(sysfs, first)


def test_a_mapping_that_goes_while_it_is_looked_at_is_none(fake_host: FakeHost) -> None:
    fake_host.ceph.load_driver()
    fake_host.ceph.world.sys.write("devices/rbd/3/pool", "")
    fake_host.ceph.world.sys.link("bus/rbd/devices/3", "devices/rbd/3")
    assert rbd_kernel.read_mappings(fake_host.host.sysfs) == []


def test_what_cannot_be_looked_at_is_no_absence(fake_host: FakeHost) -> None:
    fake_host.ceph.load_driver()
    fake_host.faults.unreadable("sys/bus/rbd/devices")
    with pytest.raises(OSError, match="denied"):
        rbd_kernel.find(fake_host.host, make_call(fake_host), RbdImage("p", "a"), ())


LIST = [
    {"id": "0", "pool": "p", "namespace": "", "name": "a", "snap": "-", "device": "/dev/rbd0"},
    {"id": "1", "pool": "p", "namespace": "n", "name": "a", "snap": "s", "device": "/dev/rbd1"},
]
BY_ID = {"7": {"pool": "p", "name": "a", "snap": "-", "device": "/dev/rbd7"}}


def test_both_shapes_of_the_listing() -> None:
    assert rbd_kernel.parse_listing(json.dumps(LIST)) == [
        Mapping(0, RbdImage("p", "a")),
        Mapping(1, RbdImage("p", "a", "n", "s")),
    ]
    assert rbd_kernel.parse_listing(json.dumps(BY_ID)) == [Mapping(7, RbdImage("p", "a"))]


@pytest.mark.parametrize("text", ["", "\n", "[]", "{}", '[{"device": "/dev/nbd0"}]'])
def test_an_empty_listing(text: str) -> None:
    assert rbd_kernel.parse_listing(text) == []


def test_the_program_is_asked_where_sysfs_shows_no_driver(fake_host: FakeHost) -> None:
    fake_host.faults.fail("rbd", "showmapped", code=0, out=json.dumps(LIST))
    call = make_call(fake_host)
    found = rbd_kernel.find(fake_host.host, call, RbdImage("p", "a"), ("--id", "u"))
    assert found == [Mapping(0, RbdImage("p", "a"))]
    assert fake_host.started == [("rbd", "showmapped", "--format=json", "--id", "u")]


def test_a_program_that_fails_is_no_absence(fake_host: FakeHost) -> None:
    fake_host.faults.fail("rbd", "showmapped", code=1, err="rbd: no")
    with pytest.raises(processutils.ProcessExecutionError, match="rbd: no"):
        rbd_kernel.find(fake_host.host, make_call(fake_host), RbdImage("p", "a"), ())


@pytest.mark.parametrize(
    ("text", "number"),
    [("/dev/rbd0\n", 0), ("a warning\n/dev/rbd12\n", 12), ("", None), ("/dev/rbdx", None)],
)
def test_what_map_prints(text: str, number: int | None) -> None:
    assert rbd_kernel.parse_device(text) == number


def test_the_size_is_the_drivers_own(fake_host: FakeHost) -> None:
    image = fake_host.ceph.image("a")
    fake_host.ceph.map(image)
    image.grow(5 << 20)
    (mapping,) = rbd_kernel.read_mappings(fake_host.host.sysfs)
    assert rbd_kernel.read_size(fake_host.host.sysfs, mapping) == 5 << 20
