# SPDX-License-Identifier: Apache-2.0
"""Looking for a LUKS header as root."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from os_brick import privileged
from os_brick.privileged import luks

MIB = 1 << 20


@pytest.fixture(autouse=True)
def in_process() -> Iterator[Any]:
    privileged.default.set_client_mode(False)
    yield
    privileged.default.set_client_mode(True)


@pytest.mark.parametrize(
    ("name", "number", "length", "named"),
    [
        ("../sda", "8:0", MIB, "device"),
        ("mapper/x", "8:0", MIB, "device"),
        ("", "8:0", MIB, "device"),
        (None, "8:0", MIB, "device"),
        ("sda", "8", MIB, "number"),
        ("sda", "8:0\n", MIB, "number"),
        ("sda", (8, 0), MIB, "number"),
        ("sda", "8:0", 0, "length"),
        ("sda", "8:0", 1 << 40, "length"),
    ],
)
def test_arguments_are_checked(name: Any, number: Any, length: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        luks.holds_header(name, number, length, 1)


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        luks.holds_header("no-such-device", "8:0", MIB, 5)


def test_what_is_no_block_device_is_refused() -> None:
    status = os.stat("/dev/zero")
    number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    with pytest.raises(OSError, match=r"another device|Invalid argument"):
        luks.holds_header("zero", number, MIB, 5)


@pytest.mark.parametrize("place", [0x4000, 0x8000, 0x10000, 0x200000, 0x400000])
def test_the_second_header_counts(place: int) -> None:
    start = bytearray(16 * MIB)
    start[place : place + 6] = b"SKUL\xba\xbe"
    assert luks.has_magic(bytes(start))
    assert not luks.has_magic(bytes(start[1:]))


@given(st.binary(max_size=300))
def test_other_data_is_no_header(data: bytes) -> None:
    assert luks.has_magic(data) is data.startswith(b"LUKS\xba\xbe")
    assert luks.has_magic(b"LUKS\xba\xbe" + data)


@pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="needs cryptsetup")
@pytest.mark.parametrize("version", ["luks1", "luks2"])
def test_the_headers_that_cryptsetup_writes(tmp_path: pathlib.Path, version: str) -> None:
    file = tmp_path / "volume"
    file.touch()
    os.truncate(file, 32 * MIB)
    fast = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]
    subprocess.run(
        [
            *("cryptsetup", "--batch-mode", "luksFormat", "--type", version, "--key-file=-"),
            *(*fast, str(file)),
        ],
        input=b"passphrase",
        check=True,
    )
    start = bytearray(file.read_bytes()[: 16 * MIB])
    assert luks.has_magic(bytes(start))
    start[:4096] = bytes(4096)  # the first header is lost
    assert luks.has_magic(bytes(start)) is (version == "luks2")
