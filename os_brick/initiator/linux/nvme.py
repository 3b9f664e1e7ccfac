# SPDX-License-Identifier: Apache-2.0
"""NVMe over Fabrics as the kernel shows it: portals as values, controllers from sysfs.

A fabrics controller is a directory ``/sys/class/nvme-fabrics/ctl/nvme<C>`` with the files read here
(kernel: ``drivers/nvme/host/sysfs.c``, ``fabrics.c``). It can vanish between any two reads.
"""

from __future__ import annotations

import errno
import ipaddress
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux.sysfs import Tree

LOG = logging.getLogger(__name__)

#: Where the kernel lists fabrics controllers, below ``/sys``.
CONTROLLERS = "class/nvme-fabrics/ctl"
MULTIPATH_PARAMETER = "module/nvme_core/parameters/multipath"

TCP, RDMA, FC = "tcp", "rdma", "fc"

LIVE = "live"
#: States from which a controller becomes live by itself.
COMING = frozenset({"new", "connecting", "resetting"})
#: States of a controller that is on its way out.
LEAVING = frozenset({"deleting", "deleting (no IO)", "dead"})

_CONTROLLER = re.compile(r"nvme\d+")
_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})")
_DOTTED = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}", re.ASCII)
# NVMe-FC transport addresses: node and port name, "nn-0x10000000c0ffee01:pn-0x…" (FC-NVMe annex).
_FC_ADDRESS = re.compile(r"nn-0x[0-9a-f]{16}:pn-0x[0-9a-f]{16}")
# NVM Express base specification 4.5: at most 223 bytes of UTF-8; and nothing that an option could
# be made of.
_NQN = re.compile(r"[^\s\-,][^\s,]{0,222}")


def parse_transport(text: object, key: str = "transport") -> str:
    """Return ``tcp``, ``rdma`` or ``fc`` for what drivers call a transport: any text but those for
    RDMA and Fibre Channel means TCP.

    :raises InvalidParameterValue: it is no text.
    """
    if not isinstance(text, str):
        raise exception.InvalidParameterValue(
            err=f"{key}: expected a transport such as 'tcp', got {type(text).__name__}"
        )
    name = text.strip().lower()
    if name in ("rdma", "rocev2"):
        return RDMA
    return FC if name == "fc" else TCP


def canonical_address(text: str) -> str | None:
    """Return an IP address in one spelling, a host name in lower case; None if it is neither.

    IPv4 addresses may be padded with zeros or mapped into IPv6.
    """
    text = text.strip().strip("[]")
    if _DOTTED.fullmatch(text):
        text = ".".join(str(int(part)) for part in text.split("."))
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text.lower() if _HOST_NAME.fullmatch(text) else None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address).lower()


def parse_nqn(value: object, key: str) -> str:
    """Return an NVMe qualified name that may be used in a command.

    :raises InvalidParameterValue: naming ``key`` and what was expected.
    """
    if isinstance(value, str) and _NQN.fullmatch(value.strip()):
        return value.strip()
    raise exception.InvalidParameterValue(
        err=f"{key}: expected an NVMe qualified name as 'nqn.…', got {value!r}"
    )


@dataclass(frozen=True, slots=True, order=True)
class Portal:
    """Where a subsystem is reached. Compared by value: ``FE80::1`` is ``fe80::1``, port 4420 is
    ``"4420"``.

    :ivar address: canonical IP address, host name in lower case, or names of a Fibre Channel port.
    :ivar port: decimal text; empty for Fibre Channel.
    :ivar host_address: for Fibre Channel, the port of this host that leads there, once it is known.
    """

    transport: str
    address: str
    port: str
    host_address: str = ""

    @classmethod
    def parse(
        cls, address: object, port: object, transport: object, key: str = "portals"
    ) -> Portal:
        """Return the portal that connection properties name.

        :param port: int or text.
        :param key: names the portal in errors.
        :raises InvalidParameterValue: naming ``key`` and what was expected.
        """
        kind = parse_transport(transport, key)
        if not isinstance(address, str):
            raise _bad_portal(key, "an address as text", address)
        if kind == FC:
            names = address.strip().lower()
            if not _FC_ADDRESS.fullmatch(names):
                raise _bad_portal(key, "an address as 'nn-0x…:pn-0x…'", address)
            return cls(FC, names, "")
        where = canonical_address(address)
        if where is None:
            raise _bad_portal(key, "an IP address or host name", address)
        number = str(port).strip() if isinstance(port, int | str) else ""
        if not (number.isascii() and number.isdecimal() and 0 < int(number) < 65536):
            raise _bad_portal(key, "a port number", port)
        return cls(kind, where, str(int(number)))

    @property
    def is_name(self) -> bool:
        """Tell whether the address is a host name that has to be resolved."""
        if self.transport == FC:
            return False
        try:
            ipaddress.ip_address(self.address)
        except ValueError:
            return True
        return False

    def __str__(self) -> str:
        if self.transport == FC:
            here = f" from {self.host_address}" if self.host_address else ""
            return f"{self.transport} {self.address}{here}"
        where = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.transport} {where}:{self.port}"


def _bad_portal(key: str, expected: str, got: object) -> exception.InvalidParameterValue:
    return exception.InvalidParameterValue(err=f"{key}: expected {expected}, got {got!r}")


# -- controllers -----------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Controller:
    """One controller as long as it exists; a later one of its name is another.

    :ivar name: the kernel's, ``"nvme3"``.
    :ivar instance: tells it from others of the same name.
    :ivar address: the ``key=value`` pairs that the kernel states, unknown keys included.
    :ivar host_nqn: the name this host has given itself there; None on kernels that do not tell.
    """

    name: str
    instance: int
    nqn: str
    transport: str
    address: Mapping[str, str] = field(compare=False)
    host_nqn: str | None = None
    host_id: str = ""

    @property
    def path(self) -> str:
        """Its character device."""
        return f"/dev/{self.name}"

    @property
    def portal(self) -> Portal:
        """The portal that it goes through, as connection properties would name it; one without an
        address if that could not be read, or for transports that have none."""
        shown = self.address.get("traddr", "")
        if self.transport == FC:
            return Portal(FC, shown.lower(), "", self.address.get("host_traddr", "").lower())
        port = self.address.get("trsvcid", "").lstrip("0")
        return Portal(self.transport, canonical_address(shown) or "", port)

    def is_at(self, portal: Portal) -> bool:
        """Tell whether it goes through a portal, compared by value."""
        if self.transport != portal.transport:
            return False
        shown = self.address.get("traddr", "")
        if portal.transport == FC:
            here = self.address.get("host_traddr", "").lower()
            return shown.lower() == portal.address and portal.host_address in ("", here)
        return (
            canonical_address(shown) == portal.address
            and self.address.get("trsvcid", "").lstrip("0") == portal.port
        )

    def __str__(self) -> str:
        return self.name


def parse_address(text: str) -> dict[str, str]:
    """Return the pairs of a controller's ``address``: ``traddr=10.0.0.1,trsvcid=4420,…``; of an
    empty one (loop), none."""
    pairs = (pair.partition("=") for pair in text.strip().split(","))
    return {key.strip(): value.strip() for key, equals, value in pairs if equals}


def parse_delay(text: str) -> int | None:
    """Return the seconds in ``reconnect_delay`` or ``ctrl_loss_tmo``; None for ``off`` and
    whatever is no number."""
    try:
        return int(text)
    except ValueError:
        return None


def read_controllers(sysfs: Tree, nqn: str | None = None) -> list[Controller]:
    """Return the fabrics controllers of a subsystem (of all if None), in the order of their
    numbers.

    One whose address cannot be read is told without any, with an error in the log: it is at no
    portal, but its namespaces are here.

    :raises OSError: the host could not be looked at.
    """
    found = (read_controller(sysfs, name, nqn) for name in controller_names(sysfs))
    return [one for one in found if one is not None]


def controller_names(sysfs: Tree) -> list[str]:
    """Return the names of all NVMe controllers, local ones included, in the order of their
    numbers."""
    names = [name for name in sysfs.names(CONTROLLERS) if _CONTROLLER.fullmatch(name)]
    return sorted(names, key=lambda name: int(name[4:]))


def read_controller(sysfs: Tree, name: str, nqn: str | None = None) -> Controller | None:
    """Return the fabrics controller of a name; None if there is none, or (with ``nqn``) it is
    another subsystem's.

    :raises OSError: the host could not be looked at.
    """
    # Most are other subsystems' on a host with many volumes: nothing else is read of those.
    if nqn is not None and _attribute(sysfs, name, "subsysnqn") != nqn:
        return None
    instance = sysfs.instance(CONTROLLERS, name)
    subsystem = _attribute(sysfs, name, "subsysnqn")
    if instance is None or not subsystem or nqn not in (None, subsystem):
        return None
    try:
        address = parse_address(sysfs.text(CONTROLLERS, name, "address"))
    except OSError as exc:
        LOG.error("The address of NVMe controller %s cannot be read: %s", name, exc)
        address = {}
    host_nqn = _attribute(sysfs, name, "hostnqn")
    return Controller(
        name,
        instance,
        subsystem,
        _attribute(sysfs, name, "transport") or "",
        address,
        host_nqn or None,
        (_attribute(sysfs, name, "hostid") or "").lower(),
    )


def _attribute(sysfs: Tree, name: str, attribute: str) -> str:
    """Return an attribute of a controller; empty if it is gone, or going while it is read."""
    try:
        return sysfs.text(CONTROLLERS, name, attribute)
    except OSError as exc:
        if exc.errno == errno.EAGAIN and not sysfs.exists(CONTROLLERS, name):
            return ""
        raise


def find_controllers(
    sysfs: Tree, nqn: str, portals: Collection[Portal], host_nqn: str | None
) -> dict[Portal, list[Controller]]:
    """Return the controllers of a subsystem through each of some portals, in the portals' order.

    :param host_nqn: the name under which this host is to be known there; None for any.
    """
    return by_portal(read_controllers(sysfs, nqn), portals, host_nqn)


def by_portal(
    controllers: Iterable[Controller], portals: Collection[Portal], host_nqn: str | None
) -> dict[Portal, list[Controller]]:
    """Return those of a subsystem's controllers that go through each of some portals: see
    :func:`find_controllers`."""
    found: dict[Portal, list[Controller]] = {portal: [] for portal in portals}
    untold: list[Controller] = []
    for controller in controllers:
        if controller.host_nqn is None:
            untold.append(controller)
        elif host_nqn is not None and controller.host_nqn != host_nqn:
            continue
        for portal, there in found.items():
            if controller.is_at(portal):
                there.append(controller)
    if untold and host_nqn is not None:
        LOG.warning(
            "The kernel does not tell under which host NQN it uses %s, controllers %s are taken "
            "for this host's",
            untold[0].nqn,
            ", ".join(map(str, untold)),
        )
    return found


def is_there(sysfs: Tree, controller: Controller) -> bool:
    """Tell whether this very controller still exists."""
    return sysfs.instance(CONTROLLERS, controller.name) == controller.instance


def read_state(sysfs: Tree, controller: Controller) -> str:
    """Return the kernel's word for a controller's state; empty if it is gone."""
    state = _attribute(sysfs, controller.name, "state")
    return state if is_there(sysfs, controller) else ""


def is_live(sysfs: Tree, controller: Controller) -> bool:
    """Tell whether a controller takes I/O."""
    return read_state(sysfs, controller) == LIVE


def read_reconnect_delay(sysfs: Tree, controller: Controller) -> int | None:
    """Return the seconds between two tries to reconnect; None if there are none or it is not
    told."""
    return parse_delay(_attribute(sysfs, controller.name, "reconnect_delay"))


def has_native_multipath(sysfs: Tree) -> bool | None:
    """Tell whether the kernel joins the paths of a namespace; None while its NVMe driver is not
    loaded."""
    text = sysfs.text(MULTIPATH_PARAMETER)
    return text == "Y" if text else None
