# SPDX-License-Identifier: Apache-2.0
import os
import pathlib
import stat
from collections.abc import Iterator
from typing import Any

import pytest

from os_brick import privileged
from os_brick.privileged import nvmeof

UUID = "4c4c4544-0035-5910-804b-b7c04f4d3633"
NQN = f"nqn.2014-08.org.nvmexpress:uuid:{UUID}"

# How nvme-cli says that it has no NQN to show.
NOTHING_TO_SHOW = {
    "1.9": "echo \"ERROR: Invalid sub-command 'show-hostnqn'\"; exit 231",
    "1.10": "echo 'hostnqn is not available -- use nvme gen-hostnqn' >&2; exit 254",
    "1.16": "echo 'hostnqn is not available -- use nvme gen-hostnqn' >&2; exit 2",
    "2.0": "echo 'Hostnqn is not available -- use nvme gen-hostnqn' >&2; exit 1",
}


@pytest.fixture(autouse=True)
def in_process() -> Iterator[Any]:
    privileged.default.set_client_mode(False)
    yield
    privileged.default.set_client_mode(True)


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What stands in for /etc/nvme, and does not exist yet."""
    monkeypatch.setattr(nvmeof, "NVME_DIR", str(tmp_path / "nvme"))
    return tmp_path / "nvme"


@pytest.fixture
def programs(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The only programs there are: shell scripts by name."""
    path = tmp_path / "bin"
    path.mkdir()
    monkeypatch.setenv("PATH", str(path))

    def install(name: Any, script: Any) -> None:
        program = path / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    return install


def test_nqn_of_the_machine_needs_no_program(folder: Any, programs: Any) -> None:
    assert nvmeof.create_hostnqn(UUID) == NQN
    assert (folder / "hostnqn").read_text().strip() == NQN
    assert stat.S_IMODE((folder / "hostnqn").stat().st_mode) == 0o644
    assert os.listdir(folder) == ["hostnqn"]


def test_nqn_in_use_is_kept(folder: Any, programs: Any) -> None:
    programs("nvme", 'test "$1" = show-hostnqn && echo nqn.in.use')

    assert nvmeof.create_hostnqn() == "nqn.in.use"
    assert (folder / "hostnqn").read_text() == "nqn.in.use\n"


@pytest.mark.parametrize("version", NOTHING_TO_SHOW)
def test_nqn_is_made(folder: Any, programs: Any, version: Any) -> None:
    programs(
        "nvme",
        f'if test "$1" = show-hostnqn; then {NOTHING_TO_SHOW[version]}; fi; '
        'test "$1" = gen-hostnqn && echo nqn.new',
    )

    assert nvmeof.create_hostnqn() == "nqn.new"
    assert (folder / "hostnqn").read_text() == "nqn.new\n"


@pytest.mark.parametrize(
    "script", [None, "echo 'Permission denied' >&2; exit 1", "true", "echo two; echo lines"]
)
def test_no_nqn_is_a_warning(
    folder: Any, programs: Any, caplog: pytest.LogCaptureFixture, script: Any
) -> None:
    if script:
        programs("nvme", script)

    assert nvmeof.create_hostnqn() == ""
    assert "Could not generate host nqn" in caplog.text
    assert not (folder / "hostnqn").exists()


def test_what_another_process_stored_meanwhile_is_kept(folder: Any) -> None:
    folder.mkdir()
    (folder / "hostnqn").write_text("nqn.first\n")
    (folder / "hostid").write_text("first-id")

    assert nvmeof.create_hostnqn(UUID) == "nqn.first"
    assert nvmeof.create_hostid(UUID) == "first-id"
    assert sorted(os.listdir(folder)) == ["hostid", "hostnqn"]


def test_an_empty_file_is_replaced(folder: Any) -> None:
    folder.mkdir()
    (folder / "hostid").write_text("")

    assert nvmeof.create_hostid(UUID) == UUID
    assert (folder / "hostid").read_text() == UUID + "\n"
    assert os.listdir(folder) == ["hostid"]


def test_host_id(folder: Any) -> None:
    assert nvmeof.create_hostid(UUID) == UUID
    assert (folder / "hostid").read_text() == UUID + "\n"


def test_host_id_that_cannot_be_stored(folder: Any, caplog: pytest.LogCaptureFixture) -> None:
    folder.write_text("a file where the folder should be")

    assert nvmeof.create_hostid(UUID) is None
    assert nvmeof.create_hostnqn(UUID) == ""
    assert "Could not generate nvme host id" in caplog.text


@pytest.mark.parametrize(
    ("file", "script", "expected"),
    [
        (UUID + "\n", None, UUID),
        (None, f"echo {UUID}", UUID),
        ("\n", f"echo {UUID}", UUID),
        (None, "echo 'no SMBIOS' >&2; exit 1", ""),
        (None, "true", ""),
        (None, None, ""),
    ],
)
def test_system_uuid(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    programs: Any,
    caplog: pytest.LogCaptureFixture,
    file: Any,
    script: Any,
    expected: Any,
) -> None:
    path = tmp_path / "product_uuid"
    monkeypatch.setattr(nvmeof, "PRODUCT_UUID_FILE", str(path))
    if file is not None:
        path.write_text(file)
    if script:
        programs("dmidecode", script)

    assert nvmeof.get_system_uuid() == expected
    assert not caplog.records
