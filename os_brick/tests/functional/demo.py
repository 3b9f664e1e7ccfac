# SPDX-License-Identifier: Apache-2.0
"""One volume's way, step by step: what ``tools/lab demo`` shows inside the machine."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from oslo_concurrency import processutils

if TYPE_CHECKING:
    from .guest.lab import Lab
    from .targets.lio import Volume


def main(arguments: Sequence[str]) -> int:
    """Run the demo of one protocol (``iscsi``, ``fc``, ``luks`` …); return the exit code."""
    protocol = (arguments or ["iscsi"])[0].lower()
    if protocol not in DEMOS:
        print(f"no demo of {protocol}: there are {', '.join(sorted(DEMOS))}", file=sys.stderr)
        return 2
    began = time.monotonic()
    try:
        DEMOS[protocol]()
    except Exception as error:  # noqa: BLE001 - told to whoever watches
        from .guest import host_state

        print(f"\nFAILED: {type(error).__name__}: {error}", flush=True)
        print(getattr(error, "timeline", ""))
        print(host_state.report())
        return 1
    print(f"\nDone in {time.monotonic() - began:.1f} s: attached, used, detached, nothing left.")
    return 0


def iscsi() -> None:
    """A volume over two portals, a map, 4 MiB of data."""
    world = _begin(iscsid=True)
    from .guest import lab

    with _step("make a volume of 64 MiB and a target with two portals") as said:
        target, volume = world.target(portals=2)
        said.append(f"{target.iqn} at {', '.join(target.portals)}")
    given = lab.properties(target, several=True)
    _way(world, "ISCSI", volume, given)


def fc() -> None:
    """A volume over two ports of the host and two target ports, a map, 4 MiB of data."""
    world = _begin(iscsid=False)
    from .guest import fc as guest_fc
    from .targets import tcm_fc

    with _step("bring four Fibre Channel ports up, without a switch") as said:
        tcm_fc.up()
        said.append(", ".join(f"{port.host} {port.wwpn}" for port in tcm_fc.INITIATORS))
    with _step("make a volume of 64 MiB and show it as LUN 1 of two target ports") as said:
        volume = guest_fc.volume(world)
        said.append(", ".join(port.wwpn for port in tcm_fc.TARGETS))
    _way(world, "FIBRE_CHANNEL", volume, guest_fc.properties())


def nvme() -> None:
    """A volume over two portals, one head over both paths, 4 MiB of data."""
    world = _begin(iscsid=False)
    from .guest import data, lab
    from .guest import nvme as guest_nvme

    with _step("make a namespace of 64 MiB on a subsystem with two portals") as said:
        volume = guest_nvme.volume(world, ports=2)
        where = ", ".join(port.text for port in volume.subsystem.ports)
        said.append(f"{volume.subsystem.nqn} at {where}")
    world.this_is_normal()
    host = world.service("NVMEOF", multipath=True)
    given = guest_nvme.properties(volume)
    with _step("attach: connect_volume") as said:
        info = host.attach(given)
        said.append(f"{info['path']} over {', '.join(guest_nvme.controllers())}")
    content = data.pattern("demo", 4 * lab.MIB)
    with _step("write 4 MiB through the device, read them back past the cache"):
        data.write(info["path"], content)
        assert data.read(info["path"], len(content)) == content
    with _step("look on the target's side") as said:
        assert volume.read(0, len(content)) == content
        said.append("the array has them")
    with _step("make the volume 96 MiB; extend_volume") as said:
        volume.grow(96 * lab.MIB)
        said.append(f"{(host.extend(given) or 0) // lab.MIB} MiB")
    with _step("detach: disconnect_volume"):
        host.detach(given, info)
    with _step("look for leftovers, at once and after 5 s") as said:
        world.expect_clean()
        said.append("no controller, namespace, device file or link is left")
    guest_nvme.reset()


def rbd() -> None:
    """An image by a handle of librbd, then mapped by the kernel."""
    world = _begin(iscsid=False)
    from .guest import ceph_images, data, lab, reset, service
    from .targets import ceph

    with _step("start a Ceph cluster: one monitor, one store in memory, cephx") as said:
        cluster = ceph.cephx_cluster()
        said.append(f"monitor at {cluster.monitor}, pools {', '.join(ceph.POOLS)}")
    with _step("make an image of 16 MiB") as said:
        image = cluster.image("volume-1")
        said.append(f"{image.pool}/{image.name}")
    given = image.properties()
    content = data.pattern("demo", 4 * lab.MIB)
    host = world.service("RBD")
    with _step("attach by librbd: connect_volume") as said:
        info = host.attach(given)
        handle = info["path"]
        said.append(f"a file object; its key is in memory, by way of {handle.rbd_conf}")
    with _step("write 4 MiB through it, detach"):
        handle.write(content)
        host.detach(given, info)
    with _step("look on the cluster's side") as said:
        assert image.read(0, len(content)) == content
        said.append(f"it has them; {image.watchers()} clients have the image open")
    host = service.Service("RBD", do_local_attach=True)
    with _step("attach by rbd map: connect_volume") as said:
        info = host.attach(given)
        said.append(f"{info['path']} → {os.path.realpath(info['path'])}; key in {info['conf']}")
    with _step("read the 4 MiB from the device") as said:
        assert data.read(info["path"], len(content)) == content
        said.append("as written")
    with _step("make the image 24 MiB, extend_volume") as said:
        image.grow(24 * lab.MIB)
        said.append(f"{(host.extend(given) or 0) // lab.MIB} MiB")
    with _step("detach: disconnect_volume") as said:
        host.detach(given, info)
        said.append(f"mapped: {ceph_images.mapped()}, files: {ceph_images.secret_files()}")
    with _step("look for leftovers, at once and after 5 s") as said:
        world.expect_clean()
        said.append("no device, file, link or program is left")
    reset.everything()


def nfs() -> None:
    """A file of a share."""
    world = _begin(iscsid=False)
    from .guest import data, kernel, lab, reset
    from .scenarios import nfs_shares
    from .targets import nfs as server

    with _step("start the kernel's NFS server, a share with a file of 16 MiB") as said:
        server.up()
        share = server.Share("one")
        file = share.file("volume-1", 16 * lab.MIB)
        said.append(share.export)
    host = nfs_shares.host_of(world, release_mounts=True)
    given = share.properties("volume-1")
    with _step("attach: connect_volume") as said:
        info = host.attach(given)
        point = nfs_shares.mounted()[0]
        options = kernel.run("findmnt", "-n", "-o", "OPTIONS", point)
        version = next(one for one in options.split(",") if one.startswith("vers="))
        said.append(f"{info['path']}, {version}")
    content = data.pattern("demo", 4 * lab.MIB)
    with _step("write 4 MiB to the file"):
        data.write(info["path"], content)
    with _step("look on the server's side") as said:
        assert file.read_bytes()[: len(content)] == content
        said.append("it has them")
    with _step("attach again while the server does not answer") as said:
        world.network.silence(share.portal)
        with lab.fails_with(Exception) as caught:
            host.attach(given)
        world.heal()
        said.append(str(caught[0]))
    with _step("detach; the caller chose to have unused mounts released") as said:
        host.detach(given, info)
        said.append(f"mounted: {nfs_shares.mounted()}")
    with _step("look for leftovers, at once and after 5 s") as said:
        world.expect_clean()
        said.append("no mount, directory or program is left")
    reset.everything()


def luks() -> None:
    """An encrypted volume over two portals: what is written here is not to be read there."""
    world = _begin(iscsid=True)
    from .guest import data, encryption, host_state, lab, reset

    with _step("make a volume of 64 MiB and a target with two portals") as said:
        one = encryption.Encrypted(world, "luks2")
        said.append(f"{one.target.iqn} at {', '.join(one.target.portals)}")
    with _step("attach: connect_volume, 'encrypted': True") as said:
        one.connect()
        said.append(f"{one.link} over {', '.join(host_state.disks(one.volume.wwid))}")
    with _step("open: attach_volume of a LUKS2 encryptor; first use, so it is formatted") as said:
        one.open()
        said.append(f"the link leads to {os.path.realpath(one.link)}, {one.label}")
    content = one.pattern()
    with _step("write 1 MiB through the link, read it back past the cache") as said:
        data.write(one.link, content, lab.MIB)
        assert data.read(one.link, len(content), lab.MIB) == content
        said.append("as written")
    with _step("look on the target's side") as said:
        one.expect_no_clear_text(content)
        said.append(f"a header {one.header()[:4].decode()}, then ciphertext; no clear text")
    with _step("make the volume 96 MiB while it is open; extend_volume of both") as said:
        one.volume.grow(96 * lab.MIB)
        one.host.extend({**one.given, "device_path": one.link})
        said.append(f"{(one.extend() or 0) // lab.MIB} MiB decrypted")
    with _step("close: detach_volume") as said:
        one.close()
        said.append(f"the link leads to {os.path.realpath(one.link)} again")
    with _step("open again with a wrong passphrase") as said:
        right, one.passphrase = one.passphrase, "a wrong one"
        with lab.fails_with(processutils.ProcessExecutionError) as caught:
            one.open()
        said.append(f"refused: exit code {getattr(caught[0], 'exit_code', None)}")
    with _step("open again with the right one, read") as said:
        one.passphrase = right
        one.open()
        assert data.read(one.link, len(content), lab.MIB) == content
        said.append("as written")
    with _step("close and detach"):
        one.close()
        one.disconnect()
    with _step("look for leftovers, at once and after 5 s") as said:
        world.expect_clean()
        said.append("no mapping, session, disk, map or link is left")
    reset.everything()


def lvm() -> None:
    """A local volume group: a thin volume, its snapshot, an extension."""
    world = _begin(iscsid=False)
    from .guest import data, lab, reset
    from .guest import volume_groups as groups

    with _step("make two disks of 1 GiB and a volume group of them, with a thin pool") as said:
        groups.load()
        paths = [groups.disk(name) for name in ("one", "two")]
        keywords = {"create_vg": True, "physical_volumes": paths, "lvm_type": "thin"}
        group = groups.view("labvg", **keywords)
        said.append(f"{group.vg_name} on {', '.join(paths)}, pool {group.vg_thin_pool}")
    with _step("make a thin volume of 4 GiB: create_volume") as said:
        group.create_volume("volume", "4g", lv_type="thin")
        said.append("/dev/labvg/volume")
    content = data.pattern("demo", 4 * lab.MIB)
    with _step("write 4 MiB, make a snapshot, write others over them"):
        data.write("/dev/labvg/volume", content)
        group.create_lv_snapshot("snap", "volume", lv_type="thin")
        group.activate_lv("snap", is_snapshot=True)
        data.write("/dev/labvg/volume", data.pattern("others", len(content)))
    with _step("read the snapshot, past the cache") as said:
        assert data.read("/dev/labvg/snap", len(content)) == content
        said.append("as written first")
    with _step("extend the volume to 5 GiB: extend_volume") as said:
        group.extend_volume("volume", "5g")
        assert data.size("/dev/labvg/volume") == 5 * groups.GIB
        group.update_volume_group_info()
        said.append(f"{group.vg_thin_pool_free_space} GiB of the pool are free")
    with _step("remove all: delete"):
        for name in ("snap", "volume", "labvg-pool"):
            group.delete(name)
    with _step("look for leftovers, at once and after 5 s") as said:
        world.expect_clean()
        said.append("no mapping or link is left")
    reset.everything()


def _begin(*, iscsid: bool) -> Lab:
    """Load what the demo needs and bring the machine to a clean state."""
    with _step("load the library, as a service does once"):
        from .guest import daemons, host_state, lab, reset, service

        host_state.enter_group()
        lab.LOGS.mkdir(exist_ok=True)
        service.log_to(lab.LOGS / "demo.log")
        service.set_up()
        service.as_root()
    with _step(f"load the kernel's modules, start {'iscsid and ' if iscsid else ''}multipathd"):
        lab.warm_up()
        reset.everything()
        if iscsid:
            daemons.Iscsid().start()
        daemons.Multipathd().start(daemons.MultipathConfig())
    return lab.Lab("demo")


def _way(world: Lab, protocol: str, volume: Volume, given: dict[str, Any]) -> None:
    """Attach a volume, use it, detach it, look."""
    from .guest import data, host_state, lab, reset

    host = world.service(protocol, multipath=True)
    with _step("attach: connect_volume") as said:
        info = host.attach(given)
        said.append(f"{info['path']} over {', '.join(host_state.disks(volume.wwid))}")
    content = data.pattern("demo", 4 * lab.MIB)
    with _step("write 4 MiB through the device"):
        data.write(info["path"], content)
    with _step("read them back, past the cache") as said:
        assert data.read(info["path"], len(content)) == content
        said.append("as written")
    with _step("look on the target's side") as said:
        assert volume.read(0, len(content)) == content
        said.append("the array has them")
    with _step("detach: disconnect_volume"):
        host.detach(given, info)
    with _step("look for leftovers, at once and after 5 s") as said:
        world.expect_clean()
        said.append("no session, record, disk, map, link or path is left")
    reset.everything()


DEMOS = {"iscsi": iscsi, "fc": fc, "nvme": nvme, "luks": luks, "lvm": lvm, "rbd": rbd, "nfs": nfs}


@contextlib.contextmanager
def _step(what: str) -> Iterator[list[str]]:
    print(f"{what} ... ", end="", flush=True)
    began = time.monotonic()
    said: list[str] = []
    yield said
    print(f"{time.monotonic() - began:.1f} s  {' '.join(said)}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
