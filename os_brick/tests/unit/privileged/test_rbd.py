# SPDX-License-Identifier: Apache-2.0
"""Configuration files of Ceph's that only root may read."""

from __future__ import annotations

import os
import pathlib
import stat
from collections.abc import Iterator

import pytest

from os_brick import exception, privileged
from os_brick.initiator.connectors.rbd import RBDConnector
from os_brick.privileged import rbd

NAME = "brickrbd_0123"


@pytest.fixture(autouse=True)
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """The folder of the files, and the verbs in this process."""
    monkeypatch.setattr(rbd, "FOLDER", str(tmp_path / "os-brick"))
    privileged.default.set_client_mode(False)
    yield tmp_path / "os-brick"
    privileged.default.set_client_mode(True)


def mode(path: str | pathlib.Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_a_file_is_for_root_only(folder: pathlib.Path) -> None:
    path = rbd.store_conf(NAME, "one\n")
    assert path == str(folder / NAME)
    assert (mode(folder), mode(path)) == (0o700, 0o600)
    assert rbd.store_conf(NAME, "two\n") == path
    assert pathlib.Path(path).read_text() == "two\n"
    assert os.listdir(folder) == [NAME]


def test_a_link_in_its_place_is_not_followed(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder.mkdir()
    (folder / NAME).symlink_to(tmp_path / "elsewhere")
    rbd.store_conf(NAME, "text")
    assert not (tmp_path / "elsewhere").exists()
    assert not (folder / NAME).is_symlink()


def test_what_cannot_be_written_whole_is_not_there(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(OSError, match="No space left"):
        rbd.store_conf(NAME, "S3cret")
    assert os.listdir(folder) == []


@pytest.mark.parametrize("name", ["", "ceph.conf", "brickrbd_/../x", "brickrbd_..x", "/brickrbd_x"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="configuration file"):
        rbd.store_conf(name, "text")


def test_deleting(folder: pathlib.Path) -> None:
    path = rbd.store_conf(NAME, "text")
    rbd.delete_if_exists(path)
    rbd.delete_if_exists(path)
    assert os.listdir(folder) == []


@pytest.mark.parametrize("path", ["/etc/ceph/ceph.conf", "brickrbd_x", "/x/brickrbd_x/ceph.conf"])
def test_nothing_else_is_deleted(path: str) -> None:
    with pytest.raises(ValueError, match="configuration file"):
        rbd.delete_if_exists(path)


def test_a_directory_of_that_name_stays(folder: pathlib.Path) -> None:
    (folder / NAME).mkdir(parents=True)
    rbd.delete_if_exists(str(folder / NAME))
    assert (folder / NAME).is_dir()


@pytest.mark.parametrize("keyring", ["[client.u]\n key = K\n", ""])
def test_a_file_with_a_keyring(folder: pathlib.Path, keyring: str) -> None:
    path = rbd.root_create_ceph_conf(["::1", "h"], ["1", "2"], "ceph", "u", keyring)
    assert pathlib.Path(path).parent == folder
    assert os.path.basename(path).startswith("brickrbd_")
    assert mode(path) == 0o600
    text = pathlib.Path(path).read_text()
    assert text == f"[global]\nmon_host = [::1]:1,h:2\n{keyring}\n"
    assert rbd.root_create_ceph_conf(["h"], ["1"], "ceph", "u", keyring) != path


def test_a_keyring_that_cannot_be_read(folder: pathlib.Path) -> None:
    with pytest.raises(exception.BrickException, match=r"nobody\.keyring is not readable"):
        rbd.root_create_ceph_conf(["h"], ["1"], "no-such-cluster", "nobody", None)
    assert not folder.exists()


def test_the_connectors_door() -> None:
    properties = {
        "name": "p/i",
        "hosts": ["h"],
        "ports": ["1"],
        "cluster_name": "ceph",
        "auth_username": "u",
    }
    assert RBDConnector.create_non_openstack_config(properties) is None
    path = RBDConnector.create_non_openstack_config({**properties, "keyring": "K"})
    assert path is not None
    assert pathlib.Path(path).read_text() == "[global]\nmon_host = h:1\nK\n"
    assert rbd.get_rbd_class() is RBDConnector


def test_reading(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    assert rbd.check_valid_path(str(tmp_path / "file"))
    assert not rbd.check_valid_path(str(tmp_path / "missing"))
    assert not rbd.check_valid_path(str(tmp_path))
