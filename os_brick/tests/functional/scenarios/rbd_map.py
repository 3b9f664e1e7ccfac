# SPDX-License-Identifier: Apache-2.0
"""RBD images that the kernel maps, on a real cluster."""

from __future__ import annotations

import os
import stat
import threading
from typing import Any

from oslo_concurrency import processutils

from os_brick import exception

from ..guest import ceph_images, data, faults, kernel, programs, service
from ..guest.lab import MIB, Lab, fails_with
from ..targets import ceph
from . import SMOKE_S, scenario

LIMIT_S = 600
LINK = "/dev/rbd/volumes/volume-1"


def local(lab: Lab) -> service.Service:
    """Make the service under test: the kernel maps its images."""
    return service.Service("RBD", do_local_attach=True)


def use(path: str, image: ceph.Image, offset: int = MIB) -> bytes:
    """Write through the device, find it on the cluster, and read it back."""
    content = data.pattern(f"{image.pool}/{image.name}/{offset}", 64 * 1024)
    data.write(path, content, offset)
    assert image.read(offset, len(content)) == content, "the cluster has something else"
    assert data.read(path, len(content), offset) == content, f"{path} reads otherwise"
    return content


@scenario(
    "rbd map: data on the cluster, extend while open, nothing left",
    limit_s=SMOKE_S,
    groups=["smoke"],
)
def rbd_map(lab: Lab) -> None:
    """Two programs for an attach, two for a detach."""
    image = ceph.open_cluster().image("volume-1")
    host = local(lab)
    with programs.counted() as started, lab.timed("attach"):
        info = host.attach(image.properties())
    assert info == {"path": LINK, "type": "block"}, info
    words = [str(each) for each in started]
    assert sum("rbd map" in word for word in words) == 1, words
    use(info["path"], image)
    assert host.connector.check_valid_device(info["path"])
    handle = os.open(info["path"], os.O_RDWR)
    image.grow(24 * MIB)
    with lab.timed("extend"):
        kernel.wait_for(lambda: host.extend(image.properties()) == 24 * MIB, "the size", 60)
    os.close(handle)
    kernel.wait_for(lambda: data.size(info["path"]) == 24 * MIB, "the device's size", 30)
    use(info["path"], image, 20 * MIB)
    with lab.timed("detach"):
        host.detach(image.properties(), info)
    assert ceph_images.mapped() == []


@scenario(
    "rbd map with cephx: the same image name in two pools, each detached alone", limit_s=LIMIT_S
)
def rbd_map_two_pools(lab: Lab) -> None:
    """The keys lie in files for root only, as long as the mappings."""
    cluster = ceph.cephx_cluster()
    images = [cluster.image("volume-1", pool=pool) for pool in ceph.POOLS]
    host = local(lab)
    infos: list[dict[str, Any]] = []
    for image in images:
        with lab.timed("attach"):
            infos.append(host.attach(image.properties()))
    assert [info["path"] for info in infos] == [f"/dev/rbd/{pool}/volume-1" for pool in ceph.POOLS]
    files = ceph_images.secret_files()
    assert sorted(info["conf"] for info in infos) == sorted(files), (infos, files)
    for path in files:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600, path
        assert os.stat(path).st_uid == 0, path
    contents = [use(info["path"], image) for info, image in zip(infos, images, strict=True)]
    host.detach(images[0].properties(), infos[0])
    (left,) = ceph_images.mapped()
    assert left.endswith(" backups/volume-1@-"), left
    assert data.read(infos[1]["path"], 64 * 1024, MIB) == contents[1]
    # Without what the attach returned, as after a restart of the service.
    host.detach(images[1].properties(), None)
    assert cluster.secret() not in lab.log(), "the key is in the log"


@scenario("rbd map: an attach again gives the same device; snapshots are others", limit_s=LIMIT_S)
def rbd_map_again(lab: Lab) -> None:
    """A mapping of a snapshot is neither handed out nor unmapped for the image."""
    image = ceph.open_cluster().image("volume-1")
    with image.opened() as opened:
        opened.create_snap("snap")
    host = local(lab)
    snapshot = image.properties(name="volumes/volume-1@snap")
    of_snapshot = host.attach(snapshot)
    assert of_snapshot["path"] == f"{LINK}@snap", of_snapshot
    with fails_with(OSError):
        data.write(of_snapshot["path"], b"x" * 4096)
    info = host.attach(image.properties())
    assert host.attach(image.properties()) == info
    assert len(ceph_images.mapped()) == 2
    use(info["path"], image)
    host.detach(image.properties(), info)
    assert [line.split("@")[1] for line in ceph_images.mapped()] == ["snap"]
    host.detach(snapshot, of_snapshot)
    with image.opened() as opened:
        opened.remove_snap("snap")


@scenario("rbd map: two processes at once map once", limit_s=LIMIT_S)
def rbd_map_two_processes(lab: Lab) -> None:
    """Both get the same device; so do threads of one process."""
    image = ceph.open_cluster().image("volume-1")

    def attach() -> None:
        local(lab).attach(image.properties())

    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            attach()
            code = 0
        finally:
            os._exit(code)
    host = local(lab)
    threads = [threading.Thread(target=attach) for _ in range(2)]
    for thread in threads:
        thread.start()
    info = host.attach(image.properties())
    for thread in threads:
        thread.join()
    assert os.waitpid(pid, 0)[1] == 0, "the other process failed"
    assert len(ceph_images.mapped()) == 1, ceph_images.mapped()
    host.detach(image.properties(), info)


@scenario("rbd map: a busy device is refused with rbd's words; force unmaps it", limit_s=LIMIT_S)
def rbd_map_busy(lab: Lab) -> None:
    """Without force nothing is changed."""
    image = ceph.open_cluster().image("volume-1")
    host = local(lab)
    info = host.attach(image.properties())
    handle = os.open(info["path"], os.O_RDWR)
    with (
        lab.timed("refused"),
        fails_with(exception.DeviceInUse, processutils.ProcessExecutionError) as caught,
    ):
        host.detach(image.properties(), info)
    assert "busy" in str(caught[0]) or "in use" in str(caught[0]), caught
    assert os.pread(handle, 16, 0) == bytes(16)
    assert os.path.exists(info["path"])
    with lab.timed("forced"):
        host.detach(image.properties(), info, force=True)
    os.close(handle)
    kernel.wait_for(lambda: not ceph_images.mapped(), "unmapped", 30)


@scenario(
    "rbd map: written data that the cluster does not take stops a detach; later it goes on",
    limit_s=LIMIT_S,
    options={"flush_timeout": 10, "call_timeout": 60},
)
def rbd_map_frozen_store(lab: Lab) -> None:
    """The data is on the cluster in the end."""
    cluster = ceph.open_cluster()
    image = cluster.image("volume-1")
    host = local(lab)
    info = host.attach(image.properties())
    content = data.pattern("frozen", 64 * 1024)
    data.write(info["path"], bytes(4096))
    cluster.freeze_store()
    writer = faults.StuckWriter(info["path"], content, MIB)
    try:
        writer.close()
        with lab.timed("refused"), fails_with(*_DETACH_ERRORS):
            host.detach(image.properties(), info)
        assert lab.seconds("refused") < 40
        assert len(ceph_images.mapped()) == 1
    finally:
        cluster.thaw_store()
    kernel.wait_for(writer.ended, "the writer ends", 120)
    host.detach(image.properties(), info)
    assert image.read(MIB, len(content)) == content


_DETACH_ERRORS = (exception.BrickException, processutils.ProcessExecutionError)


@scenario(
    "rbd map: monitors do not answer: the attach fails in time with its words, nothing left",
    limit_s=LIMIT_S,
)
def rbd_map_silent(lab: Lab) -> None:
    """No file with a key is left either."""
    cluster = ceph.cephx_cluster()
    image = cluster.image("volume-1")
    host = local(lab)
    lab.network.silence(cluster.monitor)
    with lab.timed("attach"), fails_with(processutils.ProcessExecutionError) as caught:
        host.attach(image.properties())
    assert lab.seconds("attach") < 400, caught
    lab.heal()
    assert ceph_images.mapped() == []
    assert ceph_images.secret_files() == []


@scenario("rbd map: an image that is missing, one that is too new: rbd's words", limit_s=LIMIT_S)
def rbd_map_refused(lab: Lab) -> None:
    """Exit codes and text reach the caller."""
    image = ceph.open_cluster().image("volume-1")
    host = local(lab)
    with fails_with(processutils.ProcessExecutionError) as caught:
        host.attach(image.properties(name="volumes/missing"))
    assert "No such file" in str(caught[0]), caught
    with image.opened() as opened:
        opened.update_features(image.cluster.rbd.RBD_FEATURE_JOURNALING, True)
    with fails_with(processutils.ProcessExecutionError) as caught:
        host.attach(image.properties())
    assert "feature" in str(caught[0]), caught


@scenario("rbd map by an unprivileged service: its helper does what needs root", limit_s=LIMIT_S)
def rbd_map_as_user(lab: Lab) -> None:
    """The file with the key belongs to root, and the service cannot read it."""
    image = ceph.cephx_cluster().image("volume-1")
    given = image.properties()
    service.as_user()
    host = local(lab)
    with lab.timed("attach"):
        info = host.attach(given)
    with fails_with(PermissionError):
        open(info["conf"]).close()
    assert host.connector.check_valid_device(info["path"])
    with lab.timed("detach"):
        host.detach(given, info)
    assert ceph_images.mapped() == []
