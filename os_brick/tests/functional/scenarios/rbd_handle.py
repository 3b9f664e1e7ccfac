# SPDX-License-Identifier: Apache-2.0
"""RBD images as file objects of librbd, on a real cluster."""

from __future__ import annotations

import io
import os
import pathlib
import shutil
import stat
from typing import Any

from os_brick import exception

from ..guest import ceph_images, data, faults, kernel, programs, service
from ..guest.lab import MIB, Lab, fails_with
from ..targets import ceph
from . import SMOKE_S, scenario

LIMIT_S = 600


def handle_of(info: dict[str, Any]) -> Any:
    """Return the file object in what the library tells the service."""
    assert list(info) == ["path"], info
    return info["path"]


@scenario("librbd: read, write, seek, data on the cluster, nothing left", limit_s=LIMIT_S)
def rbd_handle(lab: Lab) -> None:
    """A handle is a file; no program is started for it."""
    image = ceph.open_cluster().image("volume-1")
    host = lab.service("RBD")
    with programs.counted() as started, lab.timed("attach"):
        info = host.attach(image.properties())
    assert not started, [str(each) for each in started]
    handle = handle_of(info)
    content = data.pattern("rbd_handle", 3 * MIB + 5)
    assert handle.seek(MIB) == MIB
    assert handle.write(content) == len(content)
    assert handle.tell() == MIB + len(content)
    handle.flush()
    assert image.read(MIB, len(content)) == content, "the cluster has something else"
    handle.seek(MIB)
    copy = io.BytesIO()
    reader = io.BufferedReader(handle, MIB)
    shutil.copyfileobj(reader, copy)
    reader.detach()
    assert copy.getvalue() == content + bytes(16 * MIB - MIB - len(content))
    with lab.timed("detach"):
        host.detach(image.properties(), info)
    assert handle.closed


@scenario("librbd: nobody has the image open after a detach; a second one is fine", limit_s=LIMIT_S)
def rbd_handle_detach_twice(lab: Lab) -> None:
    """A second detach of a handle does nothing; nobody has the image open afterwards."""
    image = ceph.open_cluster().image("volume-1")
    host = lab.service("RBD")
    info = host.attach(image.properties())
    handle_of(info).write(b"x")
    assert image.watchers() == 1
    conf = pathlib.Path(handle_of(info).rbd_conf)
    assert stat.S_IMODE(conf.stat().st_mode) == 0o600
    with lab.timed("detach"):
        host.detach(image.properties(), info)
    host.detach(image.properties(), info)
    assert image.watchers() == 0
    assert ceph_images.secret_files() == []


@scenario("librbd with cephx: the key is in no file that stays, and in no log", limit_s=LIMIT_S)
def rbd_handle_cephx(lab: Lab) -> None:
    """The keyring comes in the properties; rbd itself can use the handle's file meanwhile."""
    cluster = ceph.cephx_cluster()
    image = cluster.image("volume-1")
    host = lab.service("RBD")
    with lab.timed("attach"):
        info = host.attach(image.properties())
    handle = handle_of(info)
    handle.write(b"secret data")
    said = kernel.run(
        *("rbd", "--conf", handle.rbd_conf, "--id", handle.rbd_user, "info"),
        f"{handle.rbd_pool}/volume-1",
        limit_s=120,
    )
    assert "size 16 MiB" in said, said
    host.detach(image.properties(), info)
    assert image.read(0, 11) == b"secret data"
    refused = image.properties(keyring="[client.cinder]\n\tkey = " + "A" * 38 + "==\n")
    with fails_with(exception.BrickException) as caught:
        host.attach(refused)
    assert "Error connecting to ceph cluster" in str(caught[0]), caught
    assert cluster.secret() not in lab.log(), "the key is in the log"
    assert ceph_images.secret_files() == []


@scenario("librbd: the image grows while its handle is open", limit_s=LIMIT_S)
def rbd_handle_grow(lab: Lab) -> None:
    """extend_volume tells the new size, and the open handle reads and writes to it."""
    image = ceph.open_cluster().image("volume-1")
    host = lab.service("RBD")
    info = host.attach(image.properties())
    handle = handle_of(info)
    assert len(handle.read()) == 16 * MIB
    image.grow(24 * MIB)
    with lab.timed("extend"):
        assert host.extend(image.properties()) == 24 * MIB
    kernel.wait_for(lambda: handle.seek(0, os.SEEK_END) == 24 * MIB, "librbd knows it", 60)
    handle.seek(23 * MIB)
    handle.write(b"beyond")
    handle.seek(23 * MIB)
    assert handle.read(6) == b"beyond"
    host.detach(image.properties(), info)


@scenario(
    "librbd: read-only access; an image that is missing; ten cycles leak nothing",
    limit_s=LIMIT_S,
)
def rbd_handle_cycles(lab: Lab) -> None:
    """Descriptors and threads of this process are as before."""
    image = ceph.open_cluster().image("volume-1")
    host = lab.service("RBD")
    info = host.attach(image.properties(access_mode="ro"))
    with fails_with(image.cluster.rbd.ReadOnlyImage):
        handle_of(info).write(b"x")
    host.detach(image.properties(), info)
    with fails_with(image.cluster.rbd.ImageNotFound):
        host.attach(image.properties(name="volumes/missing"))
    before = _resources()
    for _ in range(10):
        host.detach(image.properties(), host.attach(image.properties()))
    kernel.wait_for(lambda: _resources() <= before, f"no leak: {before} → {_resources()}", 30)


def _resources() -> tuple[int, int]:
    return len(kernel.names("/proc/self/fd")), len(kernel.names("/proc/self/task"))


@scenario(
    "librbd: monitors do not answer: the attach ends at its deadline, nothing left",
    limit_s=SMOKE_S,
    options={"call_timeout": 20},
    groups=["smoke"],
)
def rbd_handle_silent(lab: Lab) -> None:
    """librados itself waits for five minutes."""
    cluster = ceph.open_cluster()
    image = cluster.image("volume-1")
    host = lab.service("RBD")
    lab.network.silence(cluster.monitor)
    with lab.timed("attach"), fails_with(exception.DeadlineExceeded):
        host.attach(image.properties())
    assert lab.seconds("attach") < 40
    lab.heal()
    # librados connects again by itself then, and what it opens is closed at once.
    kernel.wait_for(lambda: not ceph_images.secret_files(), "its file is gone", 120)


@scenario("librbd: a killed process leaves no secret behind", limit_s=LIMIT_S)
def rbd_handle_killed(lab: Lab) -> None:
    """Only a link to nothing is left, and the next handle takes it away."""
    image = ceph.cephx_cluster().image("volume-1")

    def attach_and_wait() -> None:
        host = service.Service("RBD")
        host.attach(image.properties())
        kernel.write("/run/lab-attached", "1")
        kernel.wait_for(lambda: False, "being killed", 300)

    pathlib.Path("/run/lab-attached").write_text("")
    faults.run_and_kill(attach_and_wait, lambda: kernel.read("/run/lab-attached"), 300)
    left = ceph_images.secret_files()
    assert not any(os.path.exists(path) for path in left), left
    host = lab.service("RBD")
    host.detach(image.properties(), host.attach(image.properties()))
    assert ceph_images.secret_files() == []
