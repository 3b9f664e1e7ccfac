# SPDX-License-Identifier: Apache-2.0
"""Soft Fibre Channel in one machine: FCoE between its own network cards, LIO's tcm_fc as array.

Four cards on one hub that leads nowhere (``machine.qemu``) become Fibre Channel ports in VN2VN
mode, without a switch and without daemons: two are the host's, two the array's. A port's WWPN is
2000 and the card's address. Sources: the kernel's ``drivers/scsi/fcoe/fcoe_ctlr.c``, ``drivers/
target/tcm_fc/tfc_conf.c``, and the attributes' own files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import subprocess
from collections.abc import Iterable, Sequence

from ..guest import kernel, udev
from . import lio

FC = pathlib.Path("/sys/kernel/config/target/fc")
_CREATE = "/sys/module/libfcoe/parameters/create_vn2vn"
_HOSTS = "/sys/class/fc_host"
_RPORTS = "/sys/class/fc_remote_ports"
#: FCoE needs frames of 2158 bytes and a little more.
_MTU = 4000
#: A LUN is let go in a moment, or never.
_REMOVAL_LIMIT_S = 20.0
_STUCK = pathlib.Path("/run/lab-fc-stuck")
#: From the first word on the hub until all ports know one another; much longer than ever seen.
_LOGIN_LIMIT_S = 120.0


@dataclasses.dataclass(frozen=True)
class Port:
    """One Fibre Channel port: a network card by its address."""

    mac: str

    @property
    def wwpn(self) -> str:
        """Its name, 16 hexadecimal digits."""
        return "2000" + self.mac.replace(":", "")

    @property
    def colons(self) -> str:
        """Its name as configfs wants it."""
        return f"20:00:{self.mac}"

    @property
    def interface(self) -> str:
        """Kernel name of its network card."""
        for name in kernel.names("/sys/class/net"):
            if kernel.read(f"/sys/class/net/{name}/address") == self.mac:
                return name
        raise AssertionError(f"no network card {self.mac}")

    @property
    def host(self) -> str:
        """Name of its SCSI host, ``"host2"``; empty before it is a Fibre Channel port."""
        for name in kernel.names(_HOSTS):
            if kernel.read(f"{_HOSTS}/{name}/port_name") == f"0x{self.wwpn}":
                return name
        return ""

    @property
    def group(self) -> pathlib.Path:
        """Its target portal group in configfs."""
        return FC / self.colons / "tpgt_1"


INITIATORS = (Port("52:54:00:00:0f:00"), Port("52:54:00:00:0f:01"))
TARGETS = (Port("52:54:00:00:0f:02"), Port("52:54:00:00:0f:03"))


# The fabric.


def up() -> None:
    """Bring the fabric up if it is not; it then stays for the machine's life."""
    if FC.exists() and all(port.host for port in (*INITIATORS, *TARGETS)):
        return
    lio.load()
    kernel.load("e1000e", "fcoe", "tcm_fc")
    FC.mkdir(exist_ok=True)
    for target in TARGETS:
        # Before it comes on line: a port that was first seen without the target's role is given
        # no number as SCSI target later.
        target.group.mkdir(parents=True, exist_ok=True)
        for initiator in INITIATORS:
            (target.group / "acls" / initiator.colons).mkdir(exist_ok=True)
    for port in (*TARGETS, *INITIATORS):
        kernel.run("ip", "link", "set", "dev", port.interface, "mtu", str(_MTU), "up")
    for port in (*TARGETS, *INITIATORS):
        if not port.host:
            kernel.write(_CREATE, port.interface)
    wait_until_whole()


def wait_until_whole(
    targets: Iterable[Port] = TARGETS, initiators: Iterable[Port] = INITIATORS
) -> None:
    """Wait until the host's ports see the array's as targets."""
    pairs = [(one, other) for one in initiators for other in targets]
    kernel.wait_for(
        lambda: all(target_number(one, other) is not None for one, other in pairs),
        f"all ports see one another: {_view()}",
        _LOGIN_LIMIT_S,
    )


def target_number(initiator: Port, target: Port) -> int | None:
    """Return the number of a target port behind a port of the host; None while it has none."""
    prefix = f"rport-{initiator.host.removeprefix('host')}:"
    for name in kernel.names(_RPORTS):
        rport = f"{_RPORTS}/{name}"
        if (
            name.startswith(prefix)
            and kernel.read(f"{rport}/port_name") == f"0x{target.wwpn}"
            and kernel.read(f"{rport}/port_state") == "Online"
        ):
            number = int(kernel.read(f"{rport}/scsi_target_id", "-1"))
            return number if number >= 0 else None
    return None


def port_state(initiator: Port, target: Port) -> str:
    """Return what a port of the host says of a target port; empty if it does not know it."""
    prefix = f"rport-{initiator.host.removeprefix('host')}:"
    for name in kernel.names(_RPORTS):
        if name.startswith(prefix):
            rport = f"{_RPORTS}/{name}"
            if kernel.read(f"{rport}/port_name") == f"0x{target.wwpn}":
                return kernel.read(f"{rport}/port_state")
    return ""


def _view() -> str:
    lines = []
    for name in kernel.names(_RPORTS):
        words = (kernel.read(f"{_RPORTS}/{name}/{what}") for what in _SHOWN)
        lines.append(" ".join((name, *words)))
    return "; ".join(lines)


_SHOWN = ("port_name", "port_state", "roles", "scsi_target_id")


# Faults.


def lose(port: Port) -> None:
    """Pull the cable of a port.

    Its own side knows at once; the others when its beacons have been missing for 20 s.  What udev
    reads of new disks is waited for: for ever does the kernel's array keep, and with it the LUN, a
    command whose answer it cannot send because its own port is down.
    """
    udev.settle()
    kernel.run("ip", "link", "set", "dev", port.interface, "down")


def restore() -> None:
    """Put all cables back and wait until all is well; nothing to do if there is no fabric."""
    if not FC.exists():
        return
    for port in (*TARGETS, *INITIATORS):
        flags = int(kernel.read(f"/sys/class/net/{port.interface}/flags", "0x0"), 16)
        if not flags & 1:  # IFF_UP
            kernel.run("ip", "link", "set", "dev", port.interface, "up")
    wait_until_whole()


# LUNs.


class ArrayStuck(Exception):
    """The kernel's array does not let go of a LUN.

    It keeps the LUN while it has a command of it, and it loses track of a command whose exchange
    broke off, as by a frame that was lost. Nothing of it can be removed then until the next boot.
    """


def map_volume(
    lun: int,
    volume: lio.Volume,
    targets: Sequence[Port] = TARGETS,
    initiators: Sequence[Port] = INITIATORS,
) -> None:
    """Show a volume to ports of the host as a LUN of the array's ports."""
    for target in targets:
        shown = target.group / "lun" / f"lun_{lun}"
        shown.mkdir()
        os.symlink(volume.store, shown / "storage")
        for initiator in initiators:
            mapped = target.group / "acls" / initiator.colons / f"lun_{lun}"
            mapped.mkdir()
            os.symlink(shown, mapped / "lun")


def unmap(lun: int) -> None:
    """Take a LUN away from all ports, whether it is used or not."""
    _check_not_stuck()
    for target in TARGETS:
        for initiator in INITIATORS:
            _remove(target.group / "acls" / initiator.colons / f"lun_{lun}")
        _remove(target.group / "lun" / f"lun_{lun}")


def unmap_all() -> None:
    """Take all LUNs away."""
    _check_not_stuck()
    luns = {name for target in TARGETS for name in kernel.names(target.group / "lun")}
    for name in luns:
        unmap(int(name.removeprefix("lun_")))


def is_stuck() -> bool:
    """Tell whether a LUN could not be taken away: then nobody may touch the array any more."""
    return _STUCK.exists()


def _check_not_stuck() -> None:
    if is_stuck():
        raise ArrayStuck("the array keeps a LUN for ever")


def _remove(folder: pathlib.Path) -> None:
    for name in kernel.names(folder):
        if (folder / name).is_symlink():
            _unlink(folder / name)
    with contextlib.suppress(FileNotFoundError):
        folder.rmdir()


def _unlink(link: pathlib.Path) -> None:
    """Remove a link by a process of its own, which is left behind if the kernel keeps it."""
    remover = subprocess.Popen(["unlink", str(link)], start_new_session=True)
    try:
        remover.wait(_REMOVAL_LIMIT_S * kernel.PATIENCE)
    except subprocess.TimeoutExpired:
        _STUCK.touch()
        raise ArrayStuck(f"the array keeps {link} for ever") from None
