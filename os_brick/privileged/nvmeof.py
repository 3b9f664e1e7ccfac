# SPDX-License-Identifier: Apache-2.0
"""The host's identity for NVMe-oF: files below ``/etc/nvme``, which need root to make."""

from __future__ import annotations

import logging
import os
import tempfile

from oslo_concurrency import processutils

from os_brick import privileged
from os_brick.privileged import rootwrap

LOG = logging.getLogger(__name__)

NVME_DIR = "/etc/nvme"
PRODUCT_UUID_FILE = "/sys/class/dmi/id/product_uuid"

_NQN_OF_UUID = "nqn.2014-08.org.nvmexpress:uuid:"

# What nvme-cli says when it has no NQN to show: 1.9 and before do not know the sub-command (on
# stdout, exit 231), 1.10 and later have no file (on stderr, exit 254, 2 or, from 2.0 on, 1).
_NOTHING_TO_SHOW = ("invalid sub-command 'show-hostnqn'", "hostnqn is not available")

_TIMEOUT_S = 30


@privileged.default.entrypoint
def create_hostnqn(system_uuid: str | None = None) -> str:
    """Make and store the host's NQN, unless there is one by now.

    :param system_uuid: UUID of the machine. The NQN is made from it, so that it is the same for
        every version of nvme-cli; without it nvme-cli is asked, for a name that is in use first.
    :returns: the NQN; empty, with a warning, if none could be made.
    """
    try:
        nqn = _NQN_OF_UUID + system_uuid if system_uuid else _nqn_of_nvme_cli()
        return _store("hostnqn", nqn)
    except (OSError, processutils.ProcessExecutionError, ValueError) as exc:
        LOG.warning("Could not generate host nqn: %s", exc)
        return ""


@privileged.default.entrypoint
def create_hostid(uuid: str) -> str | None:
    """Store the host's NVMe id, unless there is one by now.

    :returns: the id in the file; None, with a warning, if it could not be stored.
    """
    try:
        return _store("hostid", uuid)
    except (OSError, ValueError) as exc:
        LOG.warning("Could not generate nvme host id: %s", exc)
        return None


@privileged.default.entrypoint
def read_stored(name: str) -> str:
    """Text of ``hostnqn`` or ``hostid``; empty if there is no such file.

    :raises OSError: it cannot be read.
    """
    if name not in ("hostnqn", "hostid"):
        raise ValueError(f"name: {name!r} is not valid here")
    try:
        with open(os.path.join(NVME_DIR, name)) as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


@privileged.default.entrypoint
def get_system_uuid() -> str:
    """UUID of the machine as its firmware states it; empty if it states none, as on s390x."""
    try:
        with open(PRODUCT_UUID_FILE) as file:
            uuid = file.read().strip()
        if uuid:
            return uuid
    except OSError as exc:
        LOG.debug("No product UUID in sysfs: %s", exc)
    try:
        out, _err = rootwrap.custom_execute("dmidecode", "-ssystem-uuid", timeout=_TIMEOUT_S)
    except (OSError, processutils.ProcessExecutionError) as exc:
        LOG.debug("No system UUID from dmidecode: %s", exc)
        return ""
    return str(out).strip()


def _nqn_of_nvme_cli() -> str:
    """The NQN that nvme-cli uses, else a new one: live connections must keep theirs."""
    try:
        out, _err = rootwrap.custom_execute("nvme", "show-hostnqn", timeout=_TIMEOUT_S)
        if str(out).strip():
            return str(out).strip()
    except processutils.ProcessExecutionError as exc:
        said = f"{exc.stdout}\n{exc.stderr}".lower()
        if not any(text in said for text in _NOTHING_TO_SHOW):
            raise
    out, _err = rootwrap.custom_execute("nvme", "gen-hostnqn", timeout=_TIMEOUT_S)
    return str(out).strip()


def _store(name: str, text: str) -> str:
    """Write a file of the NVMe folder whole or not at all, and never over one that has a value.

    :returns: the text in the file: another process may have been first.
    :raises ValueError: the text is empty or has several lines.
    """
    if not text or len(text.split()) != 1:
        raise ValueError(f"{text!r} is no value for {name}")
    os.makedirs(NVME_DIR, mode=0o755, exist_ok=True)
    path = os.path.join(NVME_DIR, name)
    descriptor, temporary = tempfile.mkstemp(dir=NVME_DIR, prefix=f".{name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text + "\n")
            os.fchmod(file.fileno(), 0o644)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # fails where rename would replace
            return text
        except FileExistsError:
            with open(path) as file:
                stored = file.read().strip()
        if not stored:
            os.replace(temporary, path)
            return text
        return stored
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
