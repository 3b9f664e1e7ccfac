# SPDX-License-Identifier: Apache-2.0
"""Closing and extending encrypted volumes (EN-31, EN-32, section 6)."""

from __future__ import annotations

import pytest
from oslo_concurrency import processutils

from os_brick import exception
from os_brick.testing import FakeHost
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
LUKS = pytest.mark.parametrize("provider", ["luks", "luks2"])
BOTH = pytest.mark.parametrize("foreign", [False, True])


# -- closing (EN-31) -------------------------------------------------------------------------
@BOTH
@ALL
def test_the_mapping_goes_and_the_link_is_as_it_was(
    fake_host: FakeHost, provider: str, foreign: bool
) -> None:
    one = Encrypted(fake_host, provider, foreign=foreign)
    before = one.leads_to
    one.attach()
    one.detach()
    assert one.mapping is None
    assert one.leads_to == before == "/dev/dm-0"
    one.attach()  # without a new connection
    assert one.mapping is not None


@pytest.mark.parametrize(("provider", "verb"), [("luks", "luksClose"), ("plain", "close")])
def test_the_words_of_closing(fake_host: FakeHost, provider: str, verb: str) -> None:
    one = Encrypted(fake_host, provider)
    one.attach()
    fake_host.forget()
    one.detach()
    assert fake_host.started == [("cryptsetup", verb, "crypt-os-brick+dev+dm-0")]


@BOTH
@PROVIDERS
def test_closing_twice_is_success(fake_host: FakeHost, provider: str, foreign: bool) -> None:
    one = Connected(fake_host, provider, foreign=foreign)
    one.detach()
    one.attach()
    one.detach()
    one.detach()
    assert one.leads_to == "/dev/dm-0"
    one.disconnect()
    one.detach()
    assert fake_host.leftovers() == []


@PROVIDERS
def test_what_was_never_opened_needs_no_cryptsetup(fake_host: FakeHost, provider: str) -> None:
    one = Encrypted(fake_host, provider)
    fake_host.programs.uninstall("cryptsetup")
    one.detach()
    assert fake_host.journal == []


@PROVIDERS
def test_closing_what_a_killed_service_has_left(fake_host: FakeHost, provider: str) -> None:
    one = Encrypted(fake_host, provider)
    one.attach()
    # It was killed between closing and giving the link back.
    fake_host.host.programs.execute("cryptsetup", "close", one.label)
    one.detach()
    assert one.leads_to == "/dev/dm-0"
    one.attach()
    # It was killed between opening and making the link.
    one.link_to("dm-0")
    one.detach()
    assert one.mapping is None


@PROVIDERS
def test_a_link_that_is_gone_does_not_matter(fake_host: FakeHost, provider: str) -> None:
    one = Encrypted(fake_host, provider)
    one.attach()
    one.unlink(one.link)
    one.detach()
    assert one.mapping is None
    assert one.leads_to == ""


@PROVIDERS
def test_what_is_no_mapping_of_cryptsetup_is_left_alone(
    fake_host: FakeHost, provider: str, caplog: pytest.LogCaptureFixture
) -> None:
    one = Encrypted(fake_host, provider)
    fake_host.put_on_top("/dev/dm-0", one.label)
    fake_host.pass_time(1)
    one.detach()
    assert fake_host.mapper.find(one.label) is not None
    assert "left alone" in caplog.text


# -- in use ----------------------------------------------------------------------------------
@PROVIDERS
def test_short_lived_users_are_waited_for(fake_host: FakeHost, provider: str) -> None:
    one = Encrypted(fake_host, provider)
    one.attach()
    opening = fake_host.open(one.link)
    fake_host.after(3, opening.close)
    fake_host.forget()
    one.detach()
    assert one.mapping is None
    assert len(fake_host.started) == 1  # not tried in vain


@PROVIDERS
def test_short_lived_users_are_waited_for_with_programs_alone(
    fake_host: FakeHost, provider: str
) -> None:
    one = Encrypted(fake_host, provider, foreign=True)
    one.attach()
    opening = fake_host.open(one.link)
    fake_host.after(2, opening.close)
    one.detach()
    assert one.mapping is None


@BOTH
@PROVIDERS
def test_a_mounted_volume_stays_open_and_its_user_is_told(
    fake_host: FakeHost, provider: str, foreign: bool
) -> None:
    one = Encrypted(fake_host, provider, foreign=foreign)
    one.attach()
    fake_host.mount(one.link, "/mnt/x")
    with pytest.raises(processutils.ProcessExecutionError, match="is mounted at /mnt/x") as caught:
        one.detach()
    assert caught.value.exit_code == 5
    assert one.link in str(caught.value)
    assert one.leads_to == f"/dev/mapper/{one.label}"  # the guest goes on
    assert one.mapping is not None
    fake_host.unmount("/mnt/x")
    one.detach()
    assert one.mapping is None


def test_a_volume_that_a_program_has_open_stays_open(fake_host: FakeHost) -> None:
    one = Encrypted(fake_host)
    one.attach()
    with (
        fake_host.open(one.link),
        pytest.raises(processutils.ProcessExecutionError, match="fuser -v /dev/mapper/crypt"),
    ):
        one.detach()
    assert one.leads_to == f"/dev/mapper/{one.label}"
    assert len(commands(fake_host, "luksClose")) == 3


@PROVIDERS
@pytest.mark.parametrize("code", [1, 2, 3, 127])
def test_other_failures_of_closing_are_raised_at_once(
    fake_host: FakeHost, provider: str, code: int
) -> None:
    one = Encrypted(fake_host, provider)
    one.attach()
    verb = "close" if provider == "plain" else "luksClose"
    fake_host.faults.fail("cryptsetup", verb, code=code, times=9)
    with pytest.raises(processutils.ProcessExecutionError) as caught:
        one.detach()
    assert caught.value.exit_code == code
    assert len(commands(fake_host, verb)) == 1
    assert one.leads_to == f"/dev/mapper/{one.label}"


def test_a_close_that_hangs_ends_at_the_deadline(fake_host: FakeHost) -> None:
    one = Encrypted(fake_host)
    one.attach()
    fake_host.faults.hang("luksClose")
    with pytest.raises(exception.ExecutionTimeout):
        one.detach()
    assert fake_host.now < 620


@PROVIDERS
def test_several_services_close_one_volume_at_once(fake_host: FakeHost, provider: str) -> None:
    one = Encrypted(fake_host, provider)
    one.attach()
    assert side_by_side(fake_host, *[one.detach] * 4) == [None] * 4
    assert one.mapping is None
    assert one.leads_to == "/dev/dm-0"


# -- extending (EN-32) -----------------------------------------------------------------------
@BOTH
@LUKS
def test_an_open_volume_grows_to_its_device_less_the_header(
    fake_host: FakeHost, provider: str, foreign: bool
) -> None:
    one = Connected(fake_host, provider, foreign=foreign)
    one.attach()
    header = {"luks": 2 * MIB, "luks2": 16 * MIB}[provider]
    one.volume.grow(96 * MIB)
    assert one.connector.extend_volume(one.connection_info["data"]) == 96 * MIB
    fake_host.forget()
    assert one.extend() == 96 * MIB - header
    assert one.mapping is not None
    assert one.mapping.size == 96 * MIB - header
    assert fake_host.started == [("cryptsetup", "resize", "--key-file=-", one.label)]
    assert one.extend() == 96 * MIB - header  # nothing to change is success


@LUKS
def test_a_passphrase_with_a_newline_extends_too(fake_host: FakeHost, provider: str) -> None:
    assert "\n" in PASSPHRASE
    one = Encrypted(fake_host, provider)
    one.attach()
    assert one.extend() == one.unit.size - {"luks": 2 * MIB, "luks2": 16 * MIB}[provider]


def test_a_wrong_passphrase_does_not_extend(fake_host: FakeHost) -> None:
    one = Encrypted(fake_host, "luks2")
    one.attach()
    one.keys = KeyManager(Secret(b"a wrong one"))
    with pytest.raises(processutils.ProcessExecutionError) as caught:
        one.extend()
    assert caught.value.exit_code == 2


@LUKS
def test_a_volume_that_is_not_open_is_not_extended(fake_host: FakeHost, provider: str) -> None:
    one = Encrypted(fake_host, provider)
    with pytest.raises(processutils.ProcessExecutionError) as caught:
        one.extend()
    assert caught.value.exit_code == 4


@LUKS
def test_a_mapping_on_another_device_is_not_extended(fake_host: FakeHost, provider: str) -> None:
    one = Encrypted(fake_host, provider)
    other = Encrypted(fake_host, provider, lun=2)
    other.attach()
    mapping = other.mapping
    assert mapping is not None
    encryptor = one.encryptor()
    encryptor.dev_name = other.label
    fake_host.forget()
    with pytest.raises(exception.WrongVolume):
        encryptor.extend_volume("context", **one.metadata)
    assert fake_host.journal == []


def test_plain_volumes_are_not_extended(fake_host: FakeHost) -> None:
    one = Encrypted(fake_host, "plain")
    one.attach()
    with pytest.raises(NotImplementedError):
        one.extend()


def test_a_size_out_of_sight_is_asked_of_a_program(fake_host: FakeHost) -> None:
    one = Encrypted(fake_host, foreign=True)
    one.attach()
    one.unit.luks = LuksHeader(1, PASSPHRASE)
    one.unlink(f"/dev/mapper/{one.label}")
    assert one.extend() == 62 * MIB
