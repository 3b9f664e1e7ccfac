# SPDX-License-Identifier: Apache-2.0
"""What an encryptor may cost nobody: the data of a volume that is a file, and a write to the
decrypted device that has failed."""

from __future__ import annotations

import pathlib
import subprocess

import pytest
from oslo_concurrency import processutils

from os_brick import encryptors, exception
from os_brick.testing import FakeHost
from os_brick.testing.process import Answer, Process
from os_brick.tests.unit.encryptors.helpers import Connected, Encrypted, KeyManager

BOTH = pytest.mark.parametrize("foreign", [False, True])


@BOTH
@pytest.mark.parametrize("provider", ["luks", "luks2", "plain"])
def test_a_volume_that_is_a_file_is_never_replaced_by_a_link(
    fake_host: FakeHost, tmp_path: pathlib.Path, provider: str, foreign: bool
) -> None:
    one = Encrypted(fake_host, provider, foreign=foreign)
    # A volume of NFS, as RemoteFsConnector and Nova hand it out. cryptsetup opens files, by a loop
    # device.
    volume = tmp_path / "volume-1"
    volume.write_bytes(b"data")
    opened: list[str] = []

    def cryptsetup(process: Process) -> Answer:
        if {"luksOpen", "open"} & set(process.words):
            opened.append(process.words[-1])
        return Answer(1 if "isLuks" in process.words else 0)

    fake_host.programs.install("cryptsetup", cryptsetup)
    one.connection_info["data"]["device_path"] = str(volume)
    fake_host.forget()

    with pytest.raises(exception.InvalidParameterValue, match="device_path"):
        one.attach()

    assert not opened
    assert fake_host.journal == []
    assert volume.read_bytes() == b"data"


@BOTH
@pytest.mark.parametrize("provider", ["luks", "luks2", "plain"])
def test_a_write_error_of_the_mapping_is_told(
    fake_host: FakeHost, provider: str, foreign: bool
) -> None:
    one = Encrypted(fake_host, provider, foreign=foreign)
    one.attach()
    assert one.mapping is not None
    # A program writes to what is decrypted and does not wait for the end of it; the write-out
    # fails, of which the kernel keeps a note for the next fsync() of the mapping.
    opening = fake_host.devices.open(f"/dev/{one.mapping.name}")
    opening.write(b"data")
    one.lose_paths()
    assert fake_host.devices.fsync(one.mapping) == "fails"
    fake_host.devices.forget(opening)

    with pytest.raises(processutils.ProcessExecutionError):
        one.detach()
    # Linux keeps nothing that could be written yet.
    assert one.mapping is None
    assert one.leads_to == f"/dev/{one.raw.name}"
    fake_host.forgive()
    one.detach()


def test_the_whole_detach_tells_of_it(fake_host: FakeHost) -> None:
    """The connector's write-out is too late: the volume's own device knows of no failure."""
    one = Connected(fake_host, "luks2")
    one.connection_info["data"]["device_path"] = one.link
    one.attach()
    assert one.mapping is not None
    opening = fake_host.devices.open(f"/dev/{one.mapping.name}")
    opening.write(b"data")
    one.mapping.errors = True
    assert fake_host.devices.fsync(one.mapping) == "fails"
    one.mapping.errors = False
    fake_host.devices.forget(opening)
    one.detach()
    one.disconnect()
    assert one.unit.data == b"data"
    assert fake_host.lost == []


@pytest.mark.parametrize("provider", ["luks2", "plain"])
def test_a_file_is_still_there_with_real_links(tmp_path: pathlib.Path, provider: str) -> None:
    """The same without a fake host: ``ln`` and the look at the path are real."""
    volume = tmp_path / "volume-1"
    volume.write_bytes(b"data")

    def execute(*words: str, **keywords: object) -> tuple[str, str]:
        if words[0] == "cryptsetup":
            if "isLuks" in words:
                raise processutils.ProcessExecutionError(exit_code=1)
            return "", ""
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        return done.stdout, done.stderr

    info = {"driver_volume_type": "nfs", "data": {"device_path": str(volume)}}
    encryptor = encryptors.get_volume_encryptor(
        "sudo", info, KeyManager(), execute, control_location="front-end", provider=provider
    )
    with pytest.raises(exception.InvalidParameterValue, match="device_path"):
        encryptor.attach_volume("context", control_location="front-end", provider=provider)
    assert not volume.is_symlink()
    assert volume.read_bytes() == b"data"


class Single(Connected):
    multipath = False


@pytest.mark.parametrize("kind", [Single, Connected])
@pytest.mark.parametrize("provider", ["luks", "luks2", "plain"])
def test_a_volume_on_storage_that_fails_for_ever_can_be_closed(
    fake_host: FakeHost, provider: str, kind: type[Connected]
) -> None:
    """fsync(2) of a block device ends with a flush of the storage's cache (blkdev_fsync), by the
    mapping to the dead disk: it fails each time, also if there is nothing to write."""
    one = kind(fake_host, provider)
    one.connection_info["data"]["device_path"] = one.link
    one.attach()
    assert one.mapping is not None
    opening = fake_host.devices.open(f"/dev/{one.mapping.name}")
    opening.write(b"data")
    fake_host.devices.fsync(one.mapping)
    fake_host.devices.forget(opening)
    assert one.unit.data == b"data"

    def sync(process: Process) -> Answer:
        return Answer(1, err=f"sync: error syncing '{process.words[-1]}': Input/output error")

    fake_host.programs.install("sync", sync)
    with pytest.raises(processutils.ProcessExecutionError):
        one.detach()  # it is told,
    one.detach()  # once
    one.connector.disconnect_volume(one.properties, one.info, force=True, ignore_errors=True)
    assert fake_host.disks() == []
    assert fake_host.leftovers() == []


def test_the_lost_write_is_told_also_if_the_mapping_is_in_use(fake_host: FakeHost) -> None:
    """The kernel tells of it once; that somebody has the mapping open can be told next time."""
    one = Connected(fake_host, "luks2")
    one.connection_info["data"]["device_path"] = one.link
    one.attach()
    assert one.mapping is not None
    opening = fake_host.devices.open(f"/dev/{one.mapping.name}")
    opening.write(b"data")
    fake_host.devices.fsync(one.mapping)
    said = [Answer(1, err="sync: Input/output error"), Answer(), Answer(), Answer()]
    fake_host.programs.install("sync", lambda process: said.pop(0))
    with pytest.raises(processutils.ProcessExecutionError, match="Input/output error"):
        one.detach()
    with pytest.raises(processutils.ProcessExecutionError) as caught:
        one.detach()
    assert caught.value.exit_code == 5
    assert one.leads_to == f"/dev/mapper/{one.label}"
    fake_host.devices.forget(opening)
    one.detach()
    one.disconnect()
    assert fake_host.leftovers() == []


def test_a_write_out_that_goes_on_keeps_the_mapping(fake_host: FakeHost) -> None:
    one = Connected(fake_host, "luks2")
    one.connection_info["data"]["device_path"] = one.link
    one.attach()
    assert one.mapping is not None
    opening = fake_host.devices.open(f"/dev/{one.mapping.name}")
    opening.write(b"data")
    fake_host.devices.fsync(one.mapping)
    fake_host.devices.forget(opening)
    fake_host.faults.slow("sync", seconds=1000, times=1)
    with pytest.raises(exception.ExecutionTimeout):
        one.detach()
    assert one.mapping is not None
    fake_host.pass_time(1000)
    one.detach()
    one.disconnect()
    assert fake_host.leftovers() == []
