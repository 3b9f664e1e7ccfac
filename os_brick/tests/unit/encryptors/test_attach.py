# SPDX-License-Identifier: Apache-2.0
"""Opening encrypted volumes: names, devices, links, and what becomes of failures (EN-10 to EN-23,
EN-30)."""

from __future__ import annotations

import copy
import errno
import os
import pathlib
from typing import Any

import pytest
from oslo_concurrency import processutils

from os_brick import encryptors, exception
from os_brick.testing import FakeHost
from os_brick.testing.cryptsetup import CryptMapping
from os_brick.testing.storage import LuksHeader
from os_brick.tests.unit.encryptors.helpers import (
    MIB,
    PASSPHRASE,
    Connected,
    Encrypted,
    KeyManager,
    Secret,
)
from os_brick.tests.unit.initiator.connectors.iscsi_helpers import commands, side_by_side

ALL = pytest.mark.parametrize("provider", ["luks", "luks2", "plain"])
# What LUKS1 and LUKS2 have in common, tried with one of them.
PROVIDERS = pytest.mark.parametrize("provider", ["luks2", "plain"])
BOTH = pytest.mark.parametrize("foreign", [False, True])


# -- first use, and every later one (EN-23, EN-30) -------------------------------------------
@BOTH
@ALL
def test_a_new_volume_is_opened_and_its_link_leads_to_what_is_decrypted(
    fake_host: FakeHost, provider: str, foreign: bool
) -> None:
    one = Encrypted(fake_host, provider, foreign=foreign)
    before = copy.deepcopy(one.connection_info)
    one.attach()
    assert one.mapping is not None
    assert one.leads_to == f"/dev/mapper/{one.label}"
    version = {"luks": 1, "luks2": 2, "plain": None}[provider]
    assert (one.unit.luks and one.unit.luks.version) == version
    assert one.connection_info == before


@BOTH
@PROVIDERS
def test_a_used_volume_is_opened_without_being_formatted(
    fake_host: FakeHost, provider: str, foreign: bool
) -> None:
    one = Encrypted(fake_host, provider, foreign=foreign)
    one.attach()
    header = one.unit.luks
    one.detach()
    fake_host.forget()
    one.attach()
    assert one.mapping is not None
    assert one.unit.luks is header
    assert not commands(fake_host, "luksFormat")


def test_an_ordinary_attach_runs_one_program(fake_host: FakeHost) -> None:
    one = Encrypted(fake_host)
    one.unit.luks = LuksHeader(1, PASSPHRASE)
    fake_host.forget()
    one.attach()
    assert fake_host.started == [
        ("cryptsetup", "luksOpen", "--key-file=-", "/dev/dm-0", "crypt-os-brick+dev+dm-0")
    ]


@pytest.mark.parametrize("provider", ["luks", "luks2"])
def test_the_words_of_a_format(fake_host: FakeHost, provider: str) -> None:
    one = Encrypted(fake_host, provider)
    one.attach()
    version = {"luks": "luks1", "luks2": "luks2"}[provider]
    assert commands(fake_host, "luksFormat") == [
        (
            *("cryptsetup", "--batch-mode", "luksFormat", "--type", version, "--key-file=-"),
            *("--cipher", "aes-xts-plain64", "--key-size", "256", "/dev/dm-0"),
        )
    ]


def test_the_words_of_plain(fake_host: FakeHost) -> None:
    one = Encrypted(fake_host, "plain")
    one.attach()
    assert commands(fake_host, "open") == [
        (
            *("cryptsetup", "open", "--type", "plain", "--key-file=-"),
            *("--cipher", "aes-xts-plain64", "--key-size", "256"),
            *("/dev/dm-0", "crypt-os-brick+dev+dm-0"),
        )
    ]


@PROVIDERS
def test_cipher_and_key_size_may_be_missing(fake_host: FakeHost, provider: str) -> None:
    one = Encrypted(fake_host, provider)
    one.attach(cipher=None, key_size=None)
    assert not commands(fake_host, "--cipher")
    assert not commands(fake_host, "--key-size")


@PROVIDERS
@pytest.mark.parametrize(
    ("key", "value"), [("key_size", "many"), ("key_size", True), ("key_size", -1), ("cipher", 7)]
)
def test_values_that_are_none_for_cryptsetup_are_refused_by_key(
    fake_host: FakeHost, provider: str, key: str, value: Any
) -> None:
    one = Encrypted(fake_host, provider)
    with pytest.raises(exception.InvalidParameterValue, match=key):
        one.attach(**{key: value})
    assert one.mapping is None
    assert one.unit.luks is None


def test_plain_is_reported_as_deprecated(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    Encrypted(fake_host, "plain").attach()
    assert "deprecated" in caplog.text


# -- passphrases (EN-10, EN-11) --------------------------------------------------------------
@pytest.mark.parametrize(
    ("secret", "expected"),
    [
        (Secret(b"p\xc3\xa4ss\nword", "passphrase"), "päss\nword"),
        (Secret(b"\x04\xff\x00", "symmetric"), "04ff00"),
        (Secret(b"\x04", "opaque"), "04"),
        (Secret(b"abc", "certificate"), "616263"),
    ],
)
def test_the_passphrase_of_each_kind_of_secret(
    fake_host: FakeHost, secret: Secret, expected: str
) -> None:
    one = Encrypted(fake_host)
    one.keys = KeyManager(secret)
    one.attach()
    assert one.unit.luks is not None
    assert one.unit.luks.passphrase == expected
    assert one.keys.asked == [("context", "key-1")]


@PROVIDERS
def test_an_empty_secret_is_refused(fake_host: FakeHost, provider: str) -> None:
    one = Encrypted(fake_host, provider)
    one.keys = KeyManager(Secret(b""))
    fake_host.forget()
    with pytest.raises(exception.Invalid, match="key-1 of the volume is empty"):
        one.attach()
    assert fake_host.journal == []


@pytest.mark.parametrize("provider", ["luks", "luks2"])
def test_a_wrong_passphrase_leaves_nothing(fake_host: FakeHost, provider: str) -> None:
    one = Connected(fake_host, provider)
    one.unit.luks = header = LuksHeader(2, "another one")
    with pytest.raises(processutils.ProcessExecutionError) as caught:
        one.attach()
    assert caught.value.exit_code == 2
    assert one.mapping is None
    assert one.leads_to == "/dev/dm-0"
    assert one.unit.luks is header
    one.disconnect()
    assert fake_host.leftovers() == []


# -- names and devices (EN-20 to EN-22) ------------------------------------------------------
@PROVIDERS
@pytest.mark.parametrize(
    "info",
    [
        {"data": {"volume_id": "volume-7"}, "driver_volume_type": "rbd"},
        {"data": {"device_path": None}, "serial": "volume-7", "driver_volume_type": "rbd"},
        {"data": {"device_path": ""}, "serial": "volume-7", "driver_volume_type": "rbd"},
        {"data": {"device_path": object()}, "serial": "volume-7", "driver_volume_type": "rbd"},
        {"serial": "volume-7", "driver_volume_type": "rbd"},
    ],
)
def test_volumes_without_a_device_are_not_supported(
    fake_host: FakeHost, provider: str, info: Any
) -> None:
    with pytest.raises(exception.VolumeEncryptionNotSupported) as caught:
        encryptors.get_volume_encryptor(
            None, info, KeyManager(), control_location="front-end", provider=provider
        )
    said = "Volume encryption is not supported for rbd volume volume-7."
    assert str(caught.value) == said


@pytest.mark.parametrize("path", ["dm-0", "dev/dm-0", "/dev/disk/by-id/"])
def test_a_path_that_is_none_is_refused_by_key(path: str) -> None:
    with pytest.raises(exception.InvalidParameterValue, match="device_path"):
        encryptors.get_volume_encryptor(
            None,
            {"data": {"device_path": path}},
            KeyManager(),
            control_location="front-end",
            provider="luks",
        )


def test_the_attributes_that_services_read(fake_host: FakeHost) -> None:
    one = Encrypted(fake_host)
    encryptor = one.encryptor()
    assert encryptor.symlink_path == "/dev/disk/by-id/os-brick+dev+dm-0" == one.link
    assert encryptor.dev_name == "crypt-os-brick+dev+dm-0"
    assert encryptor.dev_path == "/dev/dm-0"


def test_the_device_path_may_be_bytes(fake_host: FakeHost) -> None:
    one = Encrypted(fake_host)
    one.connection_info["data"]["device_path"] = one.link.encode()
    assert one.encryptor().symlink_path == one.link


def test_while_the_volume_is_open_its_device_is_still_its_own(fake_host: FakeHost) -> None:
    one = Encrypted(fake_host)
    one.attach()
    assert one.encryptor().dev_path == "/dev/dm-0"  # not the mapping


@PROVIDERS
@pytest.mark.parametrize("old", ["own", "multipath_id"])
def test_volumes_that_older_releases_opened_keep_their_name(
    fake_host: FakeHost, provider: str, old: str
) -> None:
    one = Encrypted(fake_host, provider)
    name = one.link.rpartition("/")[2]
    if old == "multipath_id":
        name = "3600140500000000000000000000000ff"
        one.connection_info["data"]["multipath_id"] = name
    fake_host.host.programs.execute(
        *("cryptsetup", "open", "--type", "plain", "/dev/dm-0", name), process_input="x"
    )
    assert one.label == name
    one.detach()
    assert fake_host.mapper.find(name) is None
    assert one.label == f"crypt-{one.link.rpartition('/')[2]}"


def test_a_multipath_map_of_that_name_is_none_of_those(fake_host: FakeHost) -> None:
    one = Encrypted(fake_host)
    one.connection_info["data"]["multipath_id"] = one.raw.dm_name
    fake_host.forget()
    assert one.label == "crypt-os-brick+dev+dm-0"
    assert fake_host.started == []  # sysfs has told


@pytest.mark.parametrize(("code", "expected"), [(0, True), (1, False), (4, False)])
def test_where_sysfs_does_not_tell_cryptsetup_is_asked(
    fake_host: FakeHost, code: int, expected: bool, caplog: pytest.LogCaptureFixture
) -> None:
    one = Encrypted(fake_host)
    fake_host.stale_link("/dev/mapper/old", "/dev/dm-0")
    fake_host.faults.fail("cryptsetup", "status", "old", code=code)
    assert one.encryptor()._is_crypt_device_available("old") is expected
    assert "could not be found out" not in caplog.text


def test_an_odd_answer_about_a_mapping_is_told(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    one = Encrypted(fake_host)
    fake_host.stale_link("/dev/mapper/old", "/dev/dm-0")
    fake_host.faults.fail("cryptsetup", "status", code=3)
    assert one.encryptor()._is_crypt_device_available("old") is False
    assert "The state of old could not be found out" in caplog.text


def test_a_name_without_a_node_is_no_mapping(fake_host: FakeHost) -> None:
    one = Encrypted(fake_host)
    fake_host.forget()
    assert one.encryptor()._is_crypt_device_available("nothing") is False
    assert fake_host.started == []


# -- the link (EN-23) ------------------------------------------------------------------------
def test_a_device_node_is_never_replaced(fake_host: FakeHost) -> None:
    one = Encrypted(fake_host)
    one.connection_info["data"]["device_path"] = "/dev/dm-0"
    fake_host.forget()
    with pytest.raises(exception.InvalidParameterValue, match=r"device_path: /dev/dm-0"):
        one.attach()
    assert fake_host.journal == []


def test_any_link_may_be_replaced_and_is_given_back(fake_host: FakeHost) -> None:
    one = Encrypted(fake_host)
    link = f"/dev/disk/by-id/dm-uuid-mpath-{one.raw.dm_name}"
    one.connection_info["data"]["device_path"] = one.link = link
    one.attach()
    assert one.leads_to == f"/dev/mapper/crypt-dm-uuid-mpath-{one.raw.dm_name}"
    one.detach()
    assert one.leads_to == "/dev/dm-0"


def test_a_link_outside_of_dev(fake_host: FakeHost, tmp_path: pathlib.Path) -> None:
    one = Encrypted(fake_host)
    link = tmp_path / "volume"
    link.symlink_to("/dev/dm-0")
    one.connection_info["data"]["device_path"] = str(link)
    encryptor = one.encryptor()
    assert encryptor.dev_path == "/dev/dm-0"
    assert encryptor.dev_name == "crypt-volume"


@BOTH
@PROVIDERS
def test_if_the_link_cannot_be_made_the_volume_is_closed_again(
    fake_host: FakeHost, provider: str, foreign: bool
) -> None:
    one = Encrypted(fake_host, provider, foreign=foreign)
    fake_host.faults.failing_writes["link"] = errno.EROFS
    fake_host.faults.fail("ln", code=1, times=9)
    with pytest.raises((OSError, processutils.ProcessExecutionError)):
        one.attach()
    assert one.mapping is None
    assert one.leads_to == "/dev/dm-0"
    fake_host.faults.mend()
    one.attach()
    assert one.mapping is not None


def test_the_first_error_is_raised_also_if_closing_again_fails(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    one = Encrypted(fake_host)
    fake_host.faults.failing_writes["link"] = errno.EROFS
    fake_host.faults.fail("cryptsetup", "luksClose", code=1, times=9)
    with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
        one.attach()
    assert "crypt-os-brick+dev+dm-0 may be left open" in caplog.text


@PROVIDERS
def test_what_a_stopped_cryptsetup_has_opened_is_closed_again(
    fake_host: FakeHost, provider: str
) -> None:
    one = Encrypted(fake_host, provider)
    one.unit.luks = LuksHeader(1, PASSPHRASE) if provider != "plain" else None
    # It makes the mapping, and then waits for udev for ever.
    fake_host.delays.udev_s = 700
    with pytest.raises(exception.ExecutionTimeout):
        one.attach()
    fake_host.delays.udev_s = 0.01
    fake_host.pass_time(2000)
    assert one.mapping is None
    assert one.leads_to == "/dev/dm-0"


# -- exit codes of opening (section 10) ------------------------------------------------------
@pytest.mark.parametrize("code", [2, 3, 4, 5, 127])
def test_other_failures_of_opening_are_raised_without_a_format(
    fake_host: FakeHost, code: int
) -> None:
    one = Encrypted(fake_host)
    fake_host.faults.fail("cryptsetup", "luksOpen", code=code)
    with pytest.raises(processutils.ProcessExecutionError) as caught:
        one.attach()
    assert caught.value.exit_code == code
    assert not commands(fake_host, "luksFormat")
    assert one.leads_to == "/dev/dm-0"


def test_cryptsetup_may_be_missing(fake_host: FakeHost) -> None:
    one = Encrypted(fake_host)
    fake_host.faults.hang("cryptsetup")
    with pytest.raises(exception.ExecutionTimeout):
        one.attach()
    assert one.leads_to == "/dev/dm-0"


# -- open already ----------------------------------------------------------------------------
@BOTH
@PROVIDERS
def test_opening_twice_is_success(fake_host: FakeHost, provider: str, foreign: bool) -> None:
    one = Encrypted(fake_host, provider, foreign=foreign)
    one.attach()
    mapping = one.mapping
    one.attach()
    assert one.mapping is mapping
    assert one.leads_to == f"/dev/mapper/{one.label}"


@PROVIDERS
def test_after_a_crash_before_the_link_was_made(fake_host: FakeHost, provider: str) -> None:
    one = Encrypted(fake_host, provider)
    one.attach()
    one.link_to("dm-0")
    one.attach()
    assert one.leads_to == f"/dev/mapper/{one.label}"


@PROVIDERS
def test_a_mapping_whose_link_is_missing_is_found(fake_host: FakeHost, provider: str) -> None:
    one = Encrypted(fake_host, provider)
    one.attach()
    mapping = one.mapping
    label = one.label
    one.link_to("dm-0")
    one.unlink(f"/dev/mapper/{label}")
    one.attach()
    assert fake_host.mapper.find(label) is mapping


def test_a_wrong_passphrase_opens_nothing_that_is_open(fake_host: FakeHost) -> None:
    one = Encrypted(fake_host)
    one.attach()
    one.keys = KeyManager(Secret(b"a wrong one"))
    with pytest.raises(processutils.ProcessExecutionError) as caught:
        one.attach()
    assert caught.value.exit_code == 2
    assert one.mapping is not None  # somebody uses it


@PROVIDERS
def test_a_mapping_of_that_name_on_another_device_is_refused(
    fake_host: FakeHost, provider: str
) -> None:
    one, other = Encrypted(fake_host, provider), Encrypted(fake_host, provider, lun=2)
    fake_host.mapper.create(CryptMapping, one.label, f"CRYPT-PLAIN-{one.label}", [other.raw])
    fake_host.pass_time(1)
    fake_host.forget()
    with pytest.raises(exception.WrongVolume, match="on /dev/dm-1 instead of /dev/dm-0"):
        one.attach()
    assert fake_host.journal == []
    one.detach()  # the other's mapping is none of this volume's
    assert one.mapping is not None
    assert fake_host.journal == []


def test_a_mapping_left_over_a_device_that_is_gone_is_refused(fake_host: FakeHost) -> None:
    one = Encrypted(fake_host)
    one.attach()
    mapping = one.mapping
    assert mapping is not None
    one.link_to("dm-0")
    mapping.slaves.clear()
    fake_host.devices._world.sys.remove(f"{mapping.sysfs}/slaves/dm-0")
    fake_host.devices._world.sys.remove(f"{one.raw.sysfs}/holders/{mapping.name}")
    one.raw.holders.clear()
    with pytest.raises(exception.WrongVolume, match="a device that is gone"):
        one.attach()


def test_a_mapping_of_another_kind_is_refused(fake_host: FakeHost) -> None:
    one = Encrypted(fake_host)
    fake_host.put_on_top("/dev/dm-0", one.label, f"CRYPT-PLAIN-{one.label}")
    fake_host.pass_time(1)
    with pytest.raises(exception.WrongVolume, match="of another kind"):
        one.attach()


def test_a_plain_volume_is_not_made_of_a_luks_volume(fake_host: FakeHost) -> None:
    one = Encrypted(fake_host, "plain")
    one.unit.luks = LuksHeader(1, "another one")
    with pytest.raises(exception.WrongVolume, match="LUKS"):
        one.attach()
    assert one.mapping is None


# -- in use ----------------------------------------------------------------------------------
@PROVIDERS
def test_a_device_that_is_mounted_is_not_opened(fake_host: FakeHost, provider: str) -> None:
    one = Encrypted(fake_host, provider)
    fake_host.mount("/dev/dm-0", "/mnt/of somebody")
    fake_host.forget()
    with pytest.raises(exception.DeviceInUse, match="is mounted at"):
        one.attach()
    assert fake_host.journal == []


@PROVIDERS
def test_a_device_that_others_have_mapped_is_not_opened(fake_host: FakeHost, provider: str) -> None:
    one = Encrypted(fake_host, provider)
    fake_host.put_on_top("/dev/dm-0", "vg-lv")
    with pytest.raises(exception.DeviceInUse, match="vg-lv"):
        one.attach()
    assert one.unit.luks is None


# -- several at once -------------------------------------------------------------------------
@PROVIDERS
def test_several_services_open_one_new_volume_at_once(fake_host: FakeHost, provider: str) -> None:
    one = Encrypted(fake_host, provider)
    results = side_by_side(fake_host, *[one.attach] * 4)
    assert results == [None] * 4
    assert len(commands(fake_host, "luksFormat")) == (provider != "plain")
    assert one.mapping is not None


def test_a_service_with_other_locks_may_be_faster(fake_host: FakeHost) -> None:
    one = Encrypted(fake_host)
    one.unit.luks = LuksHeader(1, PASSPHRASE)
    label = one.label
    fake_host.faults.slow("luksOpen", seconds=1, times=1)
    kind = f"CRYPT-LUKS1-{one.unit.luks.uuid}-{label}"
    fake_host.after(0.5, lambda: fake_host.mapper.create(CryptMapping, label, kind, [one.raw]))
    one.attach()
    assert one.leads_to == f"/dev/mapper/{label}"


# -- the whole way ---------------------------------------------------------------------------
@BOTH
@ALL
def test_the_whole_way_leaves_nothing(fake_host: FakeHost, provider: str, foreign: bool) -> None:
    one = Connected(fake_host, provider, foreign=foreign)
    for _round in range(2):
        one.attach()
        fake_host.write(one.link, b"data")
        with fake_host.open(one.link):
            pass  # its close writes out
        one.detach()
        one.disconnect()
        assert fake_host.leftovers() == []
        one.connect()
    one.disconnect()
    assert one.unit.data == b"datadata"
    assert fake_host.lost == []
    assert one.unit.size == 64 * MIB
