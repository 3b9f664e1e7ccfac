# SPDX-License-Identifier: Apache-2.0
"""Encrypted volumes and what goes wrong: no data is lost, nothing is left open."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator

from oslo_concurrency import processutils

from os_brick import exception

from ..guest import data, kernel
from ..guest.daemons import MultipathConfig
from ..guest.encryption import Encrypted, make_on_array
from ..guest.lab import MIB, Lab, fails_with
from . import scenario

FAIL = MultipathConfig(no_path_retry="fail")
LONG_S = 300
#: The first blocks of the device, where the header is.
_BAD_SECTORS = 4096


@contextlib.contextmanager
def _unchanged(one: Encrypted) -> Iterator[None]:
    """Insist that what the array holds of a volume is as before."""
    before = one.volume.read(0, one.volume.size)
    yield
    assert one.volume.read(0, one.volume.size) == before, "the volume was written to"


def _refused(one: Encrypted, *kinds: type[BaseException]) -> str:
    """Insist that opening fails, with nothing formatted or left open; return what was said."""
    with _unchanged(one), fails_with(*kinds) as caught:
        one.encryptor().attach_volume(None, **one.metadata)
    one.expect_closed()
    assert "luksFormat" not in one.lab.log()
    one.expect_secret(caught[0])
    return str(caught[0])


@scenario("wrong passphrase: told by its exit code, nothing written or left open", limit_s=LONG_S)
def luks_wrong_passphrase(lab: Lab) -> None:
    """Neither for a volume that is closed, nor for one that is open."""
    for provider, version in (("luks", "luks1"), ("luks2", "luks2")):
        one = Encrypted(lab, provider)
        make_on_array(one.volume, version=version)
        one.connect()
        right, one.passphrase = one.passphrase, "a wrong one"
        with _unchanged(one), fails_with(processutils.ProcessExecutionError) as caught:
            one.encryptor().attach_volume(None, **one.metadata)
        assert getattr(caught[0], "exit_code", None) == 2, caught
        one.expect_closed()
        one.passphrase = right
        one.open()
        one.passphrase = "a wrong one"
        with fails_with(processutils.ProcessExecutionError) as caught:
            one.encryptor().attach_volume(None, **one.metadata)
        assert getattr(caught[0], "exit_code", None) == 2, caught
        one.expect_open()
        one.detach()


@scenario("a volume full of data whose header cannot be read is not formatted", limit_s=LONG_S)
def luks_unreadable_start(lab: Lab) -> None:
    """The rest of the device reads and writes as ever: dm-error over its first blocks."""
    for provider in ("luks", "luks2"):
        one = Encrypted(lab, provider)
        make_on_array(one.volume)
        one.connect()
        raw, link = one.raw, one.link
        name = f"lab-{provider}"
        sectors = one.volume.size // 512
        whole = f"0 {sectors} linear {raw} 0\n"
        kernel.run("dmsetup", "create", name, stdin=whole)
        one.link = f"/dev/disk/by-id/lab-{provider}"
        os.symlink(f"/dev/mapper/{name}", one.link)
        bad = f"0 {_BAD_SECTORS} error\n{_BAD_SECTORS} {sectors - _BAD_SECTORS} linear {raw} 4096\n"
        _replace_table(name, bad)
        with _unchanged(one), fails_with(exception.FormatRefused) as caught:
            one.encryptor().attach_volume(None, **one.metadata)
        assert "could not be read" in str(caught[0]), caught
        assert os.readlink(one.link) == f"/dev/mapper/{name}"
        assert "luksFormat" not in lab.log()
        _replace_table(name, whole)
        one.encryptor().attach_volume(None, **one.metadata)  # as good as ever
        assert os.readlink(one.link) == f"/dev/mapper/{one.label}"
        one.encryptor().detach_volume(**one.metadata)
        pathlib.Path(one.link).unlink()
        kernel.run("dmsetup", "remove", "--retry", name)
        one.link = link
        one.disconnect()


def _replace_table(name: str, table: str) -> None:
    kernel.run("dmsetup", "suspend", name)
    kernel.run("dmsetup", "load", name, stdin=table)
    kernel.run("dmsetup", "resume", name)


@scenario("all paths dead: refused, and opened when they are back", multipath=FAIL, limit_s=LONG_S)
def luks_dead_paths(lab: Lab) -> None:
    """A volume that was used, and a new one."""
    for used in (True, False):
        one = Encrypted(lab, "luks")
        if used:
            make_on_array(one.volume)
        one.connect()
        for portal in one.target.portals:
            lab.network.refuse(portal)
        kernel.wait_for(lambda one=one: _read_fails(one.raw), "reads fail", 120)  # type: ignore[misc]
        said = _refused(one, exception.FormatRefused, processutils.ProcessExecutionError)
        lab.times.append((said.splitlines()[0][:60], 0))
        lab.network.heal()
        kernel.wait_for(lambda one=one: not _read_fails(one.raw), "reads work again", 120)  # type: ignore[misc]
        if used:
            one.open()
            one.detach()
        else:
            one.disconnect()


def _read_fails(path: str) -> bool:
    try:
        return not data.read(path, data.BLOCK)
    except OSError:
        return True


@scenario(
    "cryptsetup says 'no LUKS volume' of one that could not be read for a moment", limit_s=LONG_S
)
def luks_doubtful_probe(lab: Lab) -> None:
    """What the device itself holds is what counts."""
    one = Encrypted(lab, "luks")
    make_on_array(one.volume)
    one.connect()
    lab.programs.fail("cryptsetup", 1, when="*luksOpen*|*isLuks*", text="not a valid LUKS device")
    lab.programs.fail("blkid", 2)
    assert "LUKS header" in _refused(one, exception.FormatRefused)
    lab.programs.heal()
    one.open()
    one.detach()


@scenario("other data on the volume: refused, by name", limit_s=LONG_S)
def luks_other_data(lab: Lab) -> None:
    """A file system, which is whole afterwards."""
    one = Encrypted(lab, "luks2")
    kernel.run("mkfs.ext4", "-q", "-F", str(one.volume.file))
    one.connect()
    assert "ext4" in _refused(one, exception.FormatRefused)
    one.disconnect()
    kernel.run("e2fsck", "-fn", str(one.volume.file))


@scenario("a damaged header: refused", limit_s=LONG_S)
def luks_damaged_header(lab: Lab) -> None:
    """The magic is there, what follows is not."""
    one = Encrypted(lab, "luks")
    make_on_array(one.volume)
    one.volume.write(6, b"\0" * 200)
    one.connect()
    _refused(one, exception.FormatRefused)
    one.disconnect()


@scenario(
    "in use: not closed while mounted, its user is named; not opened while mounted", limit_s=LONG_S
)
def luks_in_use(lab: Lab) -> None:
    """The mapping and the link stay for whoever uses them."""
    one = Encrypted(lab, "luks")
    make_on_array(one.volume)
    one.attach()
    kernel.run("mkfs.ext4", "-q", "-F", one.link, limit_s=120)
    where = pathlib.Path("/run/lab-mount")
    where.mkdir(exist_ok=True)
    kernel.run("mount", one.link, str(where))
    (where / "file").write_text("content")
    with fails_with(processutils.ProcessExecutionError) as caught:
        one.encryptor().detach_volume(**one.metadata)
    assert getattr(caught[0], "exit_code", None) == 5, caught
    assert str(where) in str(caught[0]), caught
    one.expect_open()
    kernel.run("umount", str(where))
    one.close()
    kernel.run("mkfs.ext4", "-q", "-F", one.raw, limit_s=120)
    kernel.run("mount", one.raw, str(where))
    with fails_with(exception.DeviceInUse) as caught:
        one.encryptor().attach_volume(None, **one.metadata)
    assert str(where) in str(caught[0]), caught
    kernel.run("umount", str(where))
    one.disconnect()


@scenario(
    "a mapping of the volume's name on another device is refused, and left alone", limit_s=LONG_S
)
def luks_foreign_mapping(lab: Lab) -> None:
    """It may be a leftover, and may be somebody's."""
    one = Encrypted(lab, "luks")
    make_on_array(one.volume)
    other = pathlib.Path("/dev/shm/lab-other")
    with other.open("wb") as file:
        file.truncate(8 * MIB)
    loop = kernel.run("losetup", "-f", "--show", str(other)).strip()
    one.connect()
    kernel.run("cryptsetup", "open", "--type", "plain", "--key-file=-", loop, one.label, stdin="x")
    with _unchanged(one), fails_with(exception.WrongVolume) as caught:
        one.encryptor().attach_volume(None, **one.metadata)
    assert os.path.basename(loop) in str(caught[0]), caught
    one.encryptor().detach_volume(**one.metadata)
    assert one.mapping() is not None, "somebody else's mapping was closed"
    kernel.run("cryptsetup", "close", one.label)
    one.open()
    one.detach()
    kernel.run("losetup", "-d", loop)
    other.unlink()
