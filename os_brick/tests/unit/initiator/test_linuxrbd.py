# SPDX-License-Identifier: Apache-2.0
"""librbd's connection, image and file object, over images in memory."""

from __future__ import annotations

import gc
import io
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from os_brick import exception
from os_brick.initiator import linuxrbd
from os_brick.testing import FakeHost, librbd

SIZE = 10_000


@pytest.fixture
def conf(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "ceph.conf"
    path.write_text("[global]\nmon_host = 10.0.0.9:6789\n")
    return str(path)


class Opened:
    """A handle, and what it is over."""

    def __init__(self, host: FakeHost, conf: str) -> None:
        self.image = host.ceph.image(size=SIZE)
        self.image.content[:] = bytes(number % 251 for number in range(SIZE))
        self.bindings = host.ceph.bindings
        self.client = make_client(host, conf)
        self.volume = linuxrbd.RBDVolume(self.client, "volume-1")
        metadata = linuxrbd.RBDImageMetadata(self.volume, "volumes", "cinder", conf)
        self.handle = linuxrbd.RBDVolumeIOWrapper(metadata)


def make_client(host: FakeHost, conf: str, user: Any = "cinder", pool: Any = "volumes") -> Any:
    bindings = host.ceph.bindings
    return linuxrbd.RBDClient(user, pool, rados=bindings, rbd=bindings, conffile=conf)


@pytest.fixture
def opened(fake_host: FakeHost, conf: str) -> Opened:
    return Opened(fake_host, conf)


def nothing_open(host: FakeHost) -> bool:
    return not any(host.ceph.bindings.open.values())


class TestClient:
    def test_it_connects_in_its_constructor_and_ends_with_the_block(
        self, fake_host: FakeHost, conf: str
    ) -> None:
        fake_host.ceph.image()
        with make_client(fake_host, conf) as client:
            assert fake_host.ceph.bindings.open == {"client": 1, "ioctx": 1, "image": 0}
            assert client.ioctx.pool == "volumes"
            assert client.client is not None
        assert nothing_open(fake_host)
        client.disconnect()
        assert nothing_open(fake_host)

    def test_names_are_handed_on_as_text(self, fake_host: FakeHost, conf: str) -> None:
        fake_host.ceph.image()
        client = make_client(fake_host, conf, user=b"cinder", pool=b"volumes")
        assert (client.rbd_user, client.rbd_pool) == ("cinder", "volumes")
        assert (client.rbd_conf, client.rbd_cluster_name) == (conf, "ceph")

    def test_without_a_user(self, fake_host: FakeHost, conf: str) -> None:
        fake_host.ceph.image()
        assert make_client(fake_host, conf, user=None).rbd_user is None
        assert fake_host.ceph.bindings.clients[0][0] is None

    @pytest.mark.parametrize("missing", ["rados", "rbd"])
    def test_missing_bindings_are_named(self, fake_host: FakeHost, missing: str) -> None:
        modules = {"rados": fake_host.ceph.bindings, "rbd": fake_host.ceph.bindings}
        with pytest.raises(exception.InvalidParameterValue, match=f"^{missing} module required$"):
            linuxrbd.RBDClient("cinder", "volumes", **{**modules, missing: None})

    @pytest.mark.parametrize("step", ["connect", "open_ioctx"])
    def test_a_failure_keeps_cephs_words_and_leaves_nothing_open(
        self, fake_host: FakeHost, conf: str, step: str
    ) -> None:
        fake_host.ceph.image()
        fake_host.ceph.bindings.failures[step] = librbd.Error("[errno 13] permission denied")
        with pytest.raises(exception.BrickException) as caught:
            make_client(fake_host, conf)
        assert "Error connecting to ceph cluster." in str(caught.value)
        assert "permission denied" in str(caught.value)
        assert nothing_open(fake_host)

    def test_another_error_passes_and_leaves_nothing_open(
        self, fake_host: FakeHost, conf: str
    ) -> None:
        fake_host.ceph.bindings.failures["connect"] = MemoryError()
        with pytest.raises(MemoryError):
            make_client(fake_host, conf)
        assert nothing_open(fake_host)

    def test_no_such_pool(self, fake_host: FakeHost, conf: str) -> None:
        with pytest.raises(exception.BrickException, match="error opening pool 'volumes'"):
            make_client(fake_host, conf)
        assert nothing_open(fake_host)


class TestVolume:
    def test_what_it_does_not_have_is_the_images(self, opened: Opened) -> None:
        assert opened.volume.size() == SIZE
        assert opened.volume.name == "volume-1"
        assert opened.volume.client is opened.client
        with pytest.raises(AttributeError):
            opened.volume.no_such_thing  # noqa: B018 - the access is the test

    def test_closing_ends_the_connection_too(self, fake_host: FakeHost, opened: Opened) -> None:
        with opened.volume:
            pass
        assert nothing_open(fake_host)
        opened.volume.close()

    def test_the_connection_ends_though_closing_fails(
        self, fake_host: FakeHost, opened: Opened
    ) -> None:
        opened.bindings.failures["close"] = librbd.Error("late trouble")
        with pytest.raises(librbd.Error, match="late trouble"):
            opened.volume.close()
        assert nothing_open(fake_host)

    def test_the_connection_ends_if_there_is_no_such_image(
        self, fake_host: FakeHost, conf: str
    ) -> None:
        fake_host.ceph.image()
        with pytest.raises(librbd.ImageNotFound, match="RBD image not found"):
            linuxrbd.RBDVolume(make_client(fake_host, conf), "volume-2")
        assert nothing_open(fake_host)

    def test_a_snapshot_is_opened_by_its_name(self, fake_host: FakeHost, conf: str) -> None:
        fake_host.ceph.image()
        volume = linuxrbd.RBDVolume(make_client(fake_host, conf), b"volume-1", snapshot=b"snap")
        assert volume.image.snapshot == "snap"
        assert volume.read_only
        volume.close()


class TestMetadata:
    def test_names_are_text_and_empty_by_default(self) -> None:
        metadata = linuxrbd.RBDImageMetadata("image", b"pool", None, None)
        assert (metadata.image, metadata.pool) == ("image", "pool")
        assert (metadata.user, metadata.conf) == ("", "")


class TestReading:
    def test_to_the_end(self, opened: Opened) -> None:
        assert opened.handle.read() == bytes(opened.image.content)
        assert opened.handle.tell() == SIZE
        opened.handle.seek(9_990)
        assert opened.handle.read(-1) == bytes(opened.image.content[9_990:])
        opened.handle.seek(0)
        assert opened.handle.readall() == bytes(opened.image.content)

    def test_it_is_shortened_at_the_end(self, opened: Opened) -> None:
        opened.handle.seek(-10, io.SEEK_END)
        assert len(opened.handle.read(100)) == 10
        assert opened.handle.tell() == SIZE

    @pytest.mark.parametrize("length", [None, -1, 0, 1, 4096])
    @pytest.mark.parametrize("offset", [SIZE, SIZE + 1, 10 * SIZE])
    def test_nothing_comes_from_the_end_on(
        self, opened: Opened, offset: int, length: int | None
    ) -> None:
        opened.handle.seek(offset)
        assert opened.handle.read(length) == b""
        assert opened.handle.tell() == offset

    def test_a_failed_read_skips_nothing(
        self, opened: Opened, caplog: pytest.LogCaptureFixture
    ) -> None:
        opened.handle.seek(100)
        opened.bindings.failures["read"] = librbd.Error("no answer")
        with pytest.raises(librbd.Error, match="no answer"):
            opened.handle.read(10)
        assert opened.handle.tell() == 100
        assert "exception encountered during image read" in caplog.text
        assert opened.handle.read(10) == bytes(opened.image.content[100:110])

    def test_a_short_read_advances_by_what_came(self, opened: Opened) -> None:
        class Short:
            def size(self) -> int:
                return SIZE

            def read(self, offset: int, length: int) -> bytes:
                return b"x" * min(length, 3)

            def close(self) -> None:
                pass

            flush = close

        metadata = linuxrbd.RBDImageMetadata(Short(), "", "", "")
        handle = linuxrbd.RBDVolumeIOWrapper(metadata)
        assert handle.read(10) == b"xxx"
        assert handle.tell() == 3
        handle.close()

    def test_the_size_is_not_asked_for_by_each_read(self, opened: Opened) -> None:
        for _ in range(50):
            opened.handle.read(100)
        assert opened.bindings.size_asked == 1

    def test_an_image_that_grew_is_read_to_its_new_end(self, opened: Opened) -> None:
        opened.handle.read()
        opened.image.grow(SIZE + 5)
        assert opened.handle.read() == bytes(5)

    def test_an_image_that_shrank_is_told_by_an_error_and_then_read_as_it_is(
        self, opened: Opened
    ) -> None:
        opened.handle.read(10)
        del opened.image.content[20:]
        with pytest.raises(librbd.InvalidArgument):
            opened.handle.read(4096)
        assert len(opened.handle.read(4096)) == 10

    def test_it_serves_the_io_package(self, opened: Opened) -> None:
        assert opened.handle.readable()
        assert opened.handle.seekable()
        reader = io.BufferedReader(opened.handle, 777)
        copy = io.BytesIO()
        shutil.copyfileobj(reader, copy)
        assert copy.getvalue() == bytes(opened.image.content)
        opened.handle.seek(5)
        buffer = bytearray(7)
        assert opened.handle.readinto(buffer) == 7
        assert buffer == opened.image.content[5:12]

    @given(
        steps=st.lists(
            st.tuples(st.integers(0, SIZE + 20), st.one_of(st.none(), st.integers(-1, SIZE + 20))),
            max_size=20,
        )
    )
    def test_it_reads_like_a_file_in_memory(self, steps: list[tuple[int, int | None]]) -> None:
        content = bytes(number % 251 for number in range(SIZE))
        twin = io.BytesIO(content)
        handle = linuxrbd.RBDVolumeIOWrapper(
            linuxrbd.RBDImageMetadata(InMemory(content), "", "", "")
        )
        for offset, length in steps:
            assert handle.seek(offset) == twin.seek(offset)
            assert handle.read(length) == twin.read(length)
            assert handle.tell() == twin.tell()
        handle.close()


class InMemory:
    """An image that fails as librbd does on reads beyond its end."""

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)

    def size(self) -> int:
        return len(self.content)

    def read(self, offset: int, length: int) -> bytes:
        if offset + length > len(self.content):
            raise ValueError("beyond the end")
        return bytes(self.content[offset : offset + length])

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


class TestWritingAndSeeking:
    def test_write_returns_the_count_and_moves_on(self, opened: Opened) -> None:
        opened.handle.seek(100)
        assert opened.handle.write(b"abc") == 3
        assert opened.handle.write(bytearray(b"de")) == 2
        assert opened.handle.write(memoryview(b"f")) == 1
        assert opened.handle.tell() == 106
        assert opened.image.content[100:106] == b"abcdef"

    def test_a_failed_write_moves_nothing(self, opened: Opened) -> None:
        opened.handle.seek(SIZE - 1)
        with pytest.raises(librbd.InvalidArgument):
            opened.handle.write(b"ab")
        assert opened.handle.tell() == SIZE - 1

    def test_seek_returns_the_position(self, opened: Opened) -> None:
        assert opened.handle.seek(7) == 7
        assert opened.handle.seek(3, io.SEEK_CUR) == 10
        assert opened.handle.seek(-1, io.SEEK_END) == SIZE - 1
        assert opened.handle.seek(5, io.SEEK_END) == SIZE + 5

    @pytest.mark.parametrize(("offset", "whence"), [(-1, 0), (-8, 1), (-SIZE - 1, 2), (0, 3)])
    def test_a_position_that_cannot_be_changes_nothing(
        self, opened: Opened, offset: int, whence: int
    ) -> None:
        opened.handle.seek(7)
        with pytest.raises(IOError, match="Invalid argument"):
            opened.handle.seek(offset, whence)
        assert opened.handle.tell() == 7

    def test_whether_it_is_writable(self, fake_host: FakeHost, conf: str, opened: Opened) -> None:
        assert opened.handle.writable()
        volume = linuxrbd.RBDVolume(make_client(fake_host, conf), "volume-1", read_only=True)
        read_only = linuxrbd.RBDVolumeIOWrapper(linuxrbd.RBDImageMetadata(volume, "", "", ""))
        assert not read_only.writable()
        with pytest.raises(librbd.ReadOnlyImage):
            read_only.write(b"x")
        read_only.close()

    def test_there_is_no_descriptor(self, opened: Opened) -> None:
        with pytest.raises(io.UnsupportedOperation):
            opened.handle.fileno()
        with pytest.raises(OSError, match="fileno"):
            opened.handle.fileno()

    def test_requests_takes_it_for_an_upload(self, opened: Opened) -> None:
        utils = pytest.importorskip("requests.utils")
        opened.handle.seek(100)
        assert utils.super_len(opened.handle) == SIZE - 100


class TestFlushing:
    def test_it_reaches_the_image(self, opened: Opened) -> None:
        opened.handle.flush()
        assert opened.volume.image.flushed == 1

    def test_a_closed_handle_cannot(self, opened: Opened) -> None:
        opened.handle.close()
        with pytest.raises(ValueError, match="closed"):
            opened.handle.flush()

    def test_an_image_closed_underneath_is_a_warning(
        self, opened: Opened, caplog: pytest.LogCaptureFixture
    ) -> None:
        opened.volume.image.close()
        opened.handle.flush()
        assert "was closed" in caplog.text

    def test_an_old_librbd_is_a_warning(self, caplog: pytest.LogCaptureFixture) -> None:
        class Old:
            def close(self) -> None:
                pass

        handle = linuxrbd.RBDVolumeIOWrapper(linuxrbd.RBDImageMetadata(Old(), "", "", ""))
        handle.flush()
        assert "not supported in this version of librbd" in caplog.text
        handle.close()


class TestClosing:
    def test_all_is_closed_once(self, fake_host: FakeHost, opened: Opened) -> None:
        done: list[str] = []
        opened.handle.when_closed(lambda: done.append("closed"))
        opened.handle.close()
        opened.handle.close()
        assert opened.handle.closed
        assert done == ["closed"]
        assert nothing_open(fake_host)

    @pytest.mark.parametrize("step", ["flush", "close"])
    def test_a_failure_is_told_after_all_was_closed(
        self, fake_host: FakeHost, opened: Opened, step: str
    ) -> None:
        done: list[str] = []
        opened.handle.when_closed(lambda: done.append("closed"))
        opened.bindings.failures[step] = librbd.Error("not on the storage")
        with pytest.raises(librbd.Error, match="not on the storage"):
            opened.handle.close()
        assert opened.handle.closed
        assert done == ["closed"]
        assert nothing_open(fake_host)

    def test_the_garbage_collector_closes_it(self, fake_host: FakeHost, conf: str) -> None:
        done: list[str] = []
        opened = Opened(fake_host, conf)
        opened.handle.when_closed(lambda: done.append("closed"))
        del opened
        gc.collect()
        assert done == ["closed"]
        assert nothing_open(fake_host)

    @pytest.mark.parametrize(
        "use",
        [
            lambda handle: handle.read(1),
            lambda handle: handle.write(b"x"),
            lambda handle: handle.seek(0),
            lambda handle: handle.tell(),
            lambda handle: handle.readable(),
            lambda handle: handle.writable(),
        ],
    )
    def test_a_closed_handle_is_of_no_use(
        self, opened: Opened, use: Callable[[Any], object]
    ) -> None:
        opened.handle.close()
        with pytest.raises(ValueError, match="closed"):
            use(opened.handle)

    def test_what_it_knows(self, opened: Opened, conf: str) -> None:
        handle = opened.handle
        assert handle.rbd_image is opened.volume
        assert (handle.rbd_user, handle.rbd_pool, handle.rbd_conf) == ("cinder", "volumes", conf)


def test_importing_needs_no_bindings() -> None:
    assert hasattr(linuxrbd, "rados")
    assert hasattr(linuxrbd, "rbd")
