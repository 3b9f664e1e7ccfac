# SPDX-License-Identifier: Apache-2.0
"""One-node Ceph clusters: a monitor, and an object store that keeps all in memory.

A cluster that was started stays for the machine's life; each scenario's images go with it. It is
administered by Ceph's bindings for Python: its own command takes ten seconds a call under
emulation.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pathlib
import signal
import sys
import uuid
from collections.abc import Iterator
from typing import Any

from ..guest import daemons, kernel

#: Where Debian keeps the bindings.
_PACKAGES = "/usr/lib/python3/dist-packages"
_MIB = 1 << 20
_UP_LIMIT_S = 240.0
POOLS = ("volumes", "backups")
USER = "cinder"

# Without cephx, who connects may give a command before the monitor has told him the cluster's
# fsid, and is refused with "wrong fsid". So the store gives no commands when it starts.
# A store frozen for longer than its lease, 0.8 of the heartbeats' grace, may take no request
# any more.
_CONF = """[global]
fsid = {fsid}
mon_host = {address}:6789
public_addr = {address}
auth_cluster_required = {auth}
auth_service_required = {auth}
auth_client_required = {auth}
keyring = {folder}/keyring
run_dir = {folder}
admin_socket = {folder}/$name.asok
log_file = {folder}/$name.log
mon_data = {folder}/mon
osd_data = {folder}/osd
osd_objectstore = memstore
osd_crush_chooseleaf_type = 0
osd_heartbeat_grace = 3600
osd_crush_update_on_start = false
osd_class_update_on_start = false
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pg_autoscale_mode = off
mon_allow_pool_size_one = true
osd_op_num_shards = 1
osd_op_num_threads_per_shard = 1
ms_async_op_threads = 1
rbd_default_features = 5
[osd.0]
keyring = {folder}/osd/keyring
"""
_KEYRING = """[mon.]
key = {mon}
caps mon = "allow *"
[client.admin]
key = {admin}
caps mon = "allow *"
caps osd = "allow *"
"""


def bindings() -> tuple[Any, Any]:
    """Return the modules ``rados`` and ``rbd``, for this process and the library in it."""
    if _PACKAGES not in sys.path:
        sys.path.append(_PACKAGES)  # last: all else is the environment's own
    return importlib.import_module("rados"), importlib.import_module("rbd")


class Cluster:
    """One cluster, with a pool for each of :data:`POOLS`.

    :param cephx: users have to prove who they are.
    """

    def __init__(self, address: str, *, cephx: bool) -> None:
        self.address = address
        self.cephx = cephx
        self.folder = pathlib.Path("/run/lab-ceph", "cephx" if cephx else "open")
        self.conf = self.folder / "ceph.conf"
        self.rados, self.rbd = bindings()

    @property
    def monitor(self) -> str:
        """The monitor's address and port."""
        return f"{self.address}:6789"

    # -- coming up -------------------------------------------------------------------------------
    def up(self) -> None:
        """Start the cluster unless it runs."""
        if (self.folder / "ready").exists():
            return
        kernel.load("rbd")
        (self.folder / "mon").mkdir(parents=True)
        (self.folder / "osd").mkdir()
        fsid = str(uuid.uuid4())
        auth = "cephx" if self.cephx else "none"
        words = {"fsid": fsid, "address": self.address, "auth": auth, "folder": self.folder}
        self.conf.write_text(_CONF.format(**words))
        self._start_monitor(fsid)
        self._start_store()
        with self.admin() as cluster:
            for pool in POOLS:
                self._command(cluster, prefix="osd pool create", pool=pool, pg_num=4)
                with self._ioctx(cluster, pool) as ioctx:
                    self.rbd.RBD().pool_init(ioctx, True)
        (self.folder / "ready").touch()

    def _start_monitor(self, fsid: str) -> None:
        keys = {name: self._new_key() for name in ("mon", "admin")}
        (self.folder / "keyring").write_text(_KEYRING.format(**keys))
        monmap = str(self.folder / "monmap")
        make = ("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v1:{self.monitor}]")
        kernel.run(*make, monmap)
        run = ("ceph-mon", "-i", "a", "-c", str(self.conf))
        kernel.run(*run, "--mkfs", "--monmap", monmap, "--keyring", str(self.folder / "keyring"))
        kernel.run(*run)
        daemons.outlive_the_scenario("ceph-mon")

    def _start_store(self) -> None:
        identity = str(uuid.uuid4())
        with self.admin() as cluster:
            self._command(cluster, prefix="osd create", uuid=identity)
            place = ["root=default", "host=lab"]
            self._command(cluster, prefix="osd crush create-or-move", id=0, weight=1.0, args=place)
            keyring = self._command(
                cluster,
                prefix="auth get-or-create",
                entity="osd.0",
                caps=["mon", "allow profile osd", "osd", "allow *"],
            )
            (self.folder / "osd/keyring").write_text(keyring)
            caps = ["mon", "profile rbd", "osd", "profile rbd"]
            keyring = self._command(
                cluster, prefix="auth get-or-create", entity=f"client.{USER}", caps=caps
            )
            (self.folder / "user-keyring").write_text(keyring)
        run = ("ceph-osd", "-i", "0", "-c", str(self.conf))
        kernel.run(*run, "--mkfs", "--osd-uuid", identity, limit_s=_UP_LIMIT_S)
        kernel.run(*run, limit_s=_UP_LIMIT_S)
        daemons.outlive_the_scenario("ceph-osd")

    @staticmethod
    def _new_key() -> str:
        return kernel.run("ceph-authtool", "--gen-print-key").strip()

    # -- administration ----------------------------------------------------------------------------
    @contextlib.contextmanager
    def admin(self) -> Iterator[Any]:
        """Connect as the administrator."""
        cluster = self.rados.Rados(conffile=str(self.conf), rados_id="admin")
        cluster.conf_set("client_mount_timeout", str(int(_UP_LIMIT_S)))
        cluster.connect()
        try:
            # With this answer it has been told the fsid too.
            cluster.wait_for_latest_osdmap()
            yield cluster
        finally:
            cluster.shutdown()

    @staticmethod
    def _command(cluster: Any, **words: Any) -> str:
        code, out, said = cluster.mon_command(json.dumps(words), b"")
        if code:
            raise AssertionError(f"{words}: {code} {said}")
        return str(out.decode())

    @contextlib.contextmanager
    def _ioctx(self, cluster: Any, pool: str) -> Iterator[Any]:
        ioctx = cluster.open_ioctx(pool)
        try:
            yield ioctx
        finally:
            ioctx.close()

    @contextlib.contextmanager
    def _pool(self, pool: str) -> Iterator[Any]:
        with self.admin() as cluster, self._ioctx(cluster, pool) as ioctx:
            yield ioctx

    def keyring(self) -> str:
        """Return the keyring of the user that services have."""
        return (self.folder / "user-keyring").read_text()

    def secret(self) -> str:
        """Return the key in it."""
        return self.keyring().split("key = ")[1].split()[0]

    # -- images ------------------------------------------------------------------------------------
    def image(self, name: str, *, pool: str = POOLS[0], size: int = 16 * _MIB) -> Image:
        """Make an image."""
        with self._pool(pool) as ioctx:
            self.rbd.RBD().create(ioctx, name, size)
        return Image(self, pool, name)

    def remove_all(self) -> None:
        """Remove all images, whoever still has them open."""
        for pool in POOLS:
            with self._pool(pool) as ioctx:
                for name in self.rbd.RBD().list(ioctx):
                    self._remove(ioctx, name)

    def _remove(self, ioctx: Any, name: str) -> None:
        with self.rbd.Image(ioctx, name) as image:
            for snapshot in list(image.list_snaps()):
                image.remove_snap(snapshot["name"])
            watchers = [one["addr"] for one in image.watchers_list()]
        if len(watchers) > 1:  # the first is this very opening
            print(f"        (clean-up: {name} is still open: {watchers})", flush=True)
        with contextlib.suppress(self.rbd.ImageBusy):
            self.rbd.RBD().remove(ioctx, name)

    # -- faults ------------------------------------------------------------------------------------
    def freeze_store(self) -> None:
        """Have no request of any client answered any more."""
        self._signal(signal.SIGSTOP)

    def thaw_store(self) -> None:
        """Take that back."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for pid in kernel.names("/proc"):
            words = kernel.read(f"/proc/{pid}/cmdline") if pid.isdigit() else ""
            if words.startswith("ceph-osd\0") and str(self.conf) in words:
                os.kill(int(pid), number)


class Image:
    """An image on the cluster's side."""

    def __init__(self, cluster: Cluster, pool: str, name: str) -> None:
        self.cluster = cluster
        self.pool = pool
        self.name = name

    @contextlib.contextmanager
    def opened(self, *, read_only: bool = False) -> Iterator[Any]:
        """Open it as another client does."""
        rbd = self.cluster.rbd
        with (
            self.cluster._pool(self.pool) as ioctx,
            rbd.Image(ioctx, self.name, read_only=read_only) as image,
        ):
            yield image

    def read(self, offset: int, length: int) -> bytes:
        """Read as another client does."""
        with self.opened(read_only=True) as image:
            content: bytes = image.read(offset, length)
        return content

    def grow(self, size: int) -> None:
        """Make it larger."""
        with self.opened() as image:
            image.resize(size)

    def watchers(self) -> int:
        """Return how many clients have it open for writing."""
        with self.opened(read_only=True) as image:
            return len(list(image.watchers_list()))

    def properties(self, **more: Any) -> dict[str, Any]:
        """Return connection properties as Cinder gives them; keys that are None are left out.

        With cephx they hold the keyring, as cinderlib's do: the host has none.
        """
        found: dict[str, Any] = {
            "name": f"{self.pool}/{self.name}",
            "hosts": [self.cluster.address],
            "ports": ["6789"],
            "cluster_name": "ceph",
            "auth_enabled": self.cluster.cephx,
            "auth_username": USER if self.cluster.cephx else None,
            "secret_type": "ceph",
            "volume_id": self.name,
            "access_mode": "rw",
            "encrypted": False,
        }
        if self.cluster.cephx:
            found["keyring"] = self.cluster.keyring()
        return found | more


def open_cluster() -> Cluster:
    """Return the cluster that trusts everybody, up."""
    cluster = Cluster("127.0.0.9", cephx=False)
    cluster.up()
    return cluster


def cephx_cluster() -> Cluster:
    """Return the cluster whose users prove who they are, up."""
    cluster = Cluster("127.0.0.8", cephx=True)
    cluster.up()
    return cluster


def clean() -> None:
    """Unmap what is mapped, by force, and remove all images of clusters that are up."""
    for number in kernel.names("/sys/bus/rbd/devices"):
        with contextlib.suppress(OSError):
            kernel.write("/sys/bus/rbd/remove_single_major", f"{number} force")
    if not any(folder.exists() for folder in pathlib.Path("/run/lab-ceph").glob("*/ready")):
        return
    # In a process of its own: the threads of Ceph's library survive no fork, and the one that
    # runs the scenarios forks for each.
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            _remove_all_images()
        finally:
            sys.stdout.flush()
            os._exit(0)
    os.waitpid(pid, 0)


def _remove_all_images() -> None:
    for address, cephx in (("127.0.0.9", False), ("127.0.0.8", True)):
        if pathlib.Path("/run/lab-ceph", "cephx" if cephx else "open", "ready").exists():
            cluster = Cluster(address, cephx=cephx)
            cluster.thaw_store()
            cluster.remove_all()
