# SPDX-License-Identifier: Apache-2.0
"""Who this host is for NVMe subsystems: its NQN and its host id, always the same pair.

Linux 6.5 and later refuse a connect whose host id is in use with another host NQN, or the reverse
(kernel: ``nvmf_host_add``).
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid4, uuid5

from oslo_log import log as logging

from os_brick.initiator.linux import nvme
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.nvme_changes import FAILURES, HostIdentity
from os_brick.initiator.linux.sysfs import Tree

LOG = logging.getLogger(__name__)

_UUID_NQN = "nqn.2014-08.org.nvmexpress:uuid:"
_FACT_LIMIT_S = 30.0
_CLI_LIMIT_S = 120.0
# Where root's programs are, which may not be in the path of a service.
_ROOTS_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


def find_cli(host: Host, call: Call, *, in_path: bool) -> str | None:
    """Return the version line of nvme-cli; empty text if it is not installed, None if it does not
    run (now).

    :param in_path: programs are looked for on this very host: if it is not there it is not tried.
    """
    path = f"{os.environ.get('PATH', os.defpath)}:{_ROOTS_PATH}"
    if in_path and shutil.which("nvme", path=path) is None:
        LOG.debug("nvme-cli is not installed")
        return ""
    result = host.programs.run(call, "nvme", "version", limit_s=_CLI_LIMIT_S)
    if result.code == 0:
        return (result.out.splitlines() or ["nvme"])[0]
    log = LOG.debug if result.code is None or result.code == 127 else LOG.warning
    log("nvme-cli does not run: %s", result.summary)
    return "" if result.code == 127 else None


def settle(host: Host, call: Call) -> HostIdentity:
    """Return this host's identity; what of it is missing is made and stored first.

    A host id goes with the NQN: the one that the kernel uses with it, else the UUID in it, else the
    machine's.

    :raises OSError: it could not be read.
    """
    stored = host.nvme.read_identity(call)
    if stored.nqn and stored.host_id:
        return stored
    machine = _uuid_text(host.nvme.system_uuid(call))
    nqn = stored.nqn or host.nvme.make_nqn(call, machine)
    host_id = stored.host_id
    if not host_id:
        wanted = _id_in_use(host.sysfs, nqn) or _uuid_in(nqn) or machine or str(uuid4())
        host_id = host.nvme.make_host_id(call, wanted)
    return HostIdentity(nqn or None, host_id or None)


def presented(sysfs: Tree, identity: HostIdentity, wanted: str | None) -> tuple[str, ...]:
    """Return the options by which nvme-cli presents a host NQN other than this host's own.

    nvme-cli takes NQN and id from its files. With an NQN that the connection brings, the id of the
    files would make a pair that the kernel refuses, so one is given with it.
    """
    if not wanted:
        return ()
    if wanted == identity.nqn:
        return ("-q", wanted)
    mine = _id_in_use(sysfs, wanted)
    if not mine:
        mine = _uuid_in(wanted)
        if not mine or mine in _others_ids(sysfs, identity, wanted):
            mine = str(uuid5(NAMESPACE_OID, wanted))
    return ("-q", wanted, "-I", mine)


def _id_in_use(sysfs: Tree, nqn: str) -> str:
    """Return the host id with which the kernel uses a host NQN now; empty if it does not."""
    used = (one.host_id for one in nvme.read_controllers(sysfs) if one.host_nqn == nqn)
    return next((host_id for host_id in used if host_id), "")


def _others_ids(sysfs: Tree, identity: HostIdentity, nqn: str) -> set[str]:
    """Return the host ids that belong to other host NQNs."""
    taken = {one.host_id for one in nvme.read_controllers(sysfs) if one.host_nqn != nqn}
    if identity.nqn != nqn and identity.host_id:
        taken.add(identity.host_id.lower())
    return taken


def _uuid_in(nqn: str) -> str:
    return _uuid_text(nqn.removeprefix(_UUID_NQN)) if nqn.startswith(_UUID_NQN) else ""


def _uuid_text(text: str) -> str:
    """Return a UUID in lower case; empty if the text is none."""
    try:
        return str(UUID(text.strip()))
    except ValueError:
        return ""


# -- what storage has to know ----------------------------------------------------------------
def read_properties(host: Host, call: Call, present: bool, facts: Facts) -> dict[str, Any]:
    """Return the keys of this host's properties: see chapter "NVMe" of the documentation.

    :param present: whether nvme-cli is installed; without it nothing is made and no NQN told.
    :param facts: what does not change while the host is up.
    """
    found: dict[str, Any] = {}
    root, machine = facts.root_uuid(host, call), facts.system_uuid(host, call)
    if root:
        found["uuid"] = root
    if machine:
        found["system uuid"] = machine
    if present:
        found |= _identity_keys(host, call)
    native = nvme.has_native_multipath(host.sysfs)
    if native is None and present:
        LOG.warning("The NVMe driver is not loaded, so it is taken to have no native multipath")
    found["nvme_native_multipath"] = bool(native)
    return found


def _identity_keys(host: Host, call: Call) -> dict[str, str]:
    try:
        identity = settle(host, call)
    except FAILURES as exc:
        LOG.warning("This host's NVMe identity is not known: %s", exc)
        return {}
    keys = {"nqn": identity.nqn, "nvme_hostid": identity.host_id}
    return {key: value for key, value in keys.items() if value}


class Facts:
    """What does not change while a host is up, asked once and remembered where it was found."""

    def __init__(self) -> None:
        self._known: dict[str, str | None] = {}

    def root_uuid(self, host: Host, call: Call) -> str:
        """Return the UUID of the root file system; empty if it has none."""
        return self.remember("root", functools.partial(_root_uuid, host, call))

    def system_uuid(self, host: Host, call: Call) -> str:
        """Return the machine's UUID; empty if its firmware states none."""
        return self.remember("machine", functools.partial(_system_uuid, host, call))

    def remember(self, name: str, ask: Callable[[], str | None]) -> str:
        """Return a fact, empty if it could not be learned: then it is asked for again next time."""
        if self._known.get(name) is None:
            self._known[name] = ask()
        return self._known[name] or ""


def _system_uuid(host: Host, call: Call) -> str | None:
    try:
        return host.nvme.system_uuid(call) or None
    except FAILURES as exc:
        LOG.warning("The machine's UUID could not be read: %s", exc)
        return None


def _root_uuid(host: Host, call: Call) -> str | None:
    """Return the UUID of the file system at ``/``, empty if it has none.

    ``-v``: without it, subvolumes and bind mounts are told with the source (bug 2026257).
    """
    source = _first_line(host, call, "findmnt", "-v", "/", "-n", "-o", "SOURCE")
    if source == "overlay":  # as in containers, which have none (bug 2045557)
        return ""
    if not source:
        return source
    return _first_line(host, call, "blkid", source, "-s", "UUID", "-o", "value")


def _first_line(host: Host, call: Call, *words: str) -> str | None:
    result = host.programs.run(call, *words, limit_s=_FACT_LIMIT_S)
    if result.code != 0:
        LOG.warning("The root file system's UUID is not known: %s: %s", words[0], result.summary)
        return None
    return (result.out.splitlines() or [""])[0].strip()
