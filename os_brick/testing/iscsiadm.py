# SPDX-License-Identifier: Apache-2.0
"""The ``iscsiadm`` command of open-iscsi 2.1.8: its words, its texts and its exit codes."""

from __future__ import annotations

from dataclasses import dataclass, field

from os_brick.testing import storage
from os_brick.testing.network import FakeNetwork
from os_brick.testing.open_iscsi import NO_TPGT, REASONS, Database, Discovery, Iscsid, Node
from os_brick.testing.process import Answer, Process
from os_brick.testing.sessions import Session, Sessions
from os_brick.testing.world import World

_NO_RECORDS = Answer(21, err="iscsiadm: No records found\n")
_OPTIONS = {
    "-m": "mode",
    "--mode": "mode",
    "-T": "target",
    "--targetname": "target",
    "-p": "portal",
    "--portal": "portal",
    "-I": "iface",
    "--interface": "iface",
    "-o": "op",
    "--op": "op",
    "-t": "type",
    "--type": "type",
    "-P": "level",
    "--print": "level",
    "-r": "sid",
    "--sid": "sid",
}
_FLAGS = {
    "-l": "login",
    "--login": "login",
    "-u": "logout",
    "--logout": "logout",
    "-D": "discover",
    "--discover": "discover",
    "-R": "rescan",
    "--rescan": "rescan",
}
_SECRET = ("password", "password_in")


@dataclass
class _Words:
    """A parsed command line."""

    mode: str = ""
    target: str | None = None
    portal: str | None = None
    iface: str | None = None
    op: str = ""
    type: str = ""
    level: str = ""
    sid: str | None = None
    flags: set[str] = field(default_factory=set)
    settings: list[tuple[str, str]] = field(default_factory=list)

    @property
    def place(self) -> tuple[str, int | None] | None:
        """Address and port as they are spelled; the port may be missing."""
        return None if self.portal is None else split_portal(self.portal)[:2]


def split_portal(text: str) -> tuple[str, int | None, int]:
    """Return address as spelled, port, portal group tag of ``"[2001:db8::1]:3260,1"``."""
    text, _, tag = text.partition(",")
    if text.startswith("["):
        address, _, port = text[1:].partition("]")
        port = port.lstrip(":")
    else:
        address, _, port = text.partition(":")
    return address, int(port) if port else None, int(tag) if tag else NO_TPGT


def _portal_text(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _parse(words: tuple[str, ...]) -> _Words:
    parsed = _Words()
    rest = list(words[1:])
    while rest:
        word = rest.pop(0)
        if word.startswith("--") and "=" in word:
            word, _, value = word.partition("=")
            rest.insert(0, value)
        if word in _FLAGS:
            parsed.flags.add(_FLAGS[word])
        elif word in _OPTIONS and rest:
            setattr(parsed, _OPTIONS[word], rest.pop(0))
        elif word in ("-n", "--name") and len(rest) >= 3 and rest[1] in ("-v", "--value"):
            parsed.settings.append((rest[0], rest[2]))
            del rest[:3]
        else:
            raise AssertionError(
                f"iscsiadm: this fake does not know {word!r} in {' '.join(words[:8])}"
            )
    return parsed


class Iscsiadm:
    """The program; each call is one run."""

    def __init__(
        self,
        world: World,
        network: FakeNetwork,
        sessions: Sessions,
        database: Database,
        iscsid: Iscsid,
    ) -> None:
        self._world = world
        self._network = network
        self._sessions = sessions
        self._database = database
        self._iscsid = iscsid

    def __call__(self, process: Process) -> Answer:
        words = _parse(process.words)
        modes = {
            "session": self._session,
            "node": self._node,
            "iface": self._iface,
            "discovery": self._discovery,
            "discoverydb": self._discoverydb,
        }
        if words.mode not in modes:
            raise AssertionError(f"iscsiadm: this fake does not know mode {words.mode!r}")
        return modes[words.mode](process, words)

    # -- sessions --------------------------------------------------------------------------
    def _session(self, process: Process, words: _Words) -> Answer:
        sessions = self._sessions.all()
        if words.sid is not None:
            sessions = [one for one in sessions if words.sid.endswith(str(one.sid))]
        if not sessions:
            return Answer(21, err="iscsiadm: No active sessions.\n")
        if "logout" in words.flags:
            return self._log_out(process, sessions)
        if "rescan" in words.flags:
            return self._rescan(sessions)
        return Answer(
            out="".join(
                f"{one.driver}: [{one.sid}] {one.portal.text},{one.tpgt} {one.iqn} (non-flash)\n"
                for one in sessions
            )
        )

    def _rescan(self, sessions: list[Session]) -> Answer:
        for session in sessions:
            self._world.record("rescan session", f"session{session.sid}")
            self._sessions.rescan(session)
        return Answer(out="".join(f"Rescanning session [sid: {one.sid}]\n" for one in sessions))

    # -- node records ----------------------------------------------------------------------
    def _node(self, process: Process, words: _Words) -> Answer:
        if words.op == "new":
            return self._new(words)
        if "logout" in words.flags:
            return self._log_out(process, self._matching_sessions(words))
        nodes = self._database.match(words.target, words.place, words.iface)
        if not nodes and not self._database.damaged:
            return _NO_RECORDS
        return self._act_on(nodes, process, words)

    def _act_on(self, nodes: list[Node], process: Process, words: _Words) -> Answer:
        if "login" in words.flags:
            return self._log_in(process, nodes)
        if "rescan" in words.flags:
            return self._rescan(self._matching_sessions(words))
        if words.op == "update":
            return self._update(nodes, words.settings)
        if words.op == "delete":
            return self._delete(nodes)
        if words.op == "show" or words.target is not None:
            return Answer(out="".join(_show(node) for node in nodes))
        lines = [f"{_portal_text(one.address, one.port)},{one.tpgt} {one.iqn}" for one in nodes]
        return Answer(out="\n".join(lines + self._database.damaged) + "\n")

    def _matching_sessions(self, words: _Words) -> list[Session]:
        place = words.place
        return [
            one
            for one in self._sessions.all()
            if words.target in (None, one.iqn)
            and words.iface in (None, one.iface)
            and (
                place is None
                or any(
                    place[0] == address and place[1] in (None, port)
                    for address, port in (one.configured, (one.portal.address, one.portal.port))
                )
            )
        ]

    def _new(self, words: _Words) -> Answer:
        if words.target is None or words.portal is None:
            return Answer(7, err="iscsiadm: Need a target and a portal\n")
        iface = words.iface or "default"
        if iface not in self._database.ifaces:
            return Answer(7, err=f"iscsiadm: Could not read iface {iface}\n")
        address, port, tpgt = split_portal(words.portal)
        # 2.1.8 overwrites an existing record without a word, and ignores -n and -v here.
        node = self._database.create(words.target, address, port or 3260, tpgt, iface)
        return Answer(
            out=(
                f"New iSCSI node [{node.driver}:[hw=,ip=,net_if=,iscsi_if={iface}] "
                f"{address},{node.port},{tpgt} {node.iqn}] added\n"
            )
        )

    @staticmethod
    def _update(nodes: list[Node], settings: list[tuple[str, str]]) -> Answer:
        for name, _value in settings:
            if name not in nodes[0].settings:
                return Answer(
                    7,
                    err=(
                        f"iscsiadm: Cannot modify {name}. Invalid param name.\n"
                        "iscsiadm: Could not execute operation on all records: invalid parameter\n"
                    ),
                )
        for node in nodes:
            node.settings.update(settings)
        return Answer()

    def _delete(self, nodes: list[Node]) -> Answer:
        for node in nodes:
            if self._iscsid.sessions_of(node):
                return Answer(
                    15,
                    err=(
                        "iscsiadm: This command will remove the record "
                        f"{node.place}, but a session is using it. Logout session then rerun "
                        "command to remove record.\niscsiadm: Could not execute operation on all "
                        "records: session exists\n"
                    ),
                )
            self._database.delete(node)
        return Answer()

    def _log_in(self, process: Process, nodes: list[Node]) -> Answer:
        logins = [self._iscsid.log_in(node) for node in nodes]
        process.unlocked_wait(lambda: all(login.code is not None for login in logins))
        out = err = ""
        for login in logins:
            out += f"Logging in to {login.node.place}\n"
            if login.code == 0:
                out += f"Login to {login.node.place} successful.\n"
            elif login.code == 15:
                err += (
                    f"iscsiadm: {login.node.iface}: 1 session requested, but 1 already present.\n"
                )
            else:
                err += _failed("login to", login.node.place, login.code or 0)
        codes = [login.code for login in logins if login.code]
        if not codes:
            return Answer(out=out)
        return Answer(codes[0] or 1, out, err + "iscsiadm: Could not log into all portals\n")

    def _log_out(self, process: Process, sessions: list[Session]) -> Answer:
        if not sessions:
            return Answer(21, err="iscsiadm: No matching sessions found\n")
        codes: list[int] = []
        for session in sessions:
            self._iscsid.log_out(session, codes.append)
        process.unlocked_wait(lambda: len(codes) == len(sessions))
        places = [
            f"[sid: {one.sid}, target: {one.iqn}, portal: {one.portal.address},{one.portal.port}]"
            for one in sessions
        ]
        out = "".join(f"Logging out of session {place}\n" for place in places)
        if any(codes):
            err = "".join(_failed("logout of", place, max(codes)) for place in places)
            return Answer(
                max(codes), out, f"{err}iscsiadm: Could not logout of all requested sessions\n"
            )
        return Answer(out=out + "".join(f"Logout of {place} successful.\n" for place in places))

    # -- interfaces ------------------------------------------------------------------------
    def _iface(self, process: Process, words: _Words) -> Answer:
        driver = self._database.ifaces.get(words.iface or "")
        if driver is None:
            return Answer(
                6,
                err=(
                    f"iSCSI ERROR: Failed to open /etc/iscsi/ifaces/{words.iface} using read mode: "
                    "2 No such file or directory # idbm.c:_idbm_recs_read():834\n"
                ),
            )
        return Answer(
            out=(
                f"# BEGIN RECORD 2.1.8\niface.iscsi_ifacename = {words.iface}\n"
                "iface.net_ifacename = <empty>\n"
                f"iface.hwaddress = <empty>\niface.transport_name = {driver}\n# END RECORD\n"
            )
        )

    # -- discovery -------------------------------------------------------------------------
    def _discovery(self, process: Process, words: _Words) -> Answer:
        address, port, _tag = split_portal(words.portal or "")
        discovery = Discovery(address, port or 3260)
        keep = words.op != "nonpersistent"
        if keep:
            discovery = self._database.discoveries.setdefault((address, port or 3260), discovery)
        return self._send_targets(process, discovery, words.iface or "default", keep=keep)

    def _discoverydb(self, process: Process, words: _Words) -> Answer:
        database = self._database
        if words.op == "show" and words.portal is None:
            return Answer(out=self._show_discoveries())
        address, port, _tag = split_portal(words.portal or "")
        key = (address, port or 3260)
        if words.op == "new":
            database.discoveries.setdefault(key, Discovery(*key))
            return Answer(out=f"New discovery record for [{key[0]},{key[1]}] added.\n")
        discovery = database.discoveries.get(key)
        if discovery is None:
            return Answer(6, err=f"iscsiadm: Discovery record [{key[0]},{key[1]}] not found.\n")
        if "discover" in words.flags:
            keep = words.op != "nonpersistent"
            return self._send_targets(process, discovery, words.iface or "default", keep=keep)
        if words.op == "update":
            discovery.settings.update(words.settings)
            return Answer()
        if words.op == "delete":
            del database.discoveries[key]
            return Answer()
        lines = [f"{name} = {_masked(name, value)}" for name, value in discovery.settings.items()]
        return Answer(out="\n".join(["# BEGIN RECORD 2.1.8", *lines, "# END RECORD", ""]))

    def _send_targets(
        self, process: Process, discovery: Discovery, iface: str, *, keep: bool
    ) -> Answer:
        portal = self._network.find_portal(discovery.address, discovery.port)
        state = portal.state if portal is not None else storage.SILENT
        if state != storage.UP or portal is None:
            # Six tries (discovery.sendtargets.reopen_max 5): of a second when refused, else of 15.
            process.unlocked_spend(6.0 if state == storage.REFUSES else 90.0)
            return Answer(
                4,
                err=(
                    "iscsiadm: connection login retries (reopen_max) 5 exceeded\n"
                    "iscsiadm: Could not perform SendTargets discovery: encountered connection "
                    "failure\n"
                ),
            )
        process.unlocked_spend(self._world.delays.login_s)
        targets = [one for one in self._network.targets if portal in one.portals]
        settings = discovery.settings
        given = (
            settings["discovery.sendtargets.auth.username"],
            settings["discovery.sendtargets.auth.password"],
        )
        for wanted in (one.discovery_chap for one in targets):
            if wanted is not None and given != (wanted.username, wanted.password):
                return Answer(
                    24,
                    err=(
                        "iscsiadm: Login failed to authenticate with target\n"
                        "iscsiadm: discovery login to "
                        + discovery.address
                        + " rejected: initiator failed "
                        "authorization\niscsiadm: Could not perform SendTargets discovery: iSCSI "
                        "login failed due to authorization failure\n"
                    ),
                )
        pairs = [pair for one in targets for pair in zip(one.iqns, one.portals, strict=True)]
        if keep:
            discovery.found = [
                self._database.create(iqn, one.address, one.port, 1, iface) for iqn, one in pairs
            ]
        return Answer(out="".join(f"{one.text},1 {iqn}\n" for iqn, one in pairs))

    def _show_discoveries(self) -> str:
        lines = ["SENDTARGETS:"]
        for discovery in self._database.discoveries.values():
            lines.append(f"DiscoveryAddress: {discovery.address},{discovery.port}")
            for iqn in dict.fromkeys(node.iqn for node in discovery.found):
                lines.append(f"Target: {iqn}")
                for node in (one for one in discovery.found if one.iqn == iqn):
                    lines.append(f"\tPortal: {_portal_text(node.address, node.port)},{node.tpgt}")
                    lines.append(f"\t\tIface Name: {node.iface}")
        if not self._database.discoveries:
            lines.append("No targets found.")
        for kind in ("iSNS", "STATIC", "FIRMWARE"):
            lines += [f"{kind}:", "No targets found."]
        return "\n".join(lines) + "\n"


def _failed(what: str, place: str, code: int) -> str:
    return (
        f"iscsiadm: Could not {what.split(maxsplit=1)[0]} {what.split()[1]} {place}.\n"
        f"iscsiadm: initiator reported error ({code} - {REASONS.get(code, 'unknown')})\n"
    )


def _masked(name: str, value: str) -> str:
    return "********" if name.rpartition(".")[2] in _SECRET and value != "<empty>" else value


def _show(node: Node) -> str:
    lines = [
        "# BEGIN RECORD 2.1.8",
        f"node.name = {node.iqn}",
        f"node.tpgt = {node.tpgt}",
        f"iface.iscsi_ifacename = {node.iface}",
        f"iface.transport_name = {node.driver}",
        f"node.conn[0].address = {node.address}",
        f"node.conn[0].port = {node.port}",
    ]
    lines[3:3] = [f"node.startup = {node.settings['node.startup']}"]
    lines += [
        f"{name} = {_masked(name, value)}"
        for name, value in node.settings.items()
        if name != "node.startup"
    ]
    return "\n".join([*lines, "# END RECORD", ""])
