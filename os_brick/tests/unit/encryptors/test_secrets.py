# SPDX-License-Identifier: Apache-2.0
"""The passphrase is nowhere but on cryptsetup's standard input (EN-13)."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from oslo_concurrency import processutils

from os_brick import privileged
from os_brick.testing import FakeHost
from os_brick.tests.unit.encryptors.helpers import PASSPHRASE, Encrypted, KeyManager, Secret

FAULTS = ["none", "open", "close", "isLuks"]
FAULTS_OF_LUKS = ["none", "luksOpen", "luksFormat", "resize", "luksClose", "isLuks"]
PIECES = ("the passphrase", "of 'this' volume", "this")


def everything_said(caplog: pytest.LogCaptureFixture, errors: list[Exception]) -> str:
    said = [caplog.text, *(str(record.__dict__) for record in caplog.records)]
    for exc in errors:
        said += [str(exc), repr(exc), "".join(traceback.format_exception(exc)), str(vars(exc))]
        said.append(str(getattr(exc, "timeline", "")))
    return "\n".join(said)


@pytest.mark.parametrize(
    ("provider", "fault"),
    [*(("luks2", fault) for fault in FAULTS_OF_LUKS), *(("plain", fault) for fault in FAULTS)],
)
@pytest.mark.parametrize(("how", "foreign"), [("fail", False), ("hang", False), ("fail", True)])
def test_the_passphrase_is_nowhere(
    fake_host: FakeHost,
    caplog: pytest.LogCaptureFixture,
    provider: str,
    fault: str,
    how: str,
    foreign: bool,
) -> None:
    one = Encrypted(fake_host, provider, foreign=foreign)
    caplog.set_level(logging.DEBUG)
    if how == "fail":
        fake_host.faults.fail("cryptsetup", fault, code=3, times=1000, err="it failed\n")
    else:
        fake_host.faults.hang("cryptsetup", fault)
    errors: list[Exception] = []
    steps: list[Callable[[], Any]] = [one.attach, one.attach, one.extend, one.detach]
    for step in steps:
        try:
            step()
        except (Exception, NotImplementedError) as exc:  # noqa: BLE001 - it must keep the secret
            errors.append(exc)
    said = everything_said(caplog, errors) + str(fake_host.started)
    assert "cryptsetup" in said
    assert not any(piece in said for piece in PIECES)


def test_a_failing_key_manager_is_raised_as_it_is(fake_host: FakeHost) -> None:
    class Broken(KeyManager):
        def get(self, context: Any, key_id: Any) -> Secret:
            raise LookupError("no such key")

    one = Encrypted(fake_host)
    one.keys = Broken()
    fake_host.forget()
    with pytest.raises(LookupError):
        one.attach()
    assert fake_host.journal == []


def test_the_passphrase_is_not_shown_by_out_of_tree_encryptors(fake_host: FakeHost) -> None:
    passphrase = Encrypted(fake_host).encryptor()._get_encryption_key_as_passphrase("context")
    assert passphrase == PASSPHRASE
    assert repr({"passphrase": passphrase, "x": [passphrase]}).count("***") == 2


def test_the_passphrase_is_not_shown_by_whoever_gets_it(fake_host: FakeHost) -> None:
    seen: list[Any] = []

    def execute(*words: str, **keywords: Any) -> tuple[str, str]:
        seen.append((words, keywords))
        return fake_host.execute(*words, **keywords)

    one = Encrypted(fake_host)
    from os_brick import encryptors

    found = encryptors.get_volume_encryptor(
        None, one.connection_info, one.keys, execute, host=fake_host.host, **one.metadata
    )
    found.attach_volume("context", **one.metadata)
    given = [keywords["process_input"] for _, keywords in seen if "process_input" in keywords]
    assert given == [PASSPHRASE] * 3  # open, format, open
    assert all(isinstance(one, privileged.Hidden) for one in given)
    assert "passphrase" not in repr(seen)


def test_a_passphrase_from_outside_is_not_shown_either(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    one = Encrypted(fake_host)
    fake_host.faults.fail("luksFormat", code=3, times=9)
    with pytest.raises(processutils.ProcessExecutionError) as caught:
        one.encryptor()._format_volume(PASSPHRASE, **one.metadata)
    said = everything_said(caplog, [caught.value])
    assert not any(piece in said for piece in PIECES)
