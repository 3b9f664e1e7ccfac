# SPDX-License-Identifier: Apache-2.0
"""Volumes that are files in shares."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oslo_concurrency import processutils

from os_brick import exception, initiator
from os_brick.initiator import connector as factory
from os_brick.initiator.connectors.remotefs import RemoteFsConnector
from os_brick.remotefs import remotefs
from os_brick.testing import FakeHost

SHARE = "192.0.2.1:/export"
POINT = "/mnt/nfs/" + hashlib.md5(SHARE.encode(), usedforsecurity=False).hexdigest()
PROPERTIES = {
    "export": SHARE,
    "name": "volume-1",
    "options": "-o vers=4.2,soft",
    "format": "raw",
    "mount_point_base": "/ignored",
}
CONN = {"driver_volume_type": "nfs", "data": PROPERTIES, "mount_point_base": "/mnt/nfs"}


def connector(host: FakeHost, protocol: str = "NFS", **keywords: Any) -> Any:
    keywords.setdefault("conn", CONN)
    return host.connector(protocol, **keywords)


@pytest.mark.parametrize("foreign", [False, True])
def test_attach_and_detach(fake_host: FakeHost, foreign: bool) -> None:
    fake_host.shares.share(SHARE)
    nfs = connector(fake_host, foreign=foreign)
    info = nfs.connect_volume(PROPERTIES)
    assert info == {"path": f"{POINT}/volume-1"}
    assert fake_host.started[-1] == (*("mount", "-t", "nfs", "-o", "vers=4.2,soft", SHARE, POINT),)
    fake_host.forget()
    nfs.disconnect_volume(PROPERTIES, info, force=True, ignore_errors=True)
    assert fake_host.started == []
    assert len(fake_host.shares.mounted) == 1


@pytest.mark.parametrize(
    ("protocol", "client"),
    [
        ("NFS", remotefs.RemoteFsClient),
        ("GLUSTERFS", remotefs.RemoteFsClient),
        ("QUOBYTE", remotefs.RemoteFsClient),
        ("SCALITY", remotefs.ScalityRemoteFsClient),
        ("VZSTORAGE", remotefs.VZStorageRemoteFSClient),
    ],
)
def test_each_protocol_has_its_client_and_base(protocol: str, client: type) -> None:
    made = factory.InitiatorConnector.factory(protocol.lower(), "sudo", conn=CONN, arch="x86_64")
    assert isinstance(made, RemoteFsConnector)
    assert type(made._remotefsclient) is client
    assert made.get_search_path() == "/mnt/nfs"
    for value, base in (("/mnt/given", "/mnt/given"), ("", "/mnt/nfs")):
        keywords: dict[str, Any] = {f"{protocol.lower()}_mount_point_base": value, "conn": CONN}
        made = factory.InitiatorConnector.factory(protocol, "sudo", arch="x86_64", **keywords)
        assert made.get_search_path() == base


def test_smb_is_not_offered_on_linux() -> None:
    with pytest.raises(exception.InvalidConnectorProtocol):
        factory.InitiatorConnector.factory(initiator.SMBFS, "sudo", conn=CONN)


@pytest.mark.parametrize("conn", [None, {}, {"mount_point_base": ""}])
def test_a_base_is_required(conn: Any, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(exception.InvalidParameterValue, match=r"^nfs_mount_point_base required$"):
        RemoteFsConnector("nfs", "sudo", conn=conn)
    assert ("Connection details not present" in caplog.text) is (conn is None)


def test_no_connection_details_but_a_base(caplog: pytest.LogCaptureFixture) -> None:
    assert RemoteFsConnector("nfs", "sudo", nfs_mount_point_base="/mnt").get_search_path() == "/mnt"
    assert caplog.text == ""


def test_another_execute_function_runs_everything(fake_host: FakeHost) -> None:
    fake_host.shares.share(SHARE)
    nfs = connector(fake_host)
    seen = []

    def execute(*words: str, **keywords: Any) -> tuple[str, str]:
        seen.append(words[0])
        return fake_host.execute(*words, **keywords)

    nfs.set_execute(execute)
    nfs.connect_volume(PROPERTIES)
    assert seen == ["mkdir", "mount"]


def test_a_failed_mount_reaches_the_caller(fake_host: FakeHost) -> None:
    fake_host.shares.share(SHARE).state = "refuses"
    with pytest.raises(exception.BrickException, match="NFS mount failed for share"):
        connector(fake_host).connect_volume(PROPERTIES)


class TestMountedBefore:
    def test_it_is_asked_whether_it_answers(self, fake_host: FakeHost) -> None:
        fake_host.shares.share(SHARE)
        nfs = connector(fake_host)
        first = nfs.connect_volume(PROPERTIES)
        fake_host.forget()
        assert nfs.connect_volume(PROPERTIES) == first
        assert fake_host.started == [("stat", "-f", POINT)]

    def test_a_server_that_is_gone(self, fake_host: FakeHost) -> None:
        share = fake_host.shares.share(SHARE)
        nfs = connector(fake_host)
        nfs.connect_volume(PROPERTIES)
        share.state = "silent"
        before = fake_host.now
        with pytest.raises(exception.BrickException, match="does not answer"):
            nfs.connect_volume(PROPERTIES)
        assert fake_host.now - before < 60

    def test_a_stale_mount(self, fake_host: FakeHost) -> None:
        share = fake_host.shares.share(SHARE)
        nfs = connector(fake_host)
        nfs.connect_volume(PROPERTIES)
        share.refusal = "Stale file handle"
        with pytest.raises(exception.BrickException, match="Stale file handle"):
            nfs.connect_volume(PROPERTIES)


@pytest.mark.parametrize(
    "changed",
    [
        {"export": None},
        {"export": ""},
        {"name": None},
        {"name": ""},
        {"name": "/etc/shadow"},
        {"name": "../volume-1"},
        {"name": "a/../../b"},
        {"name": "a/"},
        {"name": "a\0b"},
        {"options": "--bind"},
        {"options": "-t ext4"},
        {"options": "-o remount,rw"},
        {"options": "-obind"},
        {"options": "--options=loop"},
        {"options": "/dev/sda"},
        {"options": "-o"},
        {"options": "-o -v"},
        {"options": "-N /proc/1/ns/mnt"},
    ],
)
def test_properties_that_cannot_be_used(fake_host: FakeHost, changed: dict[str, Any]) -> None:
    fake_host.shares.share(SHARE)
    (key,) = changed
    with pytest.raises(exception.InvalidParameterValue, match=f"^{key}: "):
        connector(fake_host).connect_volume({**PROPERTIES, **changed})
    assert fake_host.started == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (None, ()),
        ("", ()),
        ("-o vers=3,soft", ("-o", "vers=3,soft")),
        ("  -o vers=3   -v ", ("-o", "vers=3", "-v")),
        ("-overs=3 --read-only", ("-overs=3", "--read-only")),
    ],
)
def test_options_are_words_for_mount(
    fake_host: FakeHost, options: str | None, words: tuple[str, ...]
) -> None:
    fake_host.shares.share(SHARE)
    connector(fake_host).connect_volume({**PROPERTIES, "options": options})
    assert fake_host.started[-1][-2 - len(words) :] == (*words, SHARE, POINT)


@given(name=st.text(min_size=1))
def test_whatever_the_name_the_path_stays_in_the_share(name: str) -> None:
    nfs = RemoteFsConnector("nfs", "sudo", conn=CONN)
    try:
        (path,) = nfs.get_volume_paths({"export": SHARE, "name": name})
    except exception.InvalidParameterValue:
        return
    assert path.startswith(f"{POINT}/")
    assert ".." not in path.split("/")


def test_listing_paths_mounts_nothing(fake_host: FakeHost) -> None:
    fake_host.shares.share(SHARE)
    assert connector(fake_host).get_volume_paths(PROPERTIES) == [f"{POINT}/volume-1"]
    assert fake_host.journal == []


def test_the_file_is_resized_by_who_has_it_open(fake_host: FakeHost) -> None:
    with pytest.raises(NotImplementedError):
        connector(fake_host).extend_volume(PROPERTIES)


def test_what_the_host_tells() -> None:
    assert RemoteFsConnector.get_connector_properties("sudo", multipath=False) == {}


class TestReleasingMounts:
    def test_the_caller_may_choose_it(self, fake_host: FakeHost) -> None:
        fake_host.shares.share(SHARE)
        nfs = connector(fake_host, release_mounts=True)
        info = nfs.connect_volume(PROPERTIES)
        nfs.disconnect_volume(PROPERTIES, info)
        assert fake_host.leftovers() == []

    def test_what_is_in_use_stays(self, fake_host: FakeHost) -> None:
        fake_host.shares.share(SHARE)
        nfs = connector(fake_host, release_mounts=True)
        info = nfs.connect_volume(PROPERTIES)
        fake_host.shares.mounted[0].busy = True
        nfs.disconnect_volume(PROPERTIES, info)
        assert len(fake_host.shares.mounted) == 1

    @pytest.mark.parametrize(
        ("force", "ignore_errors", "raised"),
        [
            (False, True, Exception),
            (True, False, exception.ExceptionChainer),
            (True, True, None),
        ],
    )
    def test_failures(
        self, fake_host: FakeHost, force: bool, ignore_errors: bool, raised: Any
    ) -> None:
        fake_host.shares.share(SHARE)
        nfs = connector(fake_host, release_mounts=True)
        nfs.connect_volume(PROPERTIES)
        fake_host.faults.fail("umount", code=1, err="umount: no permission")
        words = {"force": force, "ignore_errors": ignore_errors}
        if raised is None:
            nfs.disconnect_volume(PROPERTIES, None, **words)
        else:
            with pytest.raises(raised, match="no permission"):
                nfs.disconnect_volume(PROPERTIES, None, **words)


def test_vz_password_in_export_is_not_logged(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    conn = {"driver_volume_type": "vzstorage", "mount_point_base": "/mnt/vz"}
    vz = fake_host.connector("VZSTORAGE", conn=conn)
    properties = {"export": "10.0.0.1:8888:/stor:S3cretPw", "name": "volume-1", "options": None}
    info = vz.connect_volume(properties)
    vz.disconnect_volume(properties, info)
    assert "S3cretPw" not in caplog.text


def test_vz_password_in_export_is_not_logged_when_the_mount_fails(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    fake_host.faults.fail("pstorage-mount", code=1, err="no")
    conn = {"driver_volume_type": "vzstorage", "mount_point_base": "/mnt/vz"}
    vz = fake_host.connector("VZSTORAGE", conn=conn)
    properties = {"export": "stor:S3cretPw", "name": "volume-1", "options": None}
    with pytest.raises(processutils.ProcessExecutionError, match="pstorage-mount") as caught:
        vz.connect_volume(properties)
    assert "S3cretPw" not in str(caught.value)
    assert "S3cretPw" not in caplog.text
