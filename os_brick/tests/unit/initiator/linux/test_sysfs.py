# SPDX-License-Identifier: Apache-2.0
"""Reading file trees: what is not there is an answer, what cannot be looked at is an error."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable

import pytest
from oslo_concurrency import processutils as putils

from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.sysfs import Tree
from os_brick.tests.unit.initiator.linux.trees import Folder

Reader = Callable[[Tree, str], object]

READERS: dict[str, tuple[Reader, object]] = {
    "names": (lambda tree, name: tree.names(name), []),
    "data": (lambda tree, name: tree.data(name), None),
    "text": (lambda tree, name: tree.text(name), ""),
    "number": (lambda tree, name: tree.number(name), None),
    "link_target": (lambda tree, name: tree.link_target(name), None),
    "link_name": (lambda tree, name: tree.link_name(name), None),
    "instance": (lambda tree, name: tree.instance(name), None),
    "device_number": (lambda tree, name: tree.device_number(name), None),
    "exists": (lambda tree, name: tree.exists(name), False),
    "real_path": (lambda tree, name: tree.real_path(name), None),
}
every_reader = pytest.mark.parametrize(("read", "nothing"), READERS.values(), ids=READERS)


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> Folder:
    return Folder(tmp_path / "sys")


@pytest.fixture
def tree(folder: Folder) -> Tree:
    return Tree(str(folder.root))


# -- absence and failure ---------------------------------------------------------------------------
@every_reader
def test_what_is_not_there_is_an_ordinary_answer(
    folder: Folder, tree: Tree, read: Reader, nothing: object
) -> None:
    folder.write("file", "x")
    folder.link("dangling", "nowhere")
    assert read(tree, "block") == nothing
    assert read(tree, "block/sda/size") == nothing
    assert read(tree, "file/below") == nothing  # a device's directory replaced by a file
    if read not in (READERS["link_target"][0], READERS["link_name"][0]):
        assert read(tree, "dangling") == nothing


@every_reader
def test_a_tree_that_is_not_mounted_is_an_error(
    tmp_path: pathlib.Path, read: Reader, nothing: object
) -> None:
    with pytest.raises(OSError, match="No such file"):
        read(Tree(str(tmp_path / "not-mounted")), "block")


@pytest.mark.parametrize(
    "name", [name for name in READERS if name not in ("link_target", "link_name")]
)
def test_links_in_a_circle_are_an_error(folder: Folder, tree: Tree, name: str) -> None:
    folder.link("one", "other")
    folder.link("other", "one")
    with pytest.raises(OSError, match="Too many levels"):
        READERS[name][0](tree, "one")


@every_reader
def test_a_name_that_cannot_be_looked_up_is_an_error(
    tree: Tree, read: Reader, nothing: object
) -> None:
    with pytest.raises(OSError, match="File name too long"):
        read(tree, "x" * 5000)


def test_an_input_error_is_an_error() -> None:
    # The first page of a process' memory is never mapped: reading it gives EIO.
    with pytest.raises(OSError, match="Input/output error"):
        Tree("/proc").data("self/mem")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["names", "data", "text", "number"])
def test_missing_permission_is_an_error(folder: Folder, tree: Tree, name: str) -> None:
    folder.write("secret/file")
    (folder.root / "secret").chmod(0)
    with pytest.raises(PermissionError):
        READERS[name][0](tree, "secret/file")


def test_a_directory_is_no_file(folder: Folder, tree: Tree) -> None:
    folder.directory("block")
    with pytest.raises(IsADirectoryError):
        tree.data("block")


# -- content ---------------------------------------------------------------------------------------
def test_names_come_sorted(folder: Folder, tree: Tree) -> None:
    for name in ("sdb", "sda", "dm-0"):
        folder.directory(f"block/{name}")
    assert tree.names("block") == ["dm-0", "sda", "sdb"]


def test_text_is_stripped_and_bytes_are_not(folder: Folder, tree: Tree) -> None:
    folder.write("vendor", "LIO-ORG ")
    assert tree.text("vendor") == "LIO-ORG"
    assert tree.data("vendor") == b"LIO-ORG \n"
    assert tree.text("model", default="unknown") == "unknown"


def test_bytes_that_are_no_text_do_no_harm(folder: Folder, tree: Tree) -> None:
    folder.write("model", b"\xff\xfe")
    assert tree.text("model")
    assert tree.number("model") is None


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 200_000])
@pytest.mark.parametrize("reads_pages", [False, True])
def test_a_file_is_read_whole(folder: Folder, size: int, reads_pages: bool) -> None:
    content = os.urandom(size)
    folder.write("pages", content)
    assert Tree(str(folder.root), reads_pages=reads_pages).data("pages") == content


def test_a_read_that_gives_little_is_not_the_end_unless_it_is_said_to_be(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/proc gives some lines at a time."""
    folder.write("mounts", b"one\ntwo\nthree\n")
    read = os.read
    monkeypatch.setattr(os, "read", lambda fd, size: read(fd, 4))
    assert Tree(str(folder.root)).data("mounts") == b"one\ntwo\nthree\n"
    assert Tree(str(folder.root), reads_pages=True).data("mounts") == b"one\n"


def test_what_the_kernel_tells_of_itself_is_read_as_it_gives_it() -> None:
    host = Host.of_execute(putils.execute, None, foreign=False)
    assert host.proc.data("self/mountinfo") == pathlib.Path("/proc/self/mountinfo").read_bytes()
    for name in ("kernel/notes", "kernel/mm/transparent_hugepage/enabled"):
        file = pathlib.Path("/sys", name)
        assert not file.exists() or host.sysfs.data(name) == file.read_bytes()


@pytest.mark.parametrize(
    ("text", "number"), [("2048", 2048), (" 7 ", 7), ("-1", -1), ("", None), ("0x10", None)]
)
def test_a_number_is_decimal(folder: Folder, tree: Tree, text: str, number: int | None) -> None:
    folder.write("size", text)
    assert tree.number("size") == number


def test_links_are_told_by_their_text(folder: Folder, tree: Tree) -> None:
    folder.directory("devices/3:0:0:1")
    folder.link("device", "devices/3:0:0:1/")
    assert tree.link_target("device") == "devices/3:0:0:1/"
    assert tree.link_name("device") == "3:0:0:1"
    assert tree.real_path("device") == str(folder.root.resolve() / "devices/3:0:0:1")
    assert tree.link_target("devices") is None


def test_an_object_that_comes_again_is_another_instance(folder: Folder, tree: Tree) -> None:
    folder.directory("sda")
    first = tree.instance("sda")
    assert first is not None
    assert tree.instance("sda") == first
    # Kept, so that its inode number is not free for the next one.
    (folder.root / "sda").rename(folder.root / "gone")
    folder.directory("sda")
    assert tree.instance("sda") not in (None, first)


def test_only_nodes_have_a_device_number(folder: Folder, tree: Tree) -> None:
    folder.write("sda")
    assert tree.device_number("sda") is None
    assert Tree("/dev").device_number("null") == (1, 3)


def test_paths_are_below_the_root(tree: Tree) -> None:
    assert tree.path("block", "sda") == f"{tree.root}/block/sda"
