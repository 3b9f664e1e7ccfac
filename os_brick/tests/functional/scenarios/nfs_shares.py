# SPDX-License-Identifier: Apache-2.0
"""Volumes that are files of NFS shares, on a real server."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from oslo_concurrency import processutils
from oslo_config import cfg

from os_brick import exception
from os_brick.remotefs import remotefs

from ..guest import data, kernel, programs, service
from ..guest.lab import MIB, Lab, fails_with
from ..targets import nfs
from . import SMOKE_S, scenario

LIMIT_S = 400
BASE = pathlib.Path("/run/lab-mounts")
#: What a call may raise: kinds that services know.
ERRORS = (exception.BrickException, processutils.ProcessExecutionError)


def host_of(lab: Lab, **more: Any) -> service.Service:
    """Make the service under test."""
    BASE.mkdir(exist_ok=True)
    return service.Service("NFS", nfs_mount_point_base=str(BASE), **more)


@contextlib.contextmanager
def mounts_taken_back(lab: Lab) -> Iterator[None]:
    """Unmount at the end what the library leaves mounted on purpose, and remove the points."""
    try:
        yield
    finally:
        lab.heal()
        for point in mounted():
            kernel.run("umount", point)
        for folder in BASE.iterdir():
            folder.rmdir()


def mounted() -> list[str]:
    """Return the points below the base at which something is mounted."""
    lines = kernel.read("/proc/self/mounts").splitlines()
    return [line.split()[1] for line in lines if line.split()[1].startswith(f"{BASE}/")]


@scenario(
    "a share is mounted by 4.2, its file used, left mounted; once more by no mount",
    limit_s=SMOKE_S,
    groups=["smoke"],
)
def nfs_attach(lab: Lab) -> None:
    """Two programs for the first attach; a detach does nothing."""
    nfs.up()
    share = nfs.Share("one")
    file = share.file("volume-1", 4 * MIB)
    given = share.properties("volume-1")
    host = host_of(lab)
    with mounts_taken_back(lab):
        with programs.counted() as started, lab.timed("attach"):
            info = host.attach(given)
        words = [str(each) for each in started]
        assert sum("mount -t nfs" in word for word in words) == 1, words
        assert list(info) == ["path"], info
        assert info["path"].endswith("/volume-1"), info
        (point,) = mounted()
        assert os.path.dirname(info["path"]) == point
        assert "vers=4.2" in kernel.run("findmnt", "-n", "-o", "OPTIONS", point)
        content = data.pattern("nfs", 64 * 1024)
        data.write(info["path"], content, MIB)
        assert file.read_bytes()[MIB : MIB + len(content)] == content
        with programs.counted() as started, lab.timed("again"):
            assert host.attach(given) == info
        assert not any("mount -t" in str(each) for each in started), [str(x) for x in started]
        host.detach(given, info)
        assert mounted() == [point]


@scenario("two processes mount at once: one mount, two successes", limit_s=LIMIT_S)
def nfs_two_processes(lab: Lab) -> None:
    """With a common lock directory, and without one."""
    nfs.up()
    share = nfs.Share("one")
    share.file("volume-1", MIB)
    host_of(lab)
    for lock_path in (None, "/run/lab-locks-2"):
        with mounts_taken_back(lab):
            pids = [
                _in_another_process(lambda path=lock_path: _attach(lab, share, path))
                for _ in range(3)
            ]
            codes = [os.waitpid(pid, 0)[1] for pid in pids]
            assert codes == [0, 0, 0], codes
            assert len(mounted()) == 1, mounted()


def _attach(lab: Lab, share: nfs.Share, lock_path: str | None) -> None:
    if lock_path is not None:
        # Each process a directory of its own: as services in containers have it.
        own = f"{lock_path}-{os.getpid()}"
        os.mkdir(own)
        cfg.CONF.set_override("lock_path", own, group="os_brick")
    host_of(lab).attach(share.properties("volume-1"))


def _in_another_process(call: Any) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            call()
            code = 0
        finally:
            os._exit(code)
    return pid


@scenario(
    "the server stops while mounted: bounded error, another share unharmed",
    limit_s=SMOKE_S,
    options={"call_timeout": 60},
    groups=["smoke"],
)
def nfs_server_stopped(lab: Lab) -> None:
    """An attach to the dead share ends, and one to another server is as quick as ever."""
    nfs.up()
    dead, alive = nfs.Share("one"), nfs.Share("two", "127.0.0.3")
    for share in (dead, alive):
        share.file("volume-1", MIB)
    host = host_of(lab)
    # One kernel serves both addresses. Asked by one version the client finds that out, and goes on
    # by the connection that it has, the dead one.
    other = alive.properties("volume-1", options="-o vers=4.1")
    with mounts_taken_back(lab):
        info = host.attach(dead.properties("volume-1"))
        lab.network.silence(dead.portal)
        with lab.timed("dead"), fails_with(*ERRORS) as caught:
            host.attach(dead.properties("volume-1"))
        assert "does not answer" in str(caught[0]), caught
        assert lab.seconds("dead") < 60
        with lab.timed("alive"):
            host.attach(other)
        assert lab.seconds("alive") < 20
        host.detach(dead.properties("volume-1"), info)
        lab.heal()
        host.attach(dead.properties("volume-1"))


@scenario(
    "a server that does not answer: the mount is stopped in time, tried once, nothing local",
    limit_s=LIMIT_S,
    options={"call_timeout": 30},
)
def nfs_server_silent(lab: Lab) -> None:
    """What was killed is never used; nothing is written to the local disk."""
    nfs.up()
    share, alive = nfs.Share("one"), nfs.Share("two", "127.0.0.3")
    for one in (share, alive):
        one.file("volume-1", MIB)
    host = host_of(lab)
    lab.network.silence(share.portal)
    failures: list[BaseException] = []

    def attach_to_the_dead() -> None:
        with lab.timed("silent"), fails_with(*ERRORS) as caught:
            host.attach(share.properties("volume-1"))
        failures.extend(caught)

    def attach_to_the_living() -> None:
        with lab.timed("alive"):
            host.attach(alive.properties("volume-1"))

    with mounts_taken_back(lab):
        with programs.counted() as started:
            lab.side_by_side([attach_to_the_dead, attach_to_the_living])
        mounts = [str(each) for each in started if f"{share.export} " in str(each)]
        assert lab.seconds("silent") < 50, failures
        assert lab.seconds("alive") < 20
        assert sum("mount -t" in word for word in mounts) <= 1, mounts
        assert len(mounted()) == 1, mounted()
        lab.heal()
        kernel.wait_for(lambda: len(mounted()) == 1, "no mount comes late", 1)


@scenario("a server that refuses is tried once and told at once", limit_s=LIMIT_S)
def nfs_server_refuses(lab: Lab) -> None:
    """Another version would be refused too."""
    nfs.up()
    share = nfs.Share("one")
    host = host_of(lab)
    lab.network.refuse(share.portal)
    given = share.properties("volume-1", options="-o retry=0")
    with mounts_taken_back(lab):
        with programs.counted() as started, fails_with(*ERRORS) as caught, lab.timed("refused"):
            host.attach(given)
        assert "Connection refused" in str(caught[0]), caught
        tried = [str(each) for each in started if "mount -t nfs" in str(each)]
        assert len(tried) == 1, tried
        assert mounted() == []


@scenario("an older server: the next version is tried", limit_s=LIMIT_S)
def nfs_older_server(lab: Lab) -> None:
    """4.2 is refused, 4.1 is used."""
    nfs.up(("4.1",))
    share = nfs.Share("one")
    file = share.file("volume-1", MIB)
    host = host_of(lab)
    with mounts_taken_back(lab):
        info = host.attach(share.properties("volume-1"))
        assert "vers=4.1" in kernel.run("findmnt", "-n", "-o", "OPTIONS", mounted()[0])
        data.write(info["path"], b"x" * 4096)
        assert file.read_bytes()[:4096] == b"x" * 4096
    nfs.up()


@scenario("the export is removed while mounted: told at the next attach", limit_s=LIMIT_S)
def nfs_export_removed(lab: Lab) -> None:
    """A stale mount is never handed out."""
    nfs.up()
    share = nfs.Share("one")
    share.file("volume-1", MIB)
    host = host_of(lab)
    with mounts_taken_back(lab):
        host.attach(share.properties("volume-1"))
        nfs.unexport()
        try:
            with fails_with(*ERRORS) as caught, lab.timed("stale"):
                host.attach(share.properties("volume-1"))
            assert "does not answer" in str(caught[0]), caught
        finally:
            nfs.export()


@scenario("something else at the mount point is never taken for the share", limit_s=LIMIT_S)
def nfs_occupied(lab: Lab) -> None:
    """A local file system, another share, a mount that only says it was done."""
    nfs.up()
    share, other = nfs.Share("one"), nfs.Share("two")
    share.file("volume-1", MIB)
    host = host_of(lab)
    client = remotefs.RemoteFsClient("nfs", "sudo", nfs_mount_point_base=str(BASE))
    point = client.get_mount_point(share.export)
    os.mkdir(point)
    with mounts_taken_back(lab):
        for words in (("-t", "tmpfs", "tmpfs"), ("-t", "nfs", other.export)):
            kernel.run("mount", *words, point)
            with fails_with(exception.BrickException) as caught:
                host.attach(share.properties("volume-1"))
            assert point in str(caught[0]), caught
            kernel.run("umount", point)
        lab.programs.fail("mount", 0, when="*")
        with fails_with(exception.BrickException) as caught:
            host.attach(share.properties("volume-1"))
        assert "it is not mounted" in str(caught[0]), caught
        assert os.listdir(point) == []
        lab.programs.heal()
        host.attach(share.properties("volume-1"))


@scenario("a caller may have unused mounts released: not those in use", limit_s=LIMIT_S)
def nfs_release(lab: Lab) -> None:
    """The mount goes with its last user, and its point with it."""
    nfs.up()
    share = nfs.Share("one")
    share.file("volume-1", MIB)
    given = share.properties("volume-1")
    host = host_of(lab, release_mounts=True)
    info = host.attach(given)
    with open(info["path"], "rb"):
        host.detach(given, info)
        assert len(mounted()) == 1
    host.detach(given, info)
    assert mounted() == []
    assert list(BASE.iterdir()) == []
