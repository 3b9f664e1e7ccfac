# SPDX-License-Identifier: Apache-2.0
"""No secret in logs, exceptions or results."""

from __future__ import annotations

import traceback

import pytest

from os_brick.testing import FakeHost

SECRETS = ("s3cret-of-the-session", "s3cret-of-the-discovery")

FAULTS = {
    "none": (),
    "log-in": ("iscsiadm", "--login"),
    "update": ("iscsiadm", "--op", "update"),
    "discoverydb": ("iscsiadm", "discoverydb"),
    "write-out": ("sync",),
    "log-out": ("iscsiadm", "--logout"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("how", ["fail", "hang"])
@pytest.mark.parametrize("foreign", [False, True])
def test_secrets_stay_secret(
    fake_host: FakeHost,
    caplog: pytest.LogCaptureFixture,
    fault: str,
    how: str,
    foreign: bool,
) -> None:
    caplog.set_level("DEBUG")
    target = fake_host.iscsi_target(
        portals=2, chap=("user", SECRETS[0]), discovery_chap=("finder", SECRETS[1])
    )
    volume = target.lun(1)
    properties = volume.connection(plural=False)
    connector = fake_host.connector(use_multipath=True, foreign=foreign)
    words = FAULTS[fault]
    if words and how == "fail":
        fake_host.faults.fail(*words, code=4, times=1000, err="iscsiadm: failed\n")
    elif words:
        fake_host.faults.hang(*words)
    said = []
    info = None
    try:
        info = connector.connect_volume(properties)
        said.append(repr(info))
        connector.extend_volume(properties)
    except Exception as exc:  # noqa: BLE001 - whatever it is, it must keep the secret
        said += [str(exc), repr(exc), "".join(traceback.format_exception(exc)), str(vars(exc))]
    try:
        connector.disconnect_volume(properties, info)
    except Exception as exc:  # noqa: BLE001
        said += [str(exc), repr(exc), "".join(traceback.format_exception(exc)), str(vars(exc))]
    said += [caplog.text, *(str(record.__dict__) for record in caplog.records)]
    for secret in SECRETS:
        assert not any(secret in text for text in said)
