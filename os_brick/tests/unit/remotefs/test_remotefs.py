# SPDX-License-Identifier: Apache-2.0
"""Mounting shares: one counts as mounted only if the mount table says so."""

from __future__ import annotations

import hashlib
import logging
import os
import pathlib
import tempfile
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oslo_concurrency import processutils
from oslo_config import cfg

from os_brick import exception
from os_brick.initiator.linux.locking import Locks
from os_brick.remotefs import remotefs
from os_brick.testing import FakeHost

SHARE = "172.18.194.100:/var/nfs"
POINT = "/mnt/test/" + hashlib.md5(SHARE.encode(), usedforsecurity=False).hexdigest()
#: The options tried where none are configured that name a version.
DEFAULT_TRIES = ["vers=4,minorversion=2", "vers=4,minorversion=1", ""]


def client(host: FakeHost, kind: str = "nfs", **keywords: Any) -> Any:
    prefix = "smbfs" if kind == "cifs" else kind
    keywords.setdefault(f"{prefix}_mount_point_base", "/mnt/test")
    classes = {
        "scality": remotefs.ScalityRemoteFsClient,
        "vzstorage": remotefs.VZStorageRemoteFSClient,
    }
    host.remember()
    made = classes.get(kind, remotefs.RemoteFsClient)
    return made(kind, "sudo", host=host.host, **keywords)


def tries(host: FakeHost) -> list[str]:
    """The options of each mount that was started."""
    found = []
    for words in host.started:
        if words[0] == "mount":
            found.append(words[words.index("-o") + 1] if "-o" in words else "")
    return found


# -- names ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "prefix"),
    [
        ("nfs", "nfs"),
        ("cifs", "smbfs"),
        ("glusterfs", "glusterfs"),
        ("vzstorage", "vzstorage"),
        ("quobyte", "quobyte"),
        ("scality", "scality"),
    ],
)
def test_each_type_has_its_base(kind: str, prefix: str) -> None:
    keywords: dict[str, Any] = {f"{prefix}_mount_point_base": "/mnt/test"}
    assert remotefs.RemoteFsClient(kind, "sudo", **keywords).get_mount_base() == "/mnt/test"
    bases: list[dict[str, Any]] = [{}, {f"{prefix}_mount_point_base": ""}]
    for base in bases:
        with pytest.raises(
            exception.InvalidParameterValue, match=f"^{prefix}_mount_point_base required$"
        ):
            remotefs.RemoteFsClient(kind, "sudo", **base)


@pytest.mark.parametrize("kind", ["smbfs", "NFS", "ext4", ""])
def test_no_other_type_is_supported(kind: str) -> None:
    with pytest.raises(exception.ProtocolNotSupported, match=f"protocol {kind} not supported"):
        remotefs.RemoteFsClient(kind, "sudo", nfs_mount_point_base="/mnt")


@pytest.mark.parametrize(
    ("share", "digest"),
    [
        ("172.18.194.100:/var/nfs", "df0808229363aad55c27da50c38d6328"),
        ("192.0.2.1:/volumes/ä", "67dc6b883aef3d32d41c5b65eaca2ce0"),
    ],
)
def test_the_mount_point_is_named_by_a_digest(share: str, digest: str) -> None:
    made = remotefs.RemoteFsClient("nfs", "sudo", nfs_mount_point_base="/mnt/test")
    assert made.get_mount_point(share) == f"/mnt/test/{digest}"
    assert made._get_hash_str(share.encode()) == digest


def test_the_digest_is_had_on_a_host_that_forbids_md5_for_security(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = hashlib.md5

    def guarded(data: bytes = b"", *, usedforsecurity: bool = True) -> Any:
        if usedforsecurity:
            raise ValueError("disabled for FIPS")
        return real(data, usedforsecurity=False)

    monkeypatch.setattr(hashlib, "md5", guarded)
    made = remotefs.RemoteFsClient("nfs", "sudo", nfs_mount_point_base="/mnt/test")
    assert made.get_mount_point(SHARE) == POINT


# -- mounting ------------------------------------------------------------------------------------
def test_a_share_is_mounted_and_found_mounted(fake_host: FakeHost) -> None:
    fake_host.shares.share(SHARE)
    nfs = client(fake_host)
    nfs.mount(SHARE)
    assert fake_host.started == [
        ("mkdir", "-p", POINT),
        ("mount", "-t", "nfs", "-o", DEFAULT_TRIES[0], SHARE, POINT),
    ]
    assert nfs._read_mounts()[POINT] == SHARE
    fake_host.forget()
    nfs.mount(SHARE)
    assert fake_host.started == []


def test_what_runs_as_root(fake_host: FakeHost) -> None:
    fake_host.shares.share(SHARE)
    seen: list[tuple[str, bool, Any, Any]] = []

    def execute(*words: str, **keywords: Any) -> tuple[str, str]:
        seen.append(
            (
                words[0],
                keywords.get("run_as_root", False),
                keywords.get("root_helper"),
                keywords["check_exit_code"],
            )
        )
        return fake_host.execute(*words, **keywords)

    client(fake_host, execute=execute).mount(SHARE)
    assert seen == [("mkdir", False, None, [0]), ("mount", True, "sudo", [0])]


@pytest.mark.parametrize(
    ("kind", "share", "options"),
    [
        ("cifs", "//192.0.2.1/share", "user=x"),
        ("glusterfs", "192.0.2.1:/volume", None),
        ("glusterfs", "192.0.2.1:/volume", "backup-volfile-servers=192.0.2.2"),
        ("quobyte", "quobyte://192.0.2.1/volume", None),
    ],
)
def test_the_words_of_other_types(
    fake_host: FakeHost, kind: str, share: str, options: str | None
) -> None:
    fake_host.shares.share(share, kind)
    prefix = "smbfs" if kind == "cifs" else kind
    made = client(fake_host, kind, **{f"{prefix}_mount_options": options})
    made.mount(share, ["-v"])
    given = ("-o", options) if options else ()
    assert fake_host.started[-1] == (
        *("mount", "-t", kind, *given),
        *("-v", share, made.get_mount_point(share)),
    )


def test_flags_come_after_the_options(fake_host: FakeHost) -> None:
    fake_host.shares.share(SHARE)
    client(fake_host, nfs_mount_options="soft,vers=3").mount(SHARE, ["-o", "hard"])
    assert fake_host.started[-1] == (
        *("mount", "-t", "nfs", "-o", "soft,vers=3"),
        *("-o", "hard", SHARE, POINT),
    )


def test_mkdir_that_fails_is_told(fake_host: FakeHost) -> None:
    fake_host.shares.share(SHARE)
    fake_host.faults.fail("mkdir", code=1, err="mkdir: cannot create directory: denied")
    with pytest.raises(processutils.ProcessExecutionError, match="denied"):
        client(fake_host).mount(SHARE)
    assert tries(fake_host) == []


def test_the_root_of_the_table(fake_host: FakeHost) -> None:
    fake_host.shares.occupy("/mnt/a b\\c", "server:/x y", "nfs4")
    assert client(fake_host)._read_mounts()["/mnt/a b\\c"] == "server:/x y"


# -- what must not be believed ---------------------------------------------------------------------
def test_a_mount_that_was_stopped_is_never_used(fake_host: FakeHost) -> None:
    fake_host.shares.share(SHARE)
    fake_host.faults.hang("mount")
    with pytest.raises(exception.BrickException, match="NFS mount failed for share"):
        client(fake_host).mount(SHARE)
    assert len(tries(fake_host)) == 1
    assert fake_host.now <= cfg.CONF.os_brick.call_timeout + 5


def test_nor_if_it_was_done_at_that_moment(fake_host: FakeHost) -> None:
    fake_host.shares.share(SHARE)
    fake_host.faults.hang("mount")
    fake_host.after(100, lambda: fake_host.shares.occupy(POINT, SHARE, "nfs4"))
    nfs = client(fake_host)
    with pytest.raises(exception.BrickException):
        nfs.mount(SHARE)
    nfs.mount(SHARE)  # now the table says so


@pytest.mark.parametrize("kind", ["nfs", "glusterfs"])
def test_an_exit_code_is_not_enough(fake_host: FakeHost, kind: str) -> None:
    fake_host.shares.share(SHARE, kind)
    fake_host.faults.fail("mount", code=0)
    with pytest.raises(exception.BrickException, match="it is not mounted at"):
        client(fake_host, kind).mount(SHARE)


@pytest.mark.parametrize("source", ["/dev/sdz1", "192.0.2.9:/var/nfs", "172.18.194.100:/var"])
def test_a_point_that_something_else_occupies(fake_host: FakeHost, source: str) -> None:
    fake_host.shares.share(SHARE)
    fake_host.shares.occupy(POINT, source)
    nfs = client(fake_host)
    with pytest.raises(exception.BrickException) as caught:
        nfs.mount(SHARE)
    assert source in str(caught.value)
    assert POINT in str(caught.value)
    assert fake_host.started == []


def test_of_mounts_on_top_of_each_other_the_last_counts(fake_host: FakeHost) -> None:
    fake_host.shares.share(SHARE)
    nfs = client(fake_host)
    nfs.mount(SHARE)
    fake_host.shares.occupy(POINT)
    with pytest.raises(exception.BrickException, match="/dev/sdz1 is mounted at"):
        nfs.mount(SHARE)


def test_a_mount_table_that_cannot_be_read_is_no_absence(fake_host: FakeHost) -> None:
    fake_host.shares.share(SHARE)
    nfs = client(fake_host)
    fake_host.faults.unreadable("proc/self/mountinfo")
    with pytest.raises(OSError, match="denied"):
        nfs.mount(SHARE)
    assert fake_host.started == []


@pytest.mark.parametrize("base", ["/mnt/with blank", "/mnt/test/", "/mnt//test"])
def test_a_base_however_it_is_written(fake_host: FakeHost, base: str) -> None:
    fake_host.shares.share(SHARE)
    nfs = client(fake_host, nfs_mount_point_base=base)
    point = nfs.get_mount_point(SHARE)
    fake_host.shares.occupy(os.path.normpath(point), SHARE, "nfs4")
    nfs.mount(SHARE)
    assert fake_host.started == []


def test_a_base_that_is_a_link(fake_host: FakeHost, tmp_path: pathlib.Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    nfs = client(fake_host, nfs_mount_point_base=str(tmp_path / "link"))
    name = os.path.basename(nfs.get_mount_point(SHARE))
    fake_host.shares.occupy(f"{tmp_path}/real/{name}", SHARE, "nfs4")
    nfs.mount(SHARE)
    assert fake_host.started == []


def test_a_subclass_may_mount_in_its_own_way(fake_host: FakeHost) -> None:
    class Own(remotefs.RemoteFsClient):
        def _do_mount(
            self,
            mount_type: str,
            share: str,
            mount_path: str,
            mount_options: str | None = None,
            flags: Any = None,
        ) -> None:
            fake_host.shares.occupy(mount_path, share, "nfs4")

    fake_host.remember()
    made = Own("nfs", "sudo", host=fake_host.host, nfs_mount_point_base="/mnt/test")
    made.mount(SHARE, ["-v"])
    assert made.is_mounted(SHARE)


def test_services_call_the_parts_by_themselves(fake_host: FakeHost) -> None:
    fake_host.shares.share(SHARE)
    fake_host.shares.directories.add("/mnt/elsewhere")
    nfs = client(fake_host)
    nfs._mount_nfs(SHARE, "/mnt/elsewhere", flags=["-v"])
    assert mounts_at(fake_host, "/mnt/elsewhere") == 1
    fake_host.shares.mounted.clear()
    fake_host.devices.show_mounts()
    fake_host.faults.fail("mount", code=32, err="mount.nfs: x is busy or already mounted")
    with pytest.raises(processutils.ProcessExecutionError, match="busy or already mounted"):
        nfs._do_mount("nfs", SHARE, "/mnt/elsewhere")


# -- several at once -----------------------------------------------------------------------------
def mounts_at(host: FakeHost, point: str) -> int:
    return sum(one.point == point for one in host.shares.mounted)


@pytest.mark.parametrize("share_locks", [True, False])
def test_two_processes_mount_once_and_both_succeed(fake_host: FakeHost, share_locks: bool) -> None:
    fake_host.shares.share(SHARE)
    if not share_locks:

        def none() -> str:
            raise cfg.RequiredOptError("lock_path", cfg.OptGroup("os_brick"))

        object.__setattr__(fake_host.host, "locks", Locks(none))
    fake_host.faults.slow("mount", seconds=1)
    errors: list[Exception] = []

    def run() -> None:
        try:
            client(fake_host).mount(SHARE)
        except Exception as exc:  # noqa: BLE001 - told by the assertion below
            errors.append(exc)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    with fake_host.idle():
        for thread in threads:
            thread.join()
    assert errors == []
    assert mounts_at(fake_host, POINT) == 1


def test_the_loser_of_a_race_succeeds_without_another_try(fake_host: FakeHost) -> None:
    share = fake_host.shares.share(SHARE)
    nfs = client(fake_host)
    fake_host.faults.slow("mount", seconds=1)

    def other_process() -> None:
        fake_host.shares.occupy(POINT, SHARE, "nfs4").share = share

    fake_host.after(0.5, other_process)
    nfs.mount(SHARE)
    assert len(tries(fake_host)) == 1
    assert mounts_at(fake_host, POINT) == 1


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("nfs", f"mount.nfs: {POINT} is busy or already mounted"),
        ("glusterfs", "Mount failed. Already mounted"),
        ("cifs", "mount error(16): already mounted or busy"),
    ],
)
def test_already_mounted_is_believed_only_with_the_table(
    fake_host: FakeHost, kind: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    share = "//a/b" if kind == "cifs" else SHARE
    made = client(fake_host, kind)
    fake_host.faults.fail("mount", code=32, err=text)
    with pytest.raises((exception.BrickException, processutils.ProcessExecutionError)) as caught:
        made.mount(share)
    assert "already mounted" in str(caught.value).lower()
    assert "Failed to mount" in caplog.text
    assert len(tries(fake_host)) == 1


def test_a_dead_server_keeps_nobody_else(fake_host: FakeHost) -> None:
    fake_host.shares.share(SHARE).state = "silent"
    fake_host.shares.share("192.0.2.2:/other")
    nfs = client(fake_host)

    def mount_from_the_dead() -> None:
        with pytest.raises(exception.BrickException):
            nfs.mount(SHARE)

    thread = threading.Thread(target=mount_from_the_dead)
    thread.start()
    nfs.mount("192.0.2.2:/other")
    assert fake_host.now < 10
    with fake_host.idle():
        thread.join()


# -- versions of NFS -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (None, DEFAULT_TRIES),
        ("", DEFAULT_TRIES),
        ("soft", ["soft,vers=4,minorversion=2", "soft,vers=4,minorversion=1", "soft"]),
        ("soft,vers=3", ["soft,vers=3"]),
        ("nfsvers=4.1", ["nfsvers=4.1"]),
        ("v3", ["v3"]),
        ("v4.2,soft", ["v4.2,soft"]),
        (
            "minorversion=1,soft",
            [
                "soft,vers=4,minorversion=2",
                "soft,vers=4,minorversion=1",
                "minorversion=1,soft",
            ],
        ),
        ("xvers=3", [f"xvers=3,{one}".rstrip(",") for one in DEFAULT_TRIES]),
    ],
)
def test_the_versions_tried(fake_host: FakeHost, options: str | None, expected: list[str]) -> None:
    fake_host.shares.share(SHARE).refusal = "requested NFS version is not supported"
    with pytest.raises(exception.BrickException, match="NFS mount failed for share") as caught:
        client(fake_host, nfs_mount_options=options).mount(SHARE)
    assert tries(fake_host) == expected
    assert str(caught.value).count("requested NFS version") == len(expected)


@pytest.mark.parametrize(
    ("versions", "options"),
    [({"4.2"}, DEFAULT_TRIES[0]), ({"4.1"}, DEFAULT_TRIES[1]), ({"3"}, DEFAULT_TRIES[2])],
)
def test_the_newest_that_the_server_speaks_is_used(
    fake_host: FakeHost, versions: set[str], options: str
) -> None:
    fake_host.shares.share(SHARE).versions = frozenset(versions)
    client(fake_host).mount(SHARE)
    assert tries(fake_host)[-1] == options
    assert mounts_at(fake_host, POINT) == 1


@pytest.mark.parametrize("state", ["silent", "refuses"])
def test_a_server_that_cannot_be_reached_is_tried_once(fake_host: FakeHost, state: str) -> None:
    fake_host.shares.share(SHARE).state = state
    with pytest.raises(exception.BrickException, match="NFS mount failed for share"):
        client(fake_host).mount(SHARE)
    assert len(tries(fake_host)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "mount.nfs: Connection refused",
        "mount.nfs: No route to host",
        "mount.nfs: Connection timed out",
        "mount.nfs: Network is unreachable",
        "mount.nfs: Failed to resolve server nowhere: Name or service not known",
    ],
)
def test_what_is_no_matter_of_the_version(fake_host: FakeHost, text: str) -> None:
    fake_host.faults.fail("mount", code=32, err=text, times=9)
    with pytest.raises(exception.BrickException, match="NFS mount failed for share"):
        client(fake_host).mount(SHARE)
    assert len(tries(fake_host)) == 1


@pytest.mark.parametrize(
    "flags",
    [["-o", "vers=3"], ["-overs=3,soft"], ["--options=nfsvers=4.1"], ["-v", "-o", "soft,v4.1"]],
)
def test_a_version_in_the_flags_counts(fake_host: FakeHost, flags: list[str]) -> None:
    fake_host.shares.share(SHARE)
    client(fake_host, nfs_mount_options="soft").mount(SHARE, flags)
    assert [words for words in fake_host.started if words[0] == "mount"] == [
        ("mount", "-t", "nfs", "-o", "soft", *flags, SHARE, POINT)
    ]


@pytest.mark.parametrize(
    ("options", "name", "value", "result"),
    [
        (None, "vers", "4", "vers=4"),
        ("", "vers", "4", "vers=4"),
        ("soft", "vers", "4", "soft,vers=4"),
        ("vers=3, soft", "vers", "4", "soft,vers=4"),
        ("versatile=1", "vers", "4", "versatile=1,vers=4"),
        ("soft", "soft", None, "soft"),
    ],
)
def test_setting_an_option(options: str | None, name: str, value: str | None, result: str) -> None:
    assert remotefs.RemoteFsClient._update_option(options, name, value) == result


@given(options=st.lists(st.sampled_from(["soft", "vers=3", "v3", "x=1", ""]), max_size=5))
def test_an_option_that_was_set_is_found(options: list[str]) -> None:
    made = remotefs.RemoteFsClient._update_option(",".join(options), "vers", "4")
    assert made.split(",").count("vers=4") == 1
    assert ",," not in made
    assert not made.startswith(",")
    assert remotefs.RemoteFsClient._option_exists(made, "vers=4") == len(made.split(","))


# -- Scality -------------------------------------------------------------------------------------
class TestScality:
    def test_the_file_system_is_mounted_once(self, fake_host: FakeHost) -> None:
        fake_host.shares.share("/etc/sfused.conf", "sofs")
        sofs = client(fake_host, "scality", scality_mount_point_base="/mnt/sofs/")
        assert sofs.get_mount_base() == "/mnt/sofs"
        assert sofs.get_mount_point("some_share") == "/mnt/sofs/some_share/00"
        sofs.mount("some_share")
        sofs.mount("another", ["-o", "x"])
        assert fake_host.started == [
            ("mkdir", "-p", "/mnt/sofs"),
            ("mount", "-t", "sofs", "/etc/sfused.conf", "/mnt/sofs"),
        ]
        assert not sofs.release("some_share")

    @pytest.mark.parametrize("base", [None, "", "/"])
    def test_the_base_is_required(self, fake_host: FakeHost, base: str | None) -> None:
        with pytest.raises(
            exception.InvalidParameterValue, match=r"^scality_mount_point_base required$"
        ):
            client(fake_host, "scality", scality_mount_point_base=base)


# -- Virtuozzo -----------------------------------------------------------------------------------
class TestVzstorage:
    @pytest.mark.parametrize(
        ("share", "parts"),
        [
            ("stor", ("", "stor", "")),
            ("m:/stor:pa:/ss", ("m", "stor", "pa:/ss")),
            ("10.0.0.1:8888,10.0.0.2:/stor-1", ("10.0.0.1:8888,10.0.0.2", "stor-1", "")),
            ("10.0.0.1:/stor:S3cret", ("10.0.0.1", "stor", "S3cret")),
        ],
    )
    def test_what_a_share_says(self, share: str, parts: tuple[str, str, str]) -> None:
        assert remotefs.VZStorageRemoteFSClient._parse(share) == parts

    @pytest.mark.parametrize("share", ["", ":", "a b:S3cret", "stor!:S3cret", "stor:a b"])
    def test_what_is_none(self, fake_host: FakeHost, share: str) -> None:
        with pytest.raises(
            exception.BrickException, match="Invalid Virtuozzo Storage share specification"
        ) as caught:
            client(fake_host, "vzstorage").mount(share)
        assert "S3cret" not in str(caught.value)
        assert fake_host.started == []

    def test_a_cluster_that_the_host_knows(self, fake_host: FakeHost) -> None:
        vz = client(fake_host, "vzstorage")
        vz.mount("stor", ["-u", "nova"])
        point = vz.get_mount_point("stor")
        assert fake_host.started == [
            ("mkdir", "-p", point),
            ("pstorage-mount", "-c", "stor", "-u", "nova", point),
        ]
        fake_host.forget()
        vz.mount("stor")
        assert fake_host.started == []

    @pytest.mark.parametrize("known", [False, True])
    def test_metadata_servers_and_password(
        self,
        fake_host: FakeHost,
        known: bool,
        caplog: pytest.LogCaptureFixture,
        tmp_path: pathlib.Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        caplog.set_level(logging.DEBUG)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        folder = "/etc/pstorage/clusters/stor"
        if known:
            fake_host.ceph.world.etc.write("pstorage/clusters/stor/bs_list", "old")
        share = "10.0.0.1:8888,10.0.0.2:8888:/stor:S3cret"
        vz = client(fake_host, "vzstorage")
        vz.mount(share)
        vz.mount(share)
        target = f"{folder}/bs_list" if known else folder
        assert fake_host.shares.copied == [(target, {"bs_list": "10.0.0.1:8888\n10.0.0.2:8888\n"})]
        assert fake_host.shares.passwords == [("stor", "S3cret")]
        assert [words[0] for words in fake_host.started] == [
            *("mkdir", "cp", "chown", "pstorage", "pstorage-mount")
        ]
        assert fake_host.started[2] == ("chown", "-R", "root:root", folder)
        assert fake_host.started[1][1] == ("-f" if known else "-rf")
        assert [name for name in os.listdir(tmp_path) if name.startswith("os-brick")] == []
        assert "S3cret" not in f"{caplog.text}{fake_host.started}"

    def test_the_temporary_directory_goes_after_a_failure_too(
        self, fake_host: FakeHost, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        fake_host.faults.fail("cp", code=1, err="cp: no")
        with pytest.raises(processutils.ProcessExecutionError, match="cp: no"):
            client(fake_host, "vzstorage").mount("10.0.0.1:/stor")
        assert [name for name in os.listdir(tmp_path) if name.startswith("os-brick")] == []

    def test_the_mount_table_decides(self, fake_host: FakeHost) -> None:
        fake_host.faults.fail("pstorage-mount", code=0)
        with pytest.raises(exception.BrickException, match="it is not mounted at") as caught:
            client(fake_host, "vzstorage").mount("stor:S3cret")
        assert "S3cret" not in str(caught.value)


# -- unmounting ----------------------------------------------------------------------------------
class TestRelease:
    def test_a_share_that_nobody_uses(self, fake_host: FakeHost) -> None:
        fake_host.shares.share(SHARE)
        nfs = client(fake_host)
        nfs.mount(SHARE)
        assert nfs.release(SHARE)
        assert nfs.release(SHARE)
        assert fake_host.leftovers() == []

    def test_one_in_use_stays(self, fake_host: FakeHost) -> None:
        fake_host.shares.share(SHARE)
        nfs = client(fake_host)
        nfs.mount(SHARE)
        fake_host.shares.mounted[0].busy = True
        assert not nfs.release(SHARE)
        assert mounts_at(fake_host, POINT) == 1

    def test_another_failure_is_told(self, fake_host: FakeHost) -> None:
        fake_host.shares.share(SHARE)
        nfs = client(fake_host)
        nfs.mount(SHARE)
        fake_host.faults.fail("umount", code=32, err="umount: no permission")
        with pytest.raises(processutils.ProcessExecutionError, match="no permission"):
            nfs.release(SHARE)
