# SPDX-License-Identifier: Apache-2.0
"""What udev knows, and when what it shows of a device is of that very device."""

from __future__ import annotations

import os
import pathlib

import pytest

from os_brick.initiator.linux import fc_links, multipath, udev
from os_brick.initiator.linux.call import Call
from os_brick.testing import FakeHost
from os_brick.tests.unit.initiator.connectors import fc_helpers


class Records:
    """An attached map, and udev's records to be changed behind its back."""

    def __init__(self, host: FakeHost) -> None:
        self.host = host.host
        _connector, self.volume, info = fc_helpers.attached(host, multipath=True, hbas=2, ports=1)
        self.link = info["path"]
        host.pass_time(5)
        self.members = [disk.name for disk in host.disks()]
        one = multipath.read_map(self.host.sysfs, os.path.basename(os.path.realpath(self.place)))
        assert one is not None
        self.map = one

    @property
    def place(self) -> str:
        return self.host.dev.path(self.link.removeprefix("/dev/"))

    def since(self, name: str, microseconds: int | None) -> None:
        number = self.host.sysfs.text("block", name, "dev")
        file = pathlib.Path(self.host.run.path(f"udev/data/b{number}"))
        file.write_text("" if microseconds is None else f"I:{microseconds}\n")

    def queue(self, *, busy: bool) -> None:
        file = pathlib.Path(self.host.run.path("udev/queue"))
        if busy:
            file.touch()
        else:
            file.unlink()


@pytest.fixture
def records(fake_host: FakeHost) -> Records:
    return Records(fake_host)


@pytest.mark.parametrize(
    ("own", "below", "through"),
    [
        (7, (5, 6), True),
        (6, (5, 7), True),  # a path that joined later
        (4, (5, 6), False),  # the record of the last device of this number
        (None, (5, 6), False),
        (7, (None, None), False),
    ],
)
def test_a_record_older_than_what_is_below_is_another_device_s(
    records: Records, own: int | None, below: tuple[int | None, ...], through: bool
) -> None:
    records.since(records.map.name, own)
    for name, since in zip(records.members, below, strict=True):
        records.since(name, since)
    records.queue(busy=True)
    assert udev.is_through(records.host, records.map.name, records.members) is through


def test_with_no_event_left_all_is_as_it_will_be(records: Records) -> None:
    records.since(records.map.name, None)
    assert udev.is_through(records.host, records.map.name, records.members)


def test_a_link_that_a_late_event_made_is_waited_out(fake_host: FakeHost, records: Records) -> None:
    """udev takes it away again with the end of the device that had the number before."""
    target = os.readlink(records.place)
    records.since(records.map.name, 0)
    records.queue(busy=True)
    began = fake_host.now
    fake_host.after(1, lambda: os.unlink(records.place))

    def show() -> None:
        os.symlink(target, records.place)
        records.since(records.map.name, 10**9)

    fake_host.after(3, show)
    call = Call("test", records.host.clock, 60)
    assert fc_links.wait_for_map_link(records.host, call, records.map) == records.link
    assert fake_host.now - began >= 3


def test_a_udev_that_is_never_idle_holds_up_nobody_for_long(
    fake_host: FakeHost, records: Records
) -> None:
    records.since(records.map.name, 0)
    records.queue(busy=True)
    began = fake_host.now
    call = Call("test", records.host.clock, 60)
    assert fc_links.wait_for_map_link(records.host, call, records.map) == records.link
    assert fake_host.now - began < 15


def test_a_number_that_is_another_device_s_is_not_waited_for(records: Records) -> None:
    number = records.host.sysfs.text("block", records.map.name, "dev")
    assert udev.knows(records.host, number)
    assert not udev.knows_removed(records.host, number)
    pathlib.Path(records.host.run.path("udev/data/b254:99")).touch()
    assert udev.knows_removed(records.host, "254:99")
