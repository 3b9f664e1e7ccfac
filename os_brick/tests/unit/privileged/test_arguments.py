# SPDX-License-Identifier: Apache-2.0
"""What a connector accepts, the privileged side must not refuse."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from os_brick import privileged
from os_brick.initiator.linux import iscsi
from os_brick.privileged import luks, scsi


@pytest.fixture(autouse=True)
def in_process() -> Iterator[None]:
    privileged.default.set_client_mode(False)
    yield
    privileged.default.set_client_mode(True)


@pytest.mark.parametrize(
    "name",
    [
        "iqn.2001-04.com.example:speicher-m\u00fcnchen",  # RFC 3722: letters of other languages
        "iqn.2001-04.com.example:disk..1",
        "iqn.2001-04.com.example:pool+1@east",
    ],
)
def test_target_names(name: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scsi, "_NODE_RECORDS", (f"{tmp_path}/nodes",))
    target = iscsi.target_name(name)
    assert scsi.read_node_settings(target, "192.0.2.1", 3260) in (None, {})


def test_named_arrays() -> None:
    """mdadm.conf, CREATE names=yes: the kernel's own name is md_<name>."""
    assert not scsi.is_claimed("md_Kioxia-1", 5.0)
    with pytest.raises(FileNotFoundError):
        luks.holds_header("md_Kioxia-1", "9:999", 4096, 5.0)
