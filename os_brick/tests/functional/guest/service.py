# SPDX-License-Identifier: Apache-2.0
"""The library as a service uses it: set up once, a connector for each protocol, many calls.

Only the public interface is used.
"""

from __future__ import annotations

import contextlib
import copy
import faulthandler
import logging
import os
import pathlib
import signal
import sys
from collections.abc import Iterator
from typing import Any

from oslo_config import cfg
from oslo_privsep import priv_context

import os_brick
import os_brick.privileged
from os_brick.initiator import connector
from os_brick.privileged import rootwrap

from . import faults

LOCKS = pathlib.Path("/run/lab-locks")
#: The unprivileged user that boot.py makes, who may run anything as root through sudo.
USER = 4242

Properties = dict[str, Any]


def set_up(**options: int) -> None:
    """Configure the library for this process, as a service's start does.

    :param options: of group ``os_brick``: ``call_timeout``, ``flush_timeout`` and such.
    """
    LOCKS.mkdir(exist_ok=True)
    LOCKS.chmod(0o1777)
    conf = cfg.CONF
    conf([], project="lab", default_config_files=[], default_config_dirs=[])
    os_brick.setup(conf)
    conf.set_override("lock_path", str(LOCKS), group="os_brick")
    for name, value in options.items():
        conf.set_override(name, value, group="os_brick")
    os.environ["PATH"] = f"{faults.WRAPPERS}:/usr/sbin:/usr/bin:/sbin:/bin:{sys.prefix}/bin"


def as_root() -> None:
    """Do the privileged work in this process: it is root already, no helper is started."""
    os_brick.privileged.default.set_client_mode(False)


def as_user() -> None:
    """Become an unprivileged user whose privileged work is done by a helper behind sudo.

    There is no way back: only a process that ends with its scenario may do this.
    """
    os.setgroups([])
    os.setgid(USER)
    os.setuid(USER)
    os.environ["HOME"] = "/tmp"
    os_brick.privileged.default.set_client_mode(True)
    repo = pathlib.Path(os_brick.__file__).parent.parent
    # The scenario's process did the privileged work itself until now.
    os_brick.privileged.default.set_client_mode(True)
    # sudo drops PYTHONPATH; a deployment would have the library installed instead.
    priv_context.init(root_helper=["sudo", "env", f"PYTHONPATH={repo}"])
    # The first privileged call starts the helper, which takes long under emulation; a service has
    # it for days.
    rootwrap.execute_root("true")


def log_to(file: pathlib.Path) -> None:
    """Send everything the library logs, down to DEBUG, to a file."""
    handler = logging.FileHandler(file)
    handler.setFormatter(
        logging.Formatter("%(relativeCreated)9.0f ms %(levelname)-7s %(name)s: %(message)s")
    )
    faulthandler.register(signal.SIGUSR1, file.open("a"), all_threads=True)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG)


class Service:
    """One service's connector for one protocol; long-lived and shared by threads."""

    def __init__(self, protocol: str = "ISCSI", *, multipath: bool = False, **more: Any) -> None:
        self.connector = connector.InitiatorConnector.factory(
            protocol,
            "sudo",
            use_multipath=multipath,
            device_scan_attempts=3,
            **more,
        )

    def attach(self, properties: Properties) -> dict[str, Any]:
        """Attach a volume; return what the library tells the service."""
        with _untouched(properties):
            info: dict[str, Any] = self.connector.connect_volume(properties)
        return info

    def detach(
        self,
        properties: Properties,
        info: dict[str, Any] | None,
        *,
        force: bool = False,
        ignore_errors: bool = False,
    ) -> None:
        """Detach a volume."""
        with _untouched(properties):
            self.connector.disconnect_volume(
                properties, info, force=force, ignore_errors=ignore_errors
            )

    def extend(self, properties: Properties) -> int | None:
        """Learn a volume's new size; return it in bytes."""
        with _untouched(properties):
            size: int | None = self.connector.extend_volume(properties)
        return size

    def paths(self, properties: Properties) -> list[str]:
        """Return the volume's paths as the library knows them."""
        found: list[str] = self.connector.get_volume_paths(properties)
        return found


def host_properties(*, multipath: bool = True) -> dict[str, Any]:
    """Return what a service tells the storage about this host."""
    found: dict[str, Any] = connector.get_connector_properties(
        "sudo", "127.0.0.1", multipath, False
    )
    return found


@contextlib.contextmanager
def _untouched(properties: Properties) -> Iterator[None]:
    """Insist that the caller's dictionary is as it was (services store it)."""
    before = copy.deepcopy(properties)
    try:
        yield
    finally:
        assert properties == before, "the library changed the caller's properties"
