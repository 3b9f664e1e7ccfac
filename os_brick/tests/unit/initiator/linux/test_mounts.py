# SPDX-License-Identifier: Apache-2.0
"""The mount table, and the ways in which a share can be written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oslo_concurrency import processutils

from os_brick import exception
from os_brick.initiator.linux import mounts, nfs
from os_brick.initiator.linux.mounts import Mount
from os_brick.testing import FakeHost
from os_brick.testing.block import octal

# Of Linux 6.1, Debian 12.
TABLE = """\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
# a comment

96 22 0:52 / /mnt/4d66 rw,relatime shared:50 - nfs4 192.0.2.1:/export rw,vers=4.2,rsize=1048576
97 22 0:53 / /mnt/with\\040blank rw,relatime master:1 propagate_from:2 - cifs //h/a\\040b rw
98 22 0:54 / /mnt/\\134\\011\\012\\303\\244 rw - fuse.glusterfs h:/v rw
99 22 0:55 / /mnt/plain rw - tmpfs tmpfs rw
broken line
"""


def test_the_table() -> None:
    assert mounts.parse_mounts(TABLE) == [
        Mount("/", "/dev/vda1", "ext4", "254:1"),
        Mount("/mnt/4d66", "192.0.2.1:/export", "nfs4", "0:52"),
        Mount("/mnt/with blank", "//h/a b", "cifs", "0:53"),
        Mount("/mnt/\\\t\nä", "h:/v", "fuse.glusterfs", "0:54"),
        Mount("/mnt/plain", "tmpfs", "tmpfs", "0:55"),
    ]


@given(point=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n\t\\")))
def test_blanks_survive(point: str) -> None:
    line = f"9 22 0:5 / {octal('/' + point)} rw - nfs4 a:/b rw\n"
    if len(line.splitlines()) == 1:
        assert [one.point for one in mounts.parse_mounts(line)] == [f"/{point}"]


def test_no_table_is_an_error(fake_host: FakeHost) -> None:
    fake_host.ceph.world.proc.remove("self/mountinfo")
    with pytest.raises(FileNotFoundError, match="no mount table"):
        mounts.read_mounts(fake_host.host.proc)


@pytest.mark.parametrize(
    ("kind", "source", "share"),
    [
        ("nfs", "192.0.2.1:/export", "192.0.2.1:/export/"),
        ("nfs", "192.0.2.1:/a/b", "192.0.2.1://a//b"),
        ("nfs", "192.0.2.1:/", "192.0.2.1:/"),
        ("nfs", "server:/export", "SERVER:/export"),
        ("nfs", "[2001:db8::1]:/export", "[2001:DB8:0::1]:/export"),
        ("cifs", "//server/share", "//SERVER/share/"),
        ("cifs", "//server/share", "\\\\server\\share"),
        ("glusterfs", "h:/volume", "h:volume"),
        ("glusterfs", "h2:/volume", "h1,h2:/volume"),
        ("quobyte", "quobyte@192.0.2.1:7861", "quobyte://192.0.2.1/volume"),
        ("vzstorage", "pstorage://stor", "10.0.0.1:/stor:password"),
        ("vzstorage", "vstorage://stor", "stor"),
        ("scality", "/etc/sfused.conf", "anything"),
    ],
)
def test_the_same(kind: str, source: str, share: str) -> None:
    assert mounts.is_same_source(kind, source, share)


@pytest.mark.parametrize(
    ("kind", "source", "share"),
    [
        ("nfs", "192.0.2.1:/export", "192.0.2.1:/export2"),
        ("nfs", "192.0.2.1:/export", "192.0.2.2:/export"),
        ("nfs", "192.0.2.1:/Export", "192.0.2.1:/export"),
        ("nfs", "/dev/sda1", "192.0.2.1:/export"),
        ("cifs", "//server/share", "//server/share2"),
        ("glusterfs", "h3:/volume", "h1,h2:/volume"),
        ("quobyte", "/dev/sda1", "quobyte://192.0.2.1/volume"),
        ("vzstorage", "server:/stor", "stor"),
    ],
)
def test_not_the_same(kind: str, source: str, share: str) -> None:
    assert not mounts.is_same_source(kind, source, share)


@pytest.mark.parametrize(
    ("said", "code", "may_be"),
    [
        ("mount.nfs: Protocol not supported", 32, True),
        ("mount.nfs: requested NFS version or transport protocol is not supported", 32, True),
        ("mount.nfs: an incorrect mount option was specified", 32, True),
        ("mount.nfs: mounting h:/x failed, reason given by server: No such file", 32, True),
        ("mount.nfs: access denied by server while mounting h:/x", 32, True),
        ("", 32, True),
        ("mount.nfs: Connection timed out", 32, False),
        ("mount.nfs: /mnt is busy or already mounted", 32, False),
        ("mount: only root can do that; Operation not permitted", 1, False),
        ("", None, False),
    ],
)
def test_whether_another_version_may_help(said: str, code: int | None, may_be: bool) -> None:
    error = processutils.ProcessExecutionError(stderr=said, exit_code=code or 0)
    error.exit_code = code
    assert nfs.may_be_the_version(error) is may_be


def test_a_mount_that_was_stopped_is_no_matter_of_the_version() -> None:
    assert not nfs.may_be_the_version(exception.ExecutionTimeout(exit_code=32))
