# SPDX-License-Identifier: Apache-2.0
"""open-iscsi: the database of node and discovery records, and the daemon that logs in and out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from os_brick.testing import storage
from os_brick.testing.network import FakeNetwork
from os_brick.testing.sessions import Session, Sessions
from os_brick.testing.storage import Portal
from os_brick.testing.world import World

#: Exit codes of iscsiadm (iscsi_err.h of open-iscsi) with what it says.
REASONS = {
    4: "encountered connection failure",
    6: "could not read/write to DB",
    7: "invalid parameter",
    8: "connection timed out",
    10: "iSCSI logout failed",
    11: "iSCSI PDU timed out",
    15: "session exists",
    19: "encountered non-retryable iSCSI login failure",
    20: "could not connect to iscsid",
    21: "no records found",
    24: "iSCSI login failed due to authorization failure",
    32: "session is not connected",
}
_DEFAULTS = {
    "node.startup": "manual",
    "node.leading_login": "No",
    "node.session.scan": "auto",
    "node.session.nr_sessions": "1",
    "node.session.initial_login_retry_max": "8",
    "node.session.timeo.replacement_timeout": "120",
    "node.session.auth.authmethod": "None",
    "node.session.auth.username": "<empty>",
    "node.session.auth.password": "<empty>",
    "node.session.auth.username_in": "<empty>",
    "node.session.auth.password_in": "<empty>",
    "node.session.auth.chap_algs": "MD5",
    "node.session.queue_depth": "32",
    "node.session.err_timeo.abort_timeout": "15",
    "node.conn[0].startup": "manual",
    "node.conn[0].timeo.login_timeout": "15",
    "node.conn[0].timeo.logout_timeout": "15",
    "node.conn[0].timeo.auth_timeout": "45",
    "node.conn[0].timeo.noop_out_interval": "5",
    "node.conn[0].timeo.noop_out_timeout": "5",
}
NO_TPGT = -1


@dataclass(eq=False)
class Node:
    """A node record: how to log in to one target through one portal."""

    iqn: str
    address: str
    port: int
    tpgt: int
    iface: str
    driver: str
    settings: dict[str, str] = field(default_factory=lambda: dict(_DEFAULTS))

    @property
    def key(self) -> tuple[str, str, int, str]:
        """What tells records apart; the tag of the portal group does not."""
        return self.iqn, self.address, self.port, self.iface

    @property
    def place(self) -> str:
        """How iscsiadm names it in messages."""
        return f"[iface: {self.iface}, target: {self.iqn}, portal: {self.address},{self.port}]"


@dataclass(eq=False)
class Discovery:
    """A record of SendTargets discovery, with what it found."""

    address: str
    port: int
    settings: dict[str, str] = field(
        default_factory=lambda: {
            "discovery.sendtargets.auth.authmethod": "None",
            "discovery.sendtargets.auth.username": "<empty>",
            "discovery.sendtargets.auth.password": "<empty>",
        }
    )
    found: list[Node] = field(default_factory=list)


class Database:
    """``/etc/iscsi/nodes`` and ``/etc/iscsi/send_targets``: spelling counts, as with the real
    one."""

    def __init__(self) -> None:
        self.nodes: dict[tuple[str, str, int, str], Node] = {}
        self.discoveries: dict[tuple[str, int], Discovery] = {}
        #: Whether the library can read the records' files.
        self.readable = True
        #: Further lines that ``iscsiadm -m node`` prints, as of damaged records.
        self.damaged: list[str] = []
        #: iface.transport_name by iface file.
        self.ifaces = {"default": "tcp", "iser": "iser"}

    def match(
        self,
        iqn: str | None = None,
        portal: tuple[str, int | None] | None = None,
        iface: str | None = None,
    ) -> list[Node]:
        """Return the records that fit what is given."""
        return [
            node
            for node in self.nodes.values()
            if iqn in (None, node.iqn)
            and iface in (None, node.iface)
            and (portal is None or (portal[0] == node.address and portal[1] in (None, node.port)))
        ]

    def create(self, iqn: str, address: str, port: int, tpgt: int, iface: str) -> Node:
        """Write a record with the configured defaults, over an older one of the same place."""
        node = Node(iqn, address, port, tpgt, iface, self.ifaces[iface])
        self.nodes.pop(node.key, None)
        self.nodes[node.key] = node
        return node

    def delete(self, node: Node) -> None:
        """Remove a record, and from what a discovery found."""
        self.nodes.pop(node.key, None)
        for discovery in self.discoveries.values():
            discovery.found = [one for one in discovery.found if one.key != node.key]


@dataclass(eq=False)
class Login:
    """A log-in under way in iscsid; it goes on when iscsiadm is killed."""

    node: Node
    portal: Portal | None
    tries_left: int
    try_s: float
    code: int | None = None
    session: Session | None = None


class Iscsid:
    """The daemon."""

    def __init__(self, world: World, network: FakeNetwork, sessions: Sessions) -> None:
        self._world = world
        self._network = network
        self._sessions = sessions
        #: Whether it runs. Sessions live on without it; nothing can be logged in or out.
        self.running = True
        self.under_way: list[Login] = []

    def sessions_of(self, node: Node) -> list[Session]:
        """Return the sessions that a record has led to."""
        return self._sessions.find(node.iqn, (node.address, node.port), node.iface)

    def log_in(self, node: Node) -> Login:
        """Begin to log in; the log-in's code tells how it ended."""
        settings = node.settings
        login = Login(
            node,
            self._network.find_portal(node.address, node.port),
            int(settings["node.session.initial_login_retry_max"]),
            float(settings["node.conn[0].timeo.login_timeout"]),
        )
        busy = any(one.node.key == node.key for one in self.under_way)
        if not self.running:
            login.code = 20
        elif busy or len(self.sessions_of(node)) >= int(settings["node.session.nr_sessions"]):
            login.code = 15
        else:
            self.under_way.append(login)
            self._try(login)
        return login

    def _try(self, login: Login) -> None:
        """One try at a portal, decided at its end by the state the portal has then."""
        state = login.portal.state if login.portal is not None else storage.SILENT
        if state in (storage.UP, storage.HANGS) and login.portal is not None:
            self._connect(login, login.portal)  # the kernel has a session from the connection on
        if state == storage.UP and login.portal is not None:
            usual = self._world.delays.login_s
            took = login.portal.login_s if login.portal.login_s is not None else usual
        elif state == storage.REFUSES:
            took = self._world.delays.reopen_s
        else:
            took = login.try_s
        self._world.after(took, lambda: self._tried(login, state))

    def _connect(self, login: Login, portal: Portal) -> None:
        node = login.node
        found = self._network.find_target(node.iqn, portal)
        if found is None or login.session is not None:
            return
        target, index = found
        login.session = self._sessions.create(
            node.iqn,
            portal,
            target,
            index,
            iface=node.iface,
            driver=node.driver,
            configured=(node.address, node.port),
            scans=node.settings["node.session.scan"] == "auto",
            state="FREE",
        )

    def _tried(self, login: Login, state: str) -> None:
        if login.code is not None:
            return  # it was ended meanwhile
        login.tries_left -= 1
        if not self.running:
            self._end(login, 20)
        elif state == storage.UP and login.portal is not None and login.portal.state == storage.UP:
            self._answered(login, login.portal)
        elif login.tries_left <= 0:
            self._end(login, {storage.REFUSES: 4, storage.HANGS: 11}.get(state, 8))
        else:
            self._try(login)

    def _answered(self, login: Login, portal: Portal) -> None:
        self._connect(login, portal)  # it may have been silent before
        if login.session is None:
            self._end(login, 19)
            return
        settings = login.node.settings
        given = (settings["node.session.auth.username"], settings["node.session.auth.password"])
        wanted = login.session.target.chap
        if wanted is not None and (
            settings["node.session.auth.authmethod"] != "CHAP"
            or given != (wanted.username, wanted.password)
        ):
            self._end(login, 24)
            return
        self._sessions.logged_in(login.session)
        self._add_more(login, login.session)
        self._end(login, 0)

    def _add_more(self, login: Login, first: Session) -> None:
        """Make as many further sessions as the record asks for (node.session.nr_sessions)."""
        wanted = int(login.node.settings["node.session.nr_sessions"])
        for _ in range(wanted - len(self.sessions_of(login.node))):
            self._sessions.create(
                first.iqn,
                first.portal,
                first.target,
                first.index,
                iface=first.iface,
                driver=first.driver,
                configured=first.configured,
                scans=first.scans,
            )

    def _end(self, login: Login, code: int) -> None:
        login.code = code
        if code and login.session is not None:
            self._sessions.end(login.session)
        if login in self.under_way:
            self.under_way.remove(login)
        self._world.notify()

    def log_out(self, session: Session, done: Callable[[int], None]) -> None:
        """Begin to log out; ``done`` is told the code in the end."""
        if not self.running:
            done(20)
            return
        for login in [one for one in self.under_way if one.session is session]:
            self._end(login, 32)
        silent = session.state == "LOGGED_IN" and session.portal.state in (
            storage.SILENT,
            storage.DEAD,
        )
        # A dead target answers no log-out: iscsid waits for logout_timeout and drops the session
        # all the same.
        took = 15.0 if silent else self._world.delays.logout_s

        def end() -> None:
            self._sessions.end(session)
            done(0)

        self._world.after(took, end)
