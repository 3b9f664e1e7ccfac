# SPDX-License-Identifier: Apache-2.0
"""Nothing is formatted that is not known to be empty (EN-30, section 9)."""

from __future__ import annotations

from typing import Any

import pytest
from oslo_concurrency import processutils

from os_brick import exception
from os_brick.encryptors import luks
from os_brick.testing import FakeHost
from os_brick.testing.storage import LuksHeader
from os_brick.tests.unit.encryptors.helpers import PASSPHRASE, Connected, Encrypted
from os_brick.tests.unit.initiator.connectors.iscsi_helpers import commands

LUKS = pytest.mark.parametrize("provider", ["luks", "luks2"])
# What LUKS1 and LUKS2 have in common is tried with one of them.
LUKS2 = pytest.mark.parametrize("provider", ["luks2"])
BOTH = pytest.mark.parametrize("foreign", [False, True])


def refuses(one: Encrypted, why: str) -> exception.FormatRefused:
    """Insist that opening the volume is refused for a reason, with nothing done."""
    header, signature = one.unit.luks, one.unit.signature
    with pytest.raises(exception.FormatRefused, match=why) as caught:
        one.attach()
    assert "/dev/dm-0 was not formatted" in str(caught.value)
    assert not commands(one.host, "luksFormat")
    assert one.unit.luks is header
    assert one.unit.signature == signature
    assert one.mapping is None
    assert one.leads_to == "/dev/dm-0"
    return caught.value


# -- the probe says something else than "no" -------------------------------------------------
@BOTH
@LUKS
def test_a_luks_volume_whose_opening_fails_is_not_formatted(
    fake_host: FakeHost, provider: str, foreign: bool
) -> None:
    one = Encrypted(fake_host, provider, foreign=foreign)
    one.unit.luks = LuksHeader(1, PASSPHRASE)
    fake_host.faults.fail("luksOpen", code=1)
    with pytest.raises(processutils.ProcessExecutionError) as caught:
        one.attach()
    assert caught.value.exit_code == 1
    assert not commands(fake_host, "luksFormat")
    one.attach()
    assert one.mapping is not None


@LUKS2
@pytest.mark.parametrize("code", [2, 3, 4, 5, 127])
def test_a_probe_that_does_not_say_no(fake_host: FakeHost, provider: str, code: int) -> None:
    one = Encrypted(fake_host, provider)
    fake_host.faults.fail("cryptsetup", "isLuks", code=code, times=9)
    error = refuses(one, "could not be found out")
    cause = error.__cause__
    assert isinstance(cause, processutils.ProcessExecutionError)  # why it was not opened
    assert cause.exit_code == 1
    fake_host.faults.mend()
    one.attach()
    assert one.mapping is not None


@LUKS2
def test_a_probe_that_hangs(fake_host: FakeHost, provider: str) -> None:
    one = Encrypted(fake_host, provider)
    fake_host.faults.hang("cryptsetup", "isLuks")
    refuses(one, "could not be found out")


# -- cryptsetup says "no" of what it could not read ------------------------------------------
@BOTH
@LUKS
def test_a_device_that_cannot_be_read(fake_host: FakeHost, provider: str, foreign: bool) -> None:
    one = Encrypted(fake_host, provider, foreign=foreign)
    one.lose_paths()
    refuses(one, "could not be read")
    one.mend_paths()
    one.attach()
    assert one.mapping is not None


@BOTH
@LUKS2
def test_a_volume_full_of_data_that_cannot_be_read_for_a_moment(
    fake_host: FakeHost, provider: str, foreign: bool
) -> None:
    one = Encrypted(fake_host, provider, foreign=foreign)
    one.unit.luks = LuksHeader(1, PASSPHRASE)
    # All that cryptsetup and blkid say is "nothing there", and then reading works again.
    fake_host.faults.fail("cryptsetup", "luksOpen", code=1)
    fake_host.faults.fail("cryptsetup", "isLuks", code=1, times=2)
    fake_host.faults.fail("blkid", code=2)
    refuses(one, "it holds a LUKS header")
    one.attach()
    assert one.mapping is not None


@LUKS2
def test_reading_the_start_may_hang(fake_host: FakeHost, provider: str) -> None:
    one = Encrypted(fake_host, provider)
    encryptor = one.encryptor()
    # The programs have answered before the device is suspended.
    fake_host.faults.fail("cryptsetup", "isLuks", code=1, times=9)
    fake_host.faults.fail("cryptsetup", "luksOpen", code=1, times=9)
    fake_host.faults.fail("blkid", code=2, times=9)
    one.raw.suspended = True
    with pytest.raises(exception.FormatRefused, match="could not be read"):
        encryptor.attach_volume("context", **one.metadata)
    assert fake_host.now < 120
    one.raw.suspended = False


# -- there is something else -----------------------------------------------------------------
@BOTH
@LUKS2
def test_other_data(fake_host: FakeHost, provider: str, foreign: bool) -> None:
    one = Encrypted(fake_host, provider, foreign=foreign)
    one.unit.signature = "ext4"
    refuses(one, r"TYPE=ext4.*wipefs")


@LUKS2
def test_several_signatures(fake_host: FakeHost, provider: str) -> None:
    one = Encrypted(fake_host, provider)
    fake_host.faults.fail("blkid", code=8, times=9)
    refuses(one, "several things")


@LUKS2
@pytest.mark.parametrize("code", [1, 4, 127])
def test_blkid_does_not_know(fake_host: FakeHost, provider: str, code: int) -> None:
    one = Encrypted(fake_host, provider)
    fake_host.faults.fail("blkid", code=code, times=9)
    refuses(one, "what it holds could not be found out")


def test_blkid_hangs(fake_host: FakeHost) -> None:
    one = Encrypted(fake_host)
    fake_host.faults.hang("blkid")
    refuses(one, "what it holds could not be found out")


@BOTH
@LUKS2
def test_a_damaged_header(fake_host: FakeHost, provider: str, foreign: bool) -> None:
    one = Encrypted(fake_host, provider, foreign=foreign)
    one.unit.luks = LuksHeader(2, PASSPHRASE, damaged=True)
    refuses(one, "a damaged one perhaps")


# -- formatting fails ------------------------------------------------------------------------
@LUKS2
@pytest.mark.parametrize("failures", [1, 2])
def test_a_format_is_tried_three_times(fake_host: FakeHost, provider: str, failures: int) -> None:
    one = Encrypted(fake_host, provider)
    fake_host.faults.fail("luksFormat", code=5, times=failures)
    one.attach()
    assert len(commands(fake_host, "luksFormat")) == failures + 1
    assert one.mapping is not None


@LUKS2
def test_a_format_that_fails_for_good(fake_host: FakeHost, provider: str) -> None:
    one = Encrypted(fake_host, provider)
    fake_host.faults.fail("luksFormat", code=4, times=9)
    with pytest.raises(processutils.ProcessExecutionError) as caught:
        one.attach()
    assert caught.value.exit_code == 4
    assert len(commands(fake_host, "luksFormat")) == 3
    assert one.mapping is None


@LUKS2
def test_a_format_that_was_stopped_is_not_tried_again(fake_host: FakeHost, provider: str) -> None:
    one = Encrypted(fake_host, provider)
    fake_host.faults.hang("luksFormat")
    with pytest.raises(exception.ExecutionTimeout):
        one.attach()
    assert len(commands(fake_host, "luksFormat")) == 1


@LUKS2
def test_before_each_try_the_volume_is_looked_at_again(fake_host: FakeHost, provider: str) -> None:
    one = Encrypted(fake_host, provider)
    fake_host.faults.fail("luksFormat", code=5)
    fake_host.after(0.5, lambda: setattr(one.unit, "signature", "ext4"))
    with pytest.raises(exception.FormatRefused, match="ext4"):
        one.attach()
    assert len(commands(fake_host, "luksFormat")) == 1
    assert one.unit.luks is None


@LUKS2
def test_the_second_opening_may_fail(fake_host: FakeHost, provider: str) -> None:
    one = Encrypted(fake_host, provider)
    fake_host.faults.fail("luksOpen", code=1)
    fake_host.faults.fail("luksOpen", code=3)
    with pytest.raises(processutils.ProcessExecutionError) as caught:
        one.attach()
    assert caught.value.exit_code == 3
    assert one.mapping is None
    assert one.leads_to == "/dev/dm-0"
    header = one.unit.luks
    one.attach()
    assert one.unit.luks is header


# -- as Nova calls it ------------------------------------------------------------------------
@LUKS
def test_nova_formats_a_fresh_volume(fake_host: FakeHost, provider: str) -> None:
    one = Encrypted(fake_host, provider)
    assert not is_luks(one)
    one.encryptor()._format_volume("from Nova", **one.metadata)
    assert one.unit.luks is not None
    assert one.unit.luks.passphrase == "from Nova"
    assert one.unit.luks.version == {"luks": 1, "luks2": 2}[provider]
    assert is_luks(one)
    assert one.mapping is None


@LUKS2
def test_nova_cannot_format_what_could_not_be_read(fake_host: FakeHost, provider: str) -> None:
    one = Encrypted(fake_host, provider)
    one.unit.luks = header = LuksHeader(1, PASSPHRASE)
    one.lose_paths()
    assert not is_luks(one)  # a failure, told as "no"
    with pytest.raises(exception.FormatRefused):
        one.encryptor()._format_volume("from Nova", **one.metadata)
    one.mend_paths()
    with pytest.raises(exception.FormatRefused, match="it is a LUKS volume already"):
        one.encryptor()._format_volume("from Nova", **one.metadata)
    assert one.unit.luks is header


def test_an_open_volume_is_not_formatted(fake_host: FakeHost) -> None:
    one = Encrypted(fake_host)
    one.attach()
    header = one.unit.luks
    with pytest.raises(exception.FormatRefused, match="is held by"):
        one.encryptor()._format_volume("from Nova", **one.metadata)
    assert one.unit.luks is header


def test_a_device_out_of_sight_is_not_formatted(fake_host: FakeHost) -> None:
    one = Connected(fake_host)
    encryptor = one.encryptor()
    one.disconnect()
    with pytest.raises(exception.FormatRefused, match="not to be seen"):
        encryptor._format_volume("from Nova", **one.metadata)
    assert not commands(fake_host, "luksFormat")


# -- is_luks ---------------------------------------------------------------------------------
def is_luks(one: Encrypted) -> bool:
    return luks.is_luks("sudo", one.encryptor().dev_path, execute=one.host.execute)


@pytest.mark.parametrize(("code", "expected"), [(0, True), (1, False), (4, False), (127, False)])
def test_is_luks(
    fake_host: FakeHost, code: int, expected: bool, caplog: pytest.LogCaptureFixture
) -> None:
    one = Encrypted(fake_host)
    fake_host.faults.fail("isLuks", code=code, err="Device dm-0 is odd.")
    fake_host.forget()
    assert is_luks(one) is expected
    assert fake_host.started == [("cryptsetup", "isLuks", "--verbose", "/dev/dm-0")]
    warned = f"isLuks exited abnormally (status {code}): Device dm-0 is odd." in caplog.text
    assert warned is not expected


def test_is_luks_hands_the_root_helper_on() -> None:
    seen: list[Any] = []

    def execute(*words: str, **keywords: Any) -> tuple[str, str]:
        seen.append((words, keywords["run_as_root"], keywords["root_helper"]))
        return "", ""

    assert luks.is_luks("sudo nova-rootwrap", "/dev/x", execute=execute)
    assert seen == [(("cryptsetup", "isLuks", "--verbose", "/dev/x"), True, "sudo nova-rootwrap")]


def test_is_luks_with_a_program_that_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    def execute(*words: str, **keywords: Any) -> tuple[str, str]:
        raise FileNotFoundError(2, "No such file or directory", "cryptsetup")

    assert not luks.is_luks("sudo", "/dev/x", execute=execute)
    assert "No such file or directory" in caplog.text
