# SPDX-License-Identifier: Apache-2.0
"""Privileged verbs for SCSI and iSCSI that a fake host cannot show."""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Iterator

import pytest

from os_brick import privileged
from os_brick.privileged import scsi

IQN = "iqn.2010-10.org.example:a"


@pytest.fixture(autouse=True)
def in_process() -> Iterator[None]:
    privileged.default.set_client_mode(False)
    yield
    privileged.default.set_client_mode(True)


def test_a_folder_of_records_that_goes_with_its_last_one(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another detach removes the record of the target's last portal at that moment."""
    folder = tmp_path / IQN
    (folder / "10.0.0.1,3260,1").mkdir(parents=True)
    monkeypatch.setattr(scsi, "_NODE_RECORDS", (str(tmp_path),))
    own = os.listdir

    def listdir(path: str) -> list[str]:
        if path == str(folder):
            shutil.rmtree(folder)
        return own(path)

    monkeypatch.setattr(os, "listdir", listdir)
    assert scsi.read_node_settings(IQN, "10.0.0.2", 3260) == {}
