# SPDX-License-Identifier: Apache-2.0
"""iSCSI sessions in the kernel: their hosts, their files, and what becomes of them when a portal
dies."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from os_brick.initiator.linux.scsi import lun_for_by_path
from os_brick.testing import block, storage
from os_brick.testing.scsi import ScsiHost, ScsiLayer, ScsiTarget
from os_brick.testing.storage import IscsiTarget, Portal, Unit
from os_brick.testing.world import World

#: From a portal's silence until the initiator's pings have timed out (noop interval and timeout, 5
#: s each).
NOOP_S = 10.0
_PROC_NAMES = {"tcp": "iscsi_tcp", "iser": "iscsi_iser"}


@dataclass(eq=False)
class Session:
    """One session with one connection; the transport below a SCSI host."""

    sid: int
    iqn: str
    portal: Portal
    target: IscsiTarget
    index: int
    iface: str
    driver: str
    tpgt: int
    #: The portal as the node record names it; may be a host name.
    configured: tuple[str, int]
    scans: bool
    state: str = "LOGGED_IN"
    host: ScsiHost | None = None
    scsi_target: ScsiTarget | None = None
    ended: bool = False

    # -- os_brick.testing.scsi.Transport ---------------------------------------------------
    def unit(self, lun: int) -> Unit | None:
        return self.target.unit(self.index, lun)

    def luns(self) -> dict[int, Unit]:
        return self.target.luns(self.index)

    def health(self) -> str:
        if self.state != "LOGGED_IN":
            return block.FAILS
        # Refusing and hanging portals do so to new connections only.
        return block.HANGS if self.portal.state in (storage.SILENT, storage.DEAD) else block.ALIVE

    @property
    def target_name(self) -> str:
        return self.iqn

    @property
    def port(self) -> int:
        return self.index + 1

    @property
    def keeps_scanner(self) -> bool:
        return False

    def device_files(self, lun: int) -> dict[str, object]:
        return {}

    def link_name(self, lun: int) -> str:
        address, port = self.configured
        return f"ip-{address}:{port}-iscsi-{self.iqn}-lun-{lun_for_by_path(lun)}"

    def target_shown(self, shown: bool) -> None:
        """Nothing more appears with it."""


class Sessions:
    """All sessions of the host."""

    def __init__(self, world: World, scsi: ScsiLayer) -> None:
        self._world = world
        self._scsi = scsi
        self._sids = itertools.count(1)
        self._by_sid: dict[int, Session] = {}
        self._watched: set[Portal] = set()

    def all(self) -> list[Session]:
        """Return the sessions by age."""
        return list(self._by_sid.values())

    def find(self, iqn: str, portal: tuple[str, int], iface: str | None = None) -> list[Session]:
        """Return the sessions to a target through a portal (as configured or as connected)."""
        return [
            one
            for one in self.all()
            if one.iqn == iqn
            and iface in (None, one.iface)
            and portal in (one.configured, (one.portal.address, one.portal.port))
        ]

    def create(
        self,
        iqn: str,
        portal: Portal,
        target: IscsiTarget,
        index: int,
        *,
        iface: str = "default",
        driver: str = "tcp",
        tpgt: int = 1,
        configured: tuple[str, int] | None = None,
        scans: bool = True,
        state: str = "LOGGED_IN",
    ) -> Session:
        """Have a session appear, with its SCSI host, and scan it unless ``scans`` is false.

        :param state: ``FREE`` for one that is being logged in; see :meth:`logged_in`.
        """
        session = Session(
            next(self._sids),
            iqn,
            portal,
            target,
            index,
            iface,
            driver,
            tpgt,
            configured or (portal.address, portal.port),
            scans,
            state,
        )
        number = self._scsi.free_host_number()
        base = f"devices/platform/host{number}"
        directory = f"{base}/session{session.sid}"
        session.scsi_target = ScsiTarget(number, 0, 0, directory, session)
        session.host = ScsiHost(number, base, [session.scsi_target])
        self._write_files(session, base, directory)
        self._by_sid[session.sid] = session
        self._scsi.add_host(session.host, _PROC_NAMES.get(driver, driver))
        if portal not in self._watched:
            self._watched.add(portal)
            portal.listeners.append(self._portal_changed)
        if state == "LOGGED_IN":
            self.logged_in(session)
        return session

    def logged_in(self, session: Session) -> None:
        """Have a session be usable; it is scanned unless that is left to others."""
        session.state = "LOGGED_IN"
        self._write(session, "state", "LOGGED_IN")
        if session.scans and session.scsi_target is not None:
            self._scsi.scan(session.scsi_target, None)
        self._world.notify()

    def _write_files(self, session: Session, base: str, directory: str) -> None:
        sys, sid, number = self._world.sys, session.sid, base.rpartition("host")[2]
        sys.directory(directory, {})
        sys.directory(
            f"{base}/iscsi_host/host{number}",
            {
                "netdev": "<NULL>",
                "hwaddress": "<NULL>",
                "ipaddress": "10.0.0.100",
                "initiatorname": "iqn.2010-10.org.example:host",
                "port_state": "Unknown!",
            },
        )
        connection = f"{directory}/connection{sid}:0"
        sys.directory(
            f"{connection}/iscsi_connection/connection{sid}:0",
            {
                "address": session.portal.address,
                "port": session.portal.port,
                "persistent_address": session.configured[0],
                "persistent_port": session.configured[1],
                "state": "up",
            },
        )
        sys.directory(
            f"{directory}/iscsi_session/session{sid}",
            {
                "targetname": session.iqn,
                "state": session.state,
                "tpgt": session.tpgt,
                "ifacename": session.iface,
                "recovery_tmo": 120,
                "target_id": 0,
                "target_state": "SCANNED",
                "initiatorname": "iqn.2010-10.org.example:host",
                "username": "(null)",
                "password": "(null)",
            },
        )
        sys.link(f"{directory}/iscsi_session/session{sid}/device", directory)
        sys.link(f"{base}/iscsi_host/host{number}/device", base)
        sys.link(f"{connection}/iscsi_connection/connection{sid}:0/device", connection)
        # The class directories show it when it is whole.
        sys.link(f"class/iscsi_host/host{number}", f"{base}/iscsi_host/host{number}")
        sys.link(
            f"class/iscsi_connection/connection{sid}:0",
            f"{connection}/iscsi_connection/connection{sid}:0",
        )
        sys.link(f"class/iscsi_session/session{sid}", f"{directory}/iscsi_session/session{sid}")

    def end(self, session: Session) -> None:
        """Have a session and all its devices disappear."""
        if session.ended or session.host is None:
            return
        session.ended = True
        sys, number = self._world.sys, session.host.number
        self._scsi.drop_host(session.host)
        sys.remove(f"class/iscsi_connection/connection{session.sid}:0")
        sys.remove(f"class/iscsi_session/session{session.sid}")
        sys.remove(f"class/iscsi_host/host{number}")
        sys.remove(session.host.sysfs)
        self._by_sid.pop(session.sid, None)
        self._world.notify()

    def rescan(self, session: Session) -> None:
        """Look for all LUNs of a session."""
        if session.scsi_target is not None:
            self._scsi.scan(session.scsi_target, None)

    # -- life and death --------------------------------------------------------------------
    def set_recovery(self, session: Session, seconds: int) -> None:
        """Set the replacement timeout, as multipathd does for paths of a map."""
        self._write(session, "recovery_tmo", seconds)

    def _write(self, session: Session, name: str, value: object) -> None:
        if session.scsi_target is not None and not session.ended:
            directory = f"{session.scsi_target.parent}/iscsi_session/session{session.sid}"
            self._world.sys.write(f"{directory}/{name}", value)

    def _portal_changed(self, portal: Portal) -> None:
        for session in self.all():
            if session.portal is portal:
                if portal.state == storage.DEAD:
                    self._fail(session, portal.recovery_s)
                elif portal.state == storage.SILENT:
                    self._fail_later(session)
                elif portal.state == storage.UP:
                    self._recover(session)

    def _fail_later(self, session: Session) -> None:
        def noticed() -> None:
            if session.portal.state == storage.SILENT and not session.ended:
                directory = f"class/iscsi_session/session{session.sid}/recovery_tmo"
                self._fail(session, float(self._world.sys.read(directory) or 120))

        self._world.after(NOOP_S, noticed)

    def _fail(self, session: Session, recovery_s: float) -> None:
        if session.state != "LOGGED_IN":
            return
        session.state = "FAILED"
        self._write(session, "state", "FAILED")
        self._set_devices(session, ("running",), "blocked")
        self._world.after(recovery_s, lambda: self._give_up(session))

    def _give_up(self, session: Session) -> None:
        if session.state == "FAILED":
            self._set_devices(session, ("blocked",), "transport-offline")

    def _recover(self, session: Session) -> None:
        if session.state == "FAILED":
            session.state = "LOGGED_IN"
            self._write(session, "state", "LOGGED_IN")
            self._set_devices(session, ("blocked", "transport-offline"), "running")

    def _set_devices(self, session: Session, old: tuple[str, ...], new: str) -> None:
        if session.host is not None:
            for device in session.host.devices:
                if device.state in old:
                    self._scsi.set_state(device, new)
