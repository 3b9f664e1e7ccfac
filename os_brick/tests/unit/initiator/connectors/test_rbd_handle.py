# SPDX-License-Identifier: Apache-2.0
"""RBD images as file objects of librbd."""

from __future__ import annotations

import errno
import gc
import logging
import os
import pathlib
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from oslo_config import cfg

from os_brick import exception, executor
from os_brick.initiator import linuxrbd
from os_brick.initiator.linux import rbd_conf
from os_brick.testing import FakeHost, librbd
from os_brick.testing.ceph import Image

KEYRING = "[client.cinder]\n\tkey = AQDsecretsecretsecret==\n"
SECRET = "AQDsecretsecretsecret"


@pytest.fixture(autouse=True)
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The directory of temporary files."""
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


@pytest.fixture
def image(fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> Iterator[Image]:
    """An image of a cluster whose bindings are installed; nothing of it may stay open."""
    monkeypatch.setattr(linuxrbd, "rados", fake_host.ceph.bindings)
    monkeypatch.setattr(linuxrbd, "rbd", fake_host.ceph.bindings)
    fake_host.ceph.world.etc.write("ceph/ceph.client.cinder.keyring", KEYRING.encode())
    made = fake_host.ceph.image()
    made.content[:5] = b"hello"
    yield made
    assert not any(fake_host.ceph.bindings.open.values())


def test_attach_use_and_detach(fake_host: FakeHost, image: Image, folder: pathlib.Path) -> None:
    connector = fake_host.connector("RBD")
    info = connector.connect_volume(image.properties)
    assert list(info) == ["path"]
    handle = info["path"]
    assert handle.read(5) == b"hello"
    handle.write(b" world")
    connector.disconnect_volume(image.properties, info)
    assert handle.closed
    assert image.content[:11] == b"hello world"
    assert os.listdir(folder) == []
    assert fake_host.started == []
    assert fake_host.leftovers() == []


def test_the_configuration_file(fake_host: FakeHost, image: Image, folder: pathlib.Path) -> None:
    properties = image.connection(hosts=["::1", "10.0.0.1"], ports=["6789", "3300"])
    with fake_host.connector("RBD").connect_volume(properties)["path"] as handle:
        conf = pathlib.Path(handle.rbd_conf)
        assert conf.parent == folder
        assert conf.name.startswith("brickrbd_")
        assert stat.S_IMODE(conf.stat().st_mode) == 0o600
        assert stat.S_ISREG(conf.stat().st_mode)
        assert conf.read_text() == (f"[global]\nmon_host = [::1]:6789,10.0.0.1:3300\n{KEYRING}\n")
        assert (handle.rbd_user, handle.rbd_pool) == ("cinder", "volumes")
    assert not conf.exists()


def test_another_program_can_read_it_while_the_handle_is_open(
    fake_host: FakeHost, image: Image
) -> None:
    with fake_host.connector("RBD").connect_volume(image.properties)["path"] as handle:
        out = subprocess.run(
            [sys.executable, "-c", "import sys; print(open(sys.argv[1]).read())", handle.rbd_conf],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    assert SECRET in out


@pytest.mark.parametrize("given", [KEYRING, ""])
def test_a_keyring_in_the_properties_counts_more(
    fake_host: FakeHost, image: Image, given: str
) -> None:
    properties = image.connection(auth_username="other", keyring=given)
    fake_host.connector("RBD").connect_volume(properties)["path"].close()
    assert fake_host.ceph.bindings.clients == [
        ("other", f"[global]\nmon_host = 10.0.0.9:6789\n{given}\n")
    ]


def test_without_a_user_there_is_no_keyring(fake_host: FakeHost, image: Image) -> None:
    properties = {**image.properties, "auth_username": None}
    fake_host.connector("RBD").connect_volume(properties)["path"].close()
    assert fake_host.ceph.bindings.clients == [(None, "[global]\nmon_host = 10.0.0.9:6789\n\n")]


@pytest.mark.parametrize("readable", [True, False])
def test_a_keyring_that_cannot_be_read(
    fake_host: FakeHost, image: Image, folder: pathlib.Path, readable: bool
) -> None:
    user = "nobody"
    if not readable:
        user = "cinder"
        fake_host.faults.unreadable("etc/ceph/*")
    with pytest.raises(exception.BrickException) as caught:
        fake_host.connector("RBD").connect_volume(image.connection(auth_username=user))
    assert f"Keyring path /etc/ceph/ceph.client.{user}.keyring is not readable" in str(caught.value)
    assert os.listdir(folder) == []


@pytest.mark.parametrize("key", ["name", "hosts", "ports", "cluster_name", "auth_username"])
def test_missing_keys_are_named(
    fake_host: FakeHost, image: Image, folder: pathlib.Path, key: str
) -> None:
    properties = {name: value for name, value in image.properties.items() if name != key}
    with pytest.raises(exception.BrickException, match="malformed connection properties") as caught:
        fake_host.connector("RBD").connect_volume(properties)
    assert key in str(caught.value)
    assert os.listdir(folder) == []


@pytest.mark.parametrize("step", ["connect", "open_ioctx", "open"])
def test_nothing_is_left_when_opening_fails(
    fake_host: FakeHost, image: Image, folder: pathlib.Path, step: str
) -> None:
    fake_host.ceph.bindings.failures[step] = librbd.Error("[errno 13] no permission")
    with pytest.raises((exception.BrickException, librbd.Error), match="no permission"):
        fake_host.connector("RBD").connect_volume(image.properties)
    assert os.listdir(folder) == []


def test_an_image_that_is_missing(fake_host: FakeHost, image: Image, folder: pathlib.Path) -> None:
    with pytest.raises(librbd.ImageNotFound, match="volume-2"):
        fake_host.connector("RBD").connect_volume(image.connection(name="volumes/volume-2"))
    assert os.listdir(folder) == []


def test_bindings_that_are_missing(
    fake_host: FakeHost,
    image: Image,
    folder: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(linuxrbd, "rados", None)
    with pytest.raises(exception.InvalidParameterValue, match="rados module required"):
        fake_host.connector("RBD").connect_volume(image.properties)
    assert os.listdir(folder) == []


def test_a_folder_that_is_not_there(
    fake_host: FakeHost, image: Image, folder: pathlib.Path
) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    folder.rmdir()
    with pytest.raises(FileNotFoundError):
        fake_host.connector("RBD").connect_volume(image.properties)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_many_cycles_leak_nothing(fake_host: FakeHost, image: Image, folder: pathlib.Path) -> None:
    connector = fake_host.connector("RBD")
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        info = connector.connect_volume(image.properties)
        connector.disconnect_volume(image.properties, info, force=True, ignore_errors=True)
    assert fake_host.ceph.bindings.opened == {"client": 50, "ioctx": 50, "image": 50}
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert os.listdir(folder) == []


def test_a_handle_that_nobody_closes(
    fake_host: FakeHost, image: Image, folder: pathlib.Path
) -> None:
    fake_host.connector("RBD").connect_volume(image.properties)["path"].read(1)
    gc.collect()
    assert os.listdir(folder) == []


def test_a_killed_process_leaves_no_secret_and_its_link_goes_with_the_next_handle(
    folder: pathlib.Path,
) -> None:
    program = (
        "import os, tempfile\n"
        f"tempfile.tempdir = {str(folder)!r}\n"
        "from os_brick.initiator.linux import rbd_conf\n"
        "rbd_conf.HandleConf('S3cret')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    (left,) = folder.iterdir()
    assert left.is_symlink()
    assert not left.exists()
    made = rbd_conf.HandleConf("another")
    assert [path.name for path in folder.iterdir()] == [os.path.basename(made.path)]
    made.remove()
    made.remove()


def test_a_forked_child_leaves_its_parents_file_alone(folder: pathlib.Path) -> None:
    made = rbd_conf.HandleConf("text")
    pid = os.fork()
    if pid == 0:
        made.remove()
        os._exit(0)
    os.waitpid(pid, 0)
    assert pathlib.Path(made.path).read_text() == "text"
    made.remove()


def test_a_cluster_that_does_not_answer_keeps_nobody_beyond_the_deadline(
    fake_host: FakeHost, image: Image, folder: pathlib.Path
) -> None:
    fake_host.ceph.be("silent")
    connector = fake_host.connector("RBD")
    with pytest.raises(exception.DeadlineExceeded) as caught:
        connector.connect_volume(image.properties)
    assert fake_host.now <= cfg.CONF.os_brick.call_timeout + 5
    assert "volumes/volume-1" in str(caught.value)
    # What opens after that is closed at once.
    fake_host.ceph.be("up")
    fake_host.pass_time(60)
    assert fake_host.ceph.bindings.opened["image"] == 1
    assert os.listdir(folder) == []


def test_a_cluster_that_refuses(fake_host: FakeHost, image: Image) -> None:
    fake_host.ceph.be("refuses")
    with pytest.raises(exception.BrickException, match="Error connecting to ceph cluster"):
        fake_host.connector("RBD").connect_volume(image.properties)


@pytest.mark.parametrize("changed", [{"access_mode": "ro"}, {"name": "volumes/volume-1@snap"}])
def test_what_is_only_read_is_opened_so(
    fake_host: FakeHost, image: Image, changed: dict[str, Any]
) -> None:
    properties = image.connection(**changed)
    with fake_host.connector("RBD").connect_volume(properties)["path"] as handle:
        assert not handle.writable()
        with pytest.raises(librbd.ReadOnlyImage):
            handle.write(b"x")


@pytest.mark.parametrize("device_info", [None, {}, {"path": None}, object(), {"type": "x"}])
def test_a_detach_without_a_handle_does_nothing(
    fake_host: FakeHost, image: Image, device_info: Any
) -> None:
    fake_host.connector("RBD").disconnect_volume(image.properties, device_info)
    assert fake_host.journal == []


def test_a_detach_twice(fake_host: FakeHost, image: Image) -> None:
    connector = fake_host.connector("RBD")
    info = connector.connect_volume(image.properties)
    connector.disconnect_volume(image.properties, info)
    connector.disconnect_volume(image.properties, info)


def test_an_encrypted_image_has_no_link(fake_host: FakeHost, image: Image) -> None:
    connector = fake_host.connector("RBD")
    properties = image.connection(encrypted=True)
    info = connector.connect_volume(properties)
    assert info["path"].read(5) == b"hello"
    connector.disconnect_volume(properties, info)
    assert fake_host.journal == []


@pytest.mark.parametrize(
    ("force", "ignore_errors", "raised"),
    [
        (False, False, librbd.Error),
        (False, True, librbd.Error),
        (True, False, exception.ExceptionChainer),
        (True, True, None),
    ],
)
def test_data_that_did_not_reach_the_storage(
    fake_host: FakeHost,
    image: Image,
    folder: pathlib.Path,
    force: bool,
    ignore_errors: bool,
    raised: type[Exception] | None,
) -> None:
    connector = fake_host.connector("RBD")
    info = connector.connect_volume(image.properties)
    fake_host.ceph.bindings.failures["flush"] = librbd.Error("not written")
    words = {"force": force, "ignore_errors": ignore_errors}
    if raised is None:
        connector.disconnect_volume(image.properties, info, **words)
    else:
        with pytest.raises(raised, match="not written"):
            connector.disconnect_volume(image.properties, info, **words)
    assert info["path"].closed
    assert os.listdir(folder) == []


def test_a_services_own_handle_is_closed_and_its_file_removed(
    fake_host: FakeHost, image: Image, folder: pathlib.Path
) -> None:
    class Handle:
        rbd_conf = str(folder / "brickrbd_x")
        closed = False

        def close(self) -> None:
            self.closed = True

    (folder / "brickrbd_x").write_text("S3cret")
    (folder / "ceph.conf").write_text("the host's own")
    handle = Handle()
    fake_host.connector("RBD").disconnect_volume(image.properties, {"path": handle})
    handle.rbd_conf = str(folder / "ceph.conf")
    fake_host.connector("RBD").disconnect_volume(image.properties, {"path": handle})
    assert handle.closed
    assert os.listdir(folder) == ["ceph.conf"]


def test_what_is_no_handle_is_refused(fake_host: FakeHost, image: Image) -> None:
    with pytest.raises(exception.InvalidIOHandleObject):
        fake_host.connector("RBD").disconnect_volume(image.properties, {"path": 5})


class TestCheckValidDevice:
    def test_a_handle_keeps_its_position(self, fake_host: FakeHost, image: Image) -> None:
        connector = fake_host.connector("RBD")
        with connector.connect_volume(image.properties)["path"] as handle:
            handle.seek(3)
            assert connector.check_valid_device(handle)
            assert handle.tell() == 3

    def test_a_handle_that_fails(self, fake_host: FakeHost, image: Image) -> None:
        connector = fake_host.connector("RBD")
        with connector.connect_volume(image.properties)["path"] as handle:
            handle.seek(3)
            fake_host.ceph.bindings.failures["read"] = librbd.Error("no")
            assert not connector.check_valid_device(handle, False)
            assert handle.tell() == 3

    @pytest.mark.parametrize("path", [None, "", b""])
    def test_nothing_is_not_valid(self, fake_host: FakeHost, path: Any) -> None:
        assert not fake_host.connector("RBD").check_valid_device(path)

    def test_a_path_without_root(self, fake_host: FakeHost, tmp_path: pathlib.Path) -> None:
        file = tmp_path / "file"
        connector = fake_host.connector("RBD")
        assert not connector.check_valid_device(str(file), run_as_root=False)
        file.write_bytes(b"x")
        assert connector.check_valid_device(str(file), run_as_root=False)
        assert connector.check_valid_device(str(file).encode(), run_as_root=False)

    @pytest.mark.parametrize("foreign", [True, False])
    def test_a_path_as_root(self, fake_host: FakeHost, foreign: bool) -> None:
        device = fake_host.ceph.map(fake_host.ceph.image())
        connector = fake_host.connector("RBD", foreign=foreign)
        assert connector.check_valid_device(f"/dev/{device.name}")
        assert not connector.check_valid_device("/dev/rbd9")
        fake_host.ceph.be("silent")
        assert not connector.check_valid_device(f"/dev/{device.name}")


def test_extend_returns_the_new_size(
    fake_host: FakeHost, image: Image, folder: pathlib.Path
) -> None:
    image.grow(3 << 20)
    assert fake_host.connector("RBD").extend_volume(image.properties) == 3 << 20
    assert os.listdir(folder) == []


def test_extend_that_fails_leaves_nothing(
    fake_host: FakeHost, image: Image, folder: pathlib.Path
) -> None:
    properties = image.connection(name="volumes/volume-2")
    with pytest.raises(librbd.ImageNotFound):
        fake_host.connector("RBD").extend_volume(properties)
    assert os.listdir(folder) == []


def test_no_log_and_no_error_holds_the_key(
    fake_host: FakeHost,
    image: Image,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    connector = fake_host.connector("RBD")
    properties = image.connection(keyring=KEYRING)
    info = connector.connect_volume(properties)
    connector.disconnect_volume(properties, info)
    said = []
    for step in ("connect", "open"):
        fake_host.ceph.bindings.failures[step] = librbd.Error("no")
        with pytest.raises((exception.BrickException, librbd.Error)) as caught:
            connector.connect_volume(properties)
        said.append(f"{caught.value!r} {caught.value.timeline}")  # type: ignore[attr-defined]
    assert "volumes/volume-1" in caplog.text
    assert SECRET not in caplog.text + "".join(said)


def test_the_callers_dictionary_is_not_changed(fake_host: FakeHost, image: Image) -> None:
    properties = image.properties
    before = dict(properties)
    connector = fake_host.connector("RBD")
    connector.disconnect_volume(properties, connector.connect_volume(properties))
    assert properties == before


def test_a_full_disk_is_told(
    fake_host: FakeHost, image: Image, monkeypatch: pytest.MonkeyPatch, folder: pathlib.Path
) -> None:
    def full(*_args: Any, **_words: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "symlink", full)
    with pytest.raises(OSError, match="No space left"):
        fake_host.connector("RBD").connect_volume(image.properties)
    assert os.listdir(folder) == []


@pytest.mark.parametrize("force", [False, True])
def test_a_cluster_that_is_silent_at_the_detach(
    fake_host: FakeHost, image: Image, force: bool
) -> None:
    connector = fake_host.connector("RBD")
    info = connector.connect_volume(image.properties)
    info["path"].write(b"data")
    fake_host.ceph.be("silent")
    with pytest.raises(exception.BrickException):
        connector.disconnect_volume(image.properties, info, force=force)
    assert fake_host.now <= cfg.CONF.os_brick.call_timeout + 5
    fake_host.ceph.be("up")
    fake_host.pass_time(60)


def test_a_cluster_that_is_silent_at_an_extend(
    fake_host: FakeHost, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = librbd.OpenImage.size

    def size(self: librbd.OpenImage) -> int:
        fake_host.ceph.be("silent")
        return own(self)

    monkeypatch.setattr(librbd.OpenImage, "size", size)
    with pytest.raises(exception.DeadlineExceeded):
        fake_host.connector("RBD").extend_volume(image.properties)
    assert fake_host.now <= cfg.CONF.os_brick.call_timeout + 5
    fake_host.ceph.be("up")
    fake_host.pass_time(60)


def test_where_no_thread_can_be_had_the_key_does_not_stay(
    fake_host: FakeHost, image: Image, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_self: executor.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(executor.Thread, "start", start)
    with pytest.raises(RuntimeError):
        fake_host.connector("RBD").connect_volume(image.properties)
    assert os.listdir(folder) == []


def test_a_configuration_that_cannot_be_looked_at_may_be_in_use(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process of the same user need not let this one look."""
    conf = rbd_conf.HandleConf("text")
    own = os.stat

    def look(path: Any, **how: Any) -> os.stat_result:
        if path == conf.path and how.get("follow_symlinks", True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return own(path, **how)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", look)
        rbd_conf.remove_dead(str(folder))
    assert os.path.islink(conf.path)
    conf.remove()
