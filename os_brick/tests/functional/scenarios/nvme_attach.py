# SPDX-License-Identifier: Apache-2.0
"""NVMe over Fabrics volumes come, are used, grow and go."""

from __future__ import annotations

import functools
import os
import threading
import time
from typing import Any

from os_brick import exception

from ..guest import data, kernel, nvme, programs, service
from ..guest.lab import MIB, Lab, fails_with
from ..guest.nvme import properties
from ..targets import nvmet
from . import SMOKE_S, scenario


def attach(lab: Lab, host: service.Service, given: dict[str, Any]) -> dict[str, Any]:
    """Attach, timed."""
    with lab.timed("attach"):
        return host.attach(given)


def detach(
    lab: Lab, host: service.Service, given: dict[str, Any], info: dict[str, Any] | None, **how: Any
) -> None:
    """Detach, timed."""
    with lab.timed("detach"):
        host.detach(given, info, **how)


@scenario("one portal: data on the array, one program each way, nothing left", multipath=None)
def nvme_single_path(lab: Lab) -> None:
    """One portal, one controller."""
    one = nvme.volume(lab)
    host = lab.service("NVMEOF")
    with programs.counted() as started, lab.timed("attach"):
        info = host.attach(properties(one))
    assert info == {"type": "block", "path": nvme.disk_of(one)}, info
    assert [each.name for each in started] == ["nvme"], [str(each) for each in started]
    nvme.check_data(lab, info["path"], one)
    assert host.paths(properties(one)) == [info["path"]]
    with programs.counted() as started, lab.timed("detach"):
        host.detach(properties(one), info)
    assert [each.name for each in started] == ["sync"], [str(each) for each in started]


@scenario(
    "two portals: one head, data on the array, few programs", limit_s=SMOKE_S, groups=["smoke"]
)
def nvme_two_paths(lab: Lab) -> None:
    """Native multipath joins both; multipathd runs and is not disturbed."""
    one = nvme.volume(lab, ports=2)
    host = lab.service("NVMEOF", multipath=True)
    with programs.counted() as started, lab.timed("attach"):
        info = host.attach(properties(one))
    assert info["path"] == nvme.disk_of(one), info
    assert [each.name for each in started] == ["nvme"] * 2, [str(each) for each in started]
    nvme.wait_for_paths(one, 2)
    nvme.check_data(lab, info["path"], one)
    with programs.counted() as started, lab.timed("detach"):
        host.detach(nvme.after_json(properties(one)), info)
    assert [each.name for each in started] == ["sync"], [str(each) for each in started]


@scenario("each identifier alone, none at all, the old format, integer and text ns_id", limit_s=300)
def nvme_identifiers(lab: Lab) -> None:
    """Whatever a driver sends, the same namespace is found and taken away."""
    one = nvme.subsystem(lab, 2).namespace(7)
    host = lab.service("NVMEOF", multipath=True)
    forms: dict[str, dict[str, Any]] = {
        "uuid": properties(one, "uuid"),
        "upper case, no hyphens": properties(one, vol_uuid=one.uuid.replace("-", "").upper()),
        "nguid": properties(one, "nguid"),
        "integer ns_id": properties(one, "nsid"),
        "text ns_id": properties(one, "nsid", ns_id="7"),
        "nothing": properties(one, "none"),
        "old format": nvme.old_properties(one),
        "old format, ns_id": nvme.old_properties(one, ns_id="7"),
        "old format, nguid": nvme.old_properties(one, volume_nguid=one.nguid),
        "host NQN": properties(one, host_nqn=f"{nvme.NQN}:another-host"),
    }
    for name, given in forms.items():
        with lab.timed(name):
            info = host.attach(given)
        assert info["path"] == nvme.disk_of(one), (name, info)
        nvme.check_data(lab, info["path"], one)
        host.detach(given | {"device_path": info["path"]}, None)
        assert not nvme.controllers(), f"{name}: {nvme.controllers()}"


@scenario("a wrong identifier fails, names the portal, and takes its connection away")
def nvme_wrong_identifier(lab: Lab) -> None:
    """A subsystem that does not show the volume."""
    empty = nvme.subsystem(lab, 1)
    one = nvme.volume(lab)
    given = properties(one) | {"target_nqn": empty.nqn}
    host = lab.service("NVMEOF", multipath=True)
    with lab.timed("attach"), fails_with(exception.VolumeDeviceNotFound) as caught:
        host.attach(given)
    assert "127.0.0.2" in str(caught[0]), caught[0]
    assert not nvme.controllers()


@scenario("three namespaces of a shared subsystem: controllers stay until the last", limit_s=300)
def nvme_shared_subsystem(lab: Lab) -> None:
    """A controller goes only with its last namespace."""
    shared = nvme.subsystem(lab, 2)
    volumes = [shared.namespace() for _ in range(3)]
    host = lab.service("NVMEOF", multipath=True)
    given = [properties(one, "nsid" if one.nsid == 2 else "uuid") for one in volumes]
    infos = [host.attach(each) for each in given]
    assert [info["path"] for info in infos] == [nvme.disk_of(one) for one in volumes]
    for one, info in zip(volumes, infos, strict=True):
        nvme.check_data(lab, info["path"], one)
    for place, one in enumerate(volumes):
        assert len(nvme.controllers(shared.nqn)) == 2
        with lab.timed(f"detach {place + 1}"):
            host.detach(given[place], infos[place])
        # As Cinder does after each detach.
        one.unmap()
    assert not nvme.controllers()


@scenario("the array took the other namespace away without the host's notice: nothing is left")
def nvme_last_but_gone(lab: Lab) -> None:
    """What the subsystem does not have any more keeps no controller."""
    shared = nvme.subsystem(lab, 1)
    first, second = shared.namespace(), shared.namespace()
    host = lab.service("NVMEOF")
    info = host.attach(properties(first))
    other = host.attach(properties(second))
    host.detach(properties(first), info)
    assert nvme.controllers()
    first.unmap()
    host.detach(properties(second), other)
    assert not nvme.controllers()


@scenario("attached twice, one after the other and at once; detached twice")
def nvme_twice(lab: Lab) -> None:
    """Attach is idempotent, and so is detach."""
    one = nvme.volume(lab, ports=2)
    host = lab.service("NVMEOF", multipath=True)
    info = attach(lab, host, properties(one))
    with programs.counted() as started, lab.timed("again"):
        assert host.attach(properties(one)) == info
    assert not started, [str(each) for each in started]
    detach(lab, host, properties(one), info)
    with lab.timed("detach again"):
        host.detach(properties(one), info)
    with lab.timed("twice at once"):
        both = lab.side_by_side([functools.partial(host.attach, properties(one))] * 2)
    assert both[0] == both[1], both
    nvme.wait_for_paths(one, 2)
    nvme.check_data(lab, both[0]["path"], one)
    lab.side_by_side([functools.partial(host.detach, properties(one), both[0])] * 2)
    assert not nvme.controllers()


@scenario("extend with blocks of 4096 and of 512 bytes, one path and two", limit_s=300)
def nvme_extend(lab: Lab) -> None:
    """The disk has the new size when the call returns, and no time was slept away."""
    for blocks in (4096, 512):
        for ports in (1, 2):
            one = nvme.volume(lab, ports=ports, blocks=blocks)
            nvme.array_is_normal(lab)
            host = lab.service("NVMEOF", multipath=ports > 1)
            info = host.attach(properties(one))
            assert kernel.read(
                f"/sys/block/{os.path.basename(info['path'])}/queue/logical_block_size"
            ) == str(blocks)
            one.grow(96 * MIB)
            with lab.timed(f"extend {blocks}/{ports}"):
                size = host.extend(properties(one, device_path=info["path"]))
            assert size == 96 * MIB == data.size(info["path"]), size
            assert host.extend(properties(one)) == size
            nvme.check_data(lab, info["path"], one, offset=90 * MIB)
            host.detach(properties(one), info)


@scenario("native multipath off: one path each, and enforcement is refused", limit_s=300)
def nvme_no_native_multipath(lab: Lab) -> None:
    """nvme_core.multipath=N; the driver is loaded anew for it."""
    one = nvme.volume(lab, ports=2, native_multipath=False)
    lab.this_is_normal()
    host = lab.service("NVMEOF", multipath=True)
    with fails_with(exception.BrickException) as caught:
        host.attach(properties(one, enforce_multipath=True))
    assert "enforced" in str(caught[0])
    assert not nvme.controllers()
    info = attach(lab, host, properties(one))
    assert len(nvme.controllers()) == 1
    name = os.path.basename(info["path"])
    assert os.path.exists(f"{nvme.CONTROLLERS}/{nvme.controllers()[0]}/{name}"), info
    nvme.check_data(lab, info["path"], one)
    one.grow(96 * MIB)
    assert host.extend(properties(one)) == 96 * MIB
    detach(lab, host, properties(one), info)
    nvmet.load(native_multipath=True)


@scenario("a driver that is loaded after the first question is noticed")
def nvme_driver_loaded_late(lab: Lab) -> None:
    """Whether the kernel has native multipath is asked when it matters."""
    nvmet.unload()
    host = lab.service("NVMEOF", multipath=True)
    assert host.connector.supports_multipath() is False
    one = nvme.subsystem(lab, 2, host=False).namespace()
    assert not os.path.exists("/dev/nvme-fabrics")
    info = attach(lab, host, properties(one, enforce_multipath=True))
    assert len(nvme.controllers(one.subsystem.nqn)) == 2
    detach(lab, host, properties(one), info)


@scenario("RDMA over soft RoCE", limit_s=300, multipath=None)
def nvme_rdma(lab: Lab) -> None:
    """Drivers call it rdma or RoCEv2."""
    nvmet.load()
    one = nvme.subsystem(lab, [nvmet.rdma_port()]).namespace()
    lab.this_is_normal()
    host = lab.service("NVMEOF", multipath=True)
    given = properties(one)
    given["portals"][0][2] = "RoCEv2"
    info = attach(lab, host, given)
    nvme.check_data(lab, info["path"], one)
    detach(lab, host, given, info)
    info = host.attach(nvme.old_properties(one))
    detach(lab, host, nvme.old_properties(one), info)


@scenario("ANA: states changed under load, and one portal inaccessible at attach", limit_s=400)
def nvme_ana(lab: Lab) -> None:
    """I/O goes on by the accessible path; the attach returns a disk that takes I/O."""
    one = nvme.subsystem(lab, 2).namespace(group=2)
    ports = one.subsystem.ports
    ports[0].set_ana("inaccessible", 2)
    ports[1].set_ana("optimized", 2)
    host = lab.service("NVMEOF", multipath=True)
    info = attach(lab, host, properties(one))
    nvme.wait_for_paths(one, 2)
    stop, failures = threading.Event(), []

    def load() -> None:
        try:
            while not stop.is_set():
                nvme.check_data(lab, info["path"], one, offset=8 * MIB)
        except Exception as error:  # noqa: BLE001 - told by the scenario below
            failures.append(error)

    writer = threading.Thread(target=load)
    writer.start()
    for states in (
        ("optimized", "inaccessible"),
        ("non-optimized", "optimized"),
        ("inaccessible", "non-optimized"),
        ("optimized", "optimized"),
    ):
        for port, state in zip(ports, states, strict=True):
            if state != "inaccessible":
                port.set_ana(state, 2)
        for port, state in zip(ports, states, strict=True):
            port.set_ana(state, 2)
        time.sleep(1)
    stop.set()
    writer.join()
    assert not failures, failures
    nvme.check_data(lab, info["path"], one)
    detach(lab, host, properties(one), info)


@scenario("ANA: inaccessible by all portals for some seconds: the attach waits", limit_s=300)
def nvme_ana_all_inaccessible(lab: Lab) -> None:
    """The disk is handed out only when it takes I/O."""
    one = nvme.subsystem(lab, 1).namespace(group=2)
    port = one.subsystem.ports[0]
    port.set_ana("inaccessible", 2)
    host = lab.service("NVMEOF", multipath=True)
    later = threading.Timer(5, lambda: port.set_ana("optimized", 2))
    later.start()
    info = attach(lab, host, properties(one))
    assert lab.seconds("attach") > 4
    nvme.check_data(lab, info["path"], one)
    detach(lab, host, properties(one), info)


@scenario("this host's properties: NQN and id made once, a pair, told the same each time")
def nvme_host_properties(lab: Lab) -> None:
    """What storage has to know."""
    nvmet.load()
    first = service.host_properties()
    assert first["nqn"].endswith(first["nvme_hostid"]), first
    assert first["nvme_native_multipath"] is True, first
    assert kernel.read("/etc/nvme/hostnqn") == first["nqn"]
    assert kernel.read("/etc/nvme/hostid") == first["nvme_hostid"]
    with programs.counted() as started, lab.timed("again"):
        again = service.host_properties()
    assert {key: again[key] for key in ("nqn", "nvme_hostid")} == {
        key: first[key] for key in ("nqn", "nvme_hostid")
    }
    assert not [each for each in started if each.name == "nvme"], [str(each) for each in started]


@scenario("a service with its own execute function: everything by programs", limit_s=400)
def nvme_own_execute(lab: Lab) -> None:
    """As Cinder's library users do, with sudo."""
    from oslo_concurrency import processutils

    one = nvme.volume(lab, ports=2)
    host = service.Service("NVMEOF", multipath=True, execute=processutils.execute)
    info = attach(lab, host, properties(one))
    nvme.check_data(lab, info["path"], one)
    one.grow(96 * MIB)
    assert host.extend(properties(one)) == 96 * MIB
    detach(lab, host, properties(one), info)
    assert not nvme.controllers()
