# SPDX-License-Identifier: Apache-2.0
"""NVMe over Fabrics on the host: what a scenario makes, sees and cleans up."""

from __future__ import annotations

import contextlib
import json
import pathlib
import time
from typing import Any

from ..targets import nvmet
from . import data, kernel, udev
from .lab import MIB, Lab

NQN = "nqn.2014-08.org.example.lab"
HOST_ID = "2e0b4bd6-3d6a-4c51-9c0d-5a1f1f0a7b11"
HOST_NQN = f"nqn.2014-08.org.nvmexpress:uuid:{HOST_ID}"
CONTROLLERS = "/sys/class/nvme-fabrics/ctl"


# -- making ----------------------------------------------------------------------------------
def subsystem(
    lab: Lab, ports: int | list[nvmet.Port] = 1, *, native_multipath: bool = True, host: bool = True
) -> nvmet.Subsystem:
    """Make a subsystem without a namespace, and this host known by a name.

    :param host: whether the host's drivers are loaded.
    """
    nvmet.load(native_multipath=native_multipath, host=host)
    for file, text in (("hostnqn", HOST_NQN), ("hostid", HOST_ID)):
        if not kernel.read(pathlib.Path("/etc/nvme", file)):
            pathlib.Path("/etc/nvme", file).write_text(f"{text}\n")
    where = nvmet.ports(ports) if isinstance(ports, int) else ports
    number = len(kernel.names(nvmet.ROOT / "subsystems")) + 1
    return nvmet.Subsystem(f"{NQN}:{lab.name.replace('_', '-')}.{number}", where)


def volume(
    lab: Lab, ports: int = 1, size: int = 64 * MIB, blocks: int = 4096, **more: Any
) -> nvmet.Namespace:
    """Make a subsystem with one namespace."""
    return subsystem(lab, ports, **more).namespace(size=size, blocks=blocks)


def array_is_normal(lab: Lab) -> None:
    """Take the array's own loop devices, and udev's links to them, as belonging here."""
    udev.settle()
    lab.this_is_normal()


def properties(one: nvmet.Namespace, *ids: str, **more: Any) -> dict[str, Any]:
    """Return connection properties of the new format.

    :param ids: ``uuid`` (if none is named), ``nguid``, ``nsid``; ``none`` for nothing.
    """
    named = ids or ("uuid",)
    found: dict[str, Any] = {
        "target_nqn": one.subsystem.nqn,
        "portals": [[port.address, port.port, port.transport] for port in one.subsystem.ports],
        "vol_uuid": one.uuid if "uuid" in named else None,
        "volume_id": one.name,
        "access_mode": "rw",
        "encrypted": False,
        "qos_specs": None,
    }
    if "nguid" in named:
        found["volume_nguid"] = one.nguid
    if "nsid" in named:
        found["ns_id"] = one.nsid
    return found | more


def old_properties(one: nvmet.Namespace, **more: Any) -> dict[str, Any]:
    """Return connection properties of the old format."""
    port = one.subsystem.ports[0]
    found = {
        "nqn": one.subsystem.nqn,
        "target_portal": port.address,
        "target_port": port.port,
        "transport_type": port.transport,
    }
    return found | more


def after_json(value: Any) -> Any:
    """Return properties as they come back from a service's database."""
    return json.loads(json.dumps(value))


# -- seeing ----------------------------------------------------------------------------------
def controllers(nqn: str = "", state: str = "") -> list[str]:
    """Return the fabrics controllers, those of one subsystem or state if asked for."""
    return [
        name
        for name in kernel.names(CONTROLLERS)
        if name.startswith("nvme")
        and nqn in ("", kernel.read(f"{CONTROLLERS}/{name}/subsysnqn"))
        and state in ("", kernel.read(f"{CONTROLLERS}/{name}/state"))
    ]


def disk_of(one: nvmet.Namespace) -> str:
    """Return the device of a namespace by its UUID, as the kernel shows it."""
    for name in kernel.names("/sys/block"):
        if (
            kernel.read(f"/sys/block/{name}/uuid") == one.uuid
            and pathlib.Path("/dev", name).exists()
        ):
            return f"/dev/{name}"
    return ""


def wait_for_paths(one: nvmet.Namespace, count: int, limit_s: float = 60) -> None:
    """Wait until so many controllers of a namespace's subsystem are live."""
    nqn = one.subsystem.nqn
    kernel.wait_for(
        lambda: len(controllers(nqn, "live")) == count, f"{count} live controllers", limit_s
    )


def check_data(lab: Lab, path: str, one: nvmet.Namespace, offset: int = MIB) -> None:
    """Write through the attached device, and find it on the array and through the device."""
    content = data.pattern(f"{one.name}/{time.monotonic()}", 64 * 1024)
    data.write(path, content, offset)
    assert data.read(path, len(content), offset) == content, f"{path} reads otherwise"
    assert one.read(offset, len(content)) == content, (
        f"the array's {one.name} does not have what was written to {path}"
    )


# -- cleaning up -----------------------------------------------------------------------------
def reset() -> None:
    """End arrays, controllers and the target, by force."""
    for name in kernel.names("/sys/block"):
        if name.startswith("md"):
            kernel.run("mdadm", "--stop", f"/dev/{name}", check=False)
    for name in controllers():
        with contextlib.suppress(OSError):
            kernel.write(f"{CONTROLLERS}/{name}/delete_controller", "1")
    with contextlib.suppress(kernel.NotSeen):
        kernel.wait_for(lambda: not controllers(), "no controller", 60)
    for name in kernel.names("/sys/block"):
        if name.startswith("md"):
            kernel.run("mdadm", "--stop", f"/dev/{name}", check=False)
    for link in pathlib.Path("/dev/md").glob("*"):
        link.unlink(missing_ok=True)
    if nvmet.ROOT.exists():
        nvmet.remove_all()
    for name in ("hostnqn", "hostid"):
        pathlib.Path("/etc/nvme", name).unlink(missing_ok=True)
