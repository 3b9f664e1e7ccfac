# SPDX-License-Identifier: Apache-2.0
"""Encrypted volumes on iSCSI multipath: opened, written, closed, opened again, extended."""

from __future__ import annotations

import os

from ..guest import data, host_state, kernel, programs, service, udev
from ..guest.encryption import MAGIC, Encrypted, make_on_array
from ..guest.lab import MIB, Lab
from . import SMOKE_S, scenario

#: Hashing a passphrase is made to take seconds, by a machine that is many times slower.
LONG_S = 420


@scenario(
    "LUKS1: attach, write, detach, attach again, read; no clear text",
    limit_s=SMOKE_S,
    groups=["smoke"],
)
def luks_luks1(lab: Lab) -> None:
    """A new volume is formatted at its first use only."""
    _written_and_read_again(lab, "luks")


@scenario("LUKS2: attach, write, detach, attach again, read; no clear text", limit_s=LONG_S)
def luks_luks2(lab: Lab) -> None:
    """A new volume is formatted at its first use only."""
    _written_and_read_again(lab, "luks2")


@scenario("plain: attach, write, detach, attach again, read; no clear text", limit_s=LONG_S)
def luks_plain(lab: Lab) -> None:
    """There is no header, so a wrong key is not noticed."""
    _written_and_read_again(lab, "plain")


def _written_and_read_again(lab: Lab, provider: str) -> None:
    one = Encrypted(lab, provider)
    clear = one.pattern()
    one.connect()
    before = os.readlink(one.link)
    with programs.counted() as started, lab.timed("first open"):
        one.open()
    one.expect_secret([each.argv for each in started])
    data.write(one.link, clear, 8 * MIB)
    assert data.read(one.link, len(clear), 8 * MIB) == clear
    assert data.size(one.link) == one.volume.size - one.offset()
    one.close()
    assert os.readlink(one.link) == before, "the link is not as it was found"
    one.disconnect()
    one.expect_no_clear_text(clear)
    header = one.header()
    assert header.startswith(MAGIC) is (provider != "plain")
    one.connect()
    with programs.counted() as started, lab.timed("open again"):
        one.open()
    names = [str(each) for each in started if each.name in ("cryptsetup", "blkid", "dd")]
    assert len(names) == (2 if provider == "plain" else 1), names
    assert data.read(one.link, len(clear), 8 * MIB) == clear
    assert one.header() == header, "the header was written anew"
    one.detach()
    one.expect_secret()


@scenario("LUKS1 and LUKS2: a volume grows while it is open and in use", limit_s=LONG_S)
def luks_extend(lab: Lab) -> None:
    """The size that comes back is that of what is decrypted."""
    for provider, version in (("luks", "luks1"), ("luks2", "luks2")):
        one = Encrypted(lab, provider)
        make_on_array(one.volume, version=version)
        one.attach()
        clear = one.pattern()
        data.write(one.link, clear, 8 * MIB)
        with open(one.link, "rb", buffering=0):  # somebody has it open meanwhile
            one.volume.grow(96 * MIB)
            used = {**one.given, "device_path": one.link}
            assert one.host.extend(used) == 96 * MIB
            size = one.extend()
            assert size == 96 * MIB - one.offset(), size
            assert data.size(one.link) == size
            assert one.extend() == size, "a resize that changes nothing is success"
        data.write(one.link, clear, size - len(clear))
        assert data.read(one.link, len(clear), size - len(clear)) == clear
        assert data.read(one.link, len(clear), 8 * MIB) == clear
        one.detach()
        one.expect_no_clear_text(clear)
        one.expect_secret()


@scenario("opened twice, and by several at once: one mapping, one format", limit_s=LONG_S)
def luks_open_twice(lab: Lab) -> None:
    """Opening what is open is success, and so is closing what is closed."""
    one = Encrypted(lab, "luks")
    one.connect()
    one.close()  # never opened
    lab.side_by_side([one.open] * 3)
    assert lab.log().count("Formatting /dev/dm-") == 1
    clear = one.pattern()
    data.write(one.link, clear, MIB)
    one.open()
    assert data.read(one.link, len(clear), MIB) == clear
    lab.side_by_side([one.close] * 3)
    one.close()
    one.disconnect()
    one.encryptor().detach_volume(**one.metadata)  # not even connected any more


@scenario(
    "a service that is killed while it opens leaves nothing that stops the next", limit_s=LONG_S
)
def luks_killed(lab: Lab) -> None:
    """Killed as soon as the mapping is there, before its link is made or just after."""
    from ..guest import faults

    one = Encrypted(lab, "luks2")
    make_on_array(one.volume, version="luks2")
    one.connect()
    killed = faults.run_and_kill(one.open, one.mapping, 120)
    assert killed, "the call had ended before"
    kernel.wait_for(lambda: os.path.exists(f"/dev/mapper/{one.label}"), "udev's link")
    one.open()
    one.close()
    killed = faults.run_and_kill(one.open, one.mapping, 120)
    kernel.wait_for(lambda: os.path.exists(f"/dev/mapper/{one.label}"), "udev's link")
    one.detach()


@scenario("by an unprivileged service: the helper's log has no passphrase either", limit_s=LONG_S)
def luks_unprivileged(lab: Lab) -> None:
    """All root work is done by the helper behind sudo, which logs at DEBUG."""
    one = Encrypted(lab, "luks2")
    service.as_user()
    one.attach()
    one.detach()
    one.expect_secret()


@scenario("two volumes and their devices are never taken for one another", limit_s=LONG_S)
def luks_two_volumes(lab: Lab) -> None:
    """Each has its own mapping, key and data; closing one leaves the other."""
    first, second = Encrypted(lab, "luks"), Encrypted(lab, "luks2")
    second.passphrase = "another one"
    make_on_array(first.volume)
    make_on_array(second.volume, passphrase="another one", version="luks2")
    first.attach()
    second.attach()
    assert first.mapping() != second.mapping()
    for one in (first, second):
        data.write(one.link, one.pattern(), 4 * MIB)
    first.detach()
    udev.settle()
    second.expect_open()
    assert data.read(second.link, MIB, 4 * MIB) == second.pattern()
    second.detach()
    assert not host_state.map_of(second.volume.wwid)
