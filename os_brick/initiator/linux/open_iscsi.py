# SPDX-License-Identifier: Apache-2.0
"""Logging in to iSCSI targets and out of them, by iscsiadm; whether it worked is read from sysfs.

iscsiadm's exit codes are in iscsiadm(8). Several ``-n … -v …`` pairs in one call set several
values, so that a log-in takes three programs: the record, its values, the log-in.
"""

from __future__ import annotations

from dataclasses import dataclass

from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator import utils as initiator_utils
from os_brick.initiator.linux import iscsi
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.iscsi import Portal, Session, Target
from os_brick.initiator.linux.programs import Result

LOG = logging.getLogger(__name__)

# iscsid ends a log-in itself: login_timeout x initial_login_retry_max, 120 s as shipped.
LOGIN_S = 120.0
_LOGIN_LIMIT_S = 600.0
_RECORD_LIMIT_S = 60.0
_LOGOUT_LIMIT_S = 120.0
# After iscsiadm reported success the session is in sysfs; a state of its own may need a moment.
_SETTLE_S = 15.0
_RECORD_TRIES = 3
_DELETE_TRIES = 5
_LOGOUT_TRIES = 4

SESSION_EXISTS = 15
NOT_FOUND = 21
_DATABASE = 6
_INVALID = 7
# Busy, try again, session not connected.
_NOT_YET = frozenset({28, 29, 32})
_NOTHING_THERE = frozenset({0, NOT_FOUND, 255})

_NEXT_STEP = {
    4: "check the network to the portal",
    5: "check that the target accepts this initiator and its credentials",
    8: "check the network to the portal, and that the target listens there",
    11: "check the network to the portal and the load of the target",
    13: "iscsiadm needs root: check the root helper",
    18: "check that iscsid is running and of the same version as iscsiadm",
    19: "check that the target accepts this initiator's name",
    20: "start iscsid",
    24: "check auth_username and auth_password",
    97: "check the root wrapper's configuration",
    99: "the root wrapper does not allow the command",
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """CHAP credentials; never shown."""

    method: str
    username: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials(method={self.method!r}, ***)"


def explain(result: Result) -> str:
    """Return how iscsiadm ended and what to try next."""
    hint = _NEXT_STEP.get(result.code or 0)
    return f"{result.summary}; {hint}" if hint else result.summary


class LoginUnfinished(exception.FailedISCSITargetPortalLogin):
    """iscsiadm had to be stopped; iscsid cannot be, and may still make the session."""


def log_in(host: Host, call: Call, target: Target, chap: Credentials | None, iface: str) -> Session:
    """Make the one session to a target through its portal; return the one that is there if there
    is.

    The caller holds the target's login lock, and a shared lock of its session.

    :param iface: name of open-iscsi's interface that a new record is bound to.
    :raises FailedISCSITargetPortalLogin: says which portal, how it ended and what to try next. A
        record made here is removed again, one that was there is as it was.
    :raises LoginUnfinished: the same, and the session may still come within ``LOGIN_S`` seconds.
    """
    with call.step(f"log in to {target}"):
        record = _Record(host, call, target)
        before = record.read()
        try:
            record.prepare(before, chap, iface)
            result = record.run("--login", limit_s=_LOGIN_LIMIT_S)
            # Judged by sysfs: 15 is "session exists", 255 an old version's word for many things.
            settled = _wait_for_session(host, call, target, result)
        except Exception:
            _restore(host, call, target, before)
            raise
        if settled is not None:
            return settled
        _restore(host, call, target, before)
        text = f"Unable to login to iSCSI Target Portal: {target}: {explain(result)}"
        if result.code is None:
            raise LoginUnfinished(text)
        raise exception.FailedISCSITargetPortalLogin(text)


def have_scans_left_to_us(host: Host, call: Call, target: Target) -> None:
    """Have the sessions to come by a record that is there not scan by themselves. Never raises."""
    try:
        _Record(host, call, target).scan_by_hand()
    except Exception as exc:  # noqa: BLE001 - there is a session, which is what was wanted
        LOG.warning("The node record of %s could not be set to manual scans: %s", target, exc)


def _restore(host: Host, call: Call, target: Target, before: dict[str, str]) -> None:
    """Leave the record as it was, also when the call's time is over."""
    _Record(host, call.later(f"record of {target}", _RECORD_LIMIT_S), target).restore(before)


def _wait_for_session(host: Host, call: Call, target: Target, result: Result) -> Session | None:
    def look() -> Session | None:
        sessions = iscsi.find_sessions(host.sysfs, target)
        return next((one for one in sessions if one.state == iscsi.LOGGED_IN), None)

    if result.code not in (0, SESSION_EXISTS, 255):
        return None
    return call.wait_until(look, what=f"session to {target}", limit_s=_SETTLE_S)


class _Record:
    """The node record of one target and portal."""

    def __init__(self, host: Host, call: Call, target: Target) -> None:
        self._host = host
        self._call = call
        self._target = target

    def run(self, *words: str, limit_s: float, shown: int = 0) -> Result:
        """Have iscsiadm do something by this record."""
        node = ("iscsiadm", "-m", "node", "-T", self._target.iqn, "-p", str(self._target.portal))
        return self._host.programs.run(
            self._call, *node, *words, limit_s=limit_s, shown=len(node) + shown if shown else 0
        )

    def _edit(self, *words: str, shown: int = 0) -> Result:
        """Have iscsiadm do something to this record."""
        with self._host.crowds.records.taken(self._call, f"turn at the record of {self._target}"):
            return self.run(*words, limit_s=_RECORD_LIMIT_S, shown=shown)

    def read(self) -> dict[str, str]:
        """Return the values of the record that matter here; empty if there is no record."""
        portal = self._target.portal
        settings = self._host.changes.node_settings(
            self._call, self._target.iqn, portal.host, portal.port
        )
        if settings is not None:
            return settings
        result = self._edit()
        if result.code in (NOT_FOUND, 255) or (result.code == 0 and result.err.strip()):
            return {}
        if result.code != 0:
            raise self._failure("its node record could not be read", result)
        return parse_settings(result.out)

    def is_known_to_be_absent(self) -> bool:
        """Tell whether there is no record for sure; asks no program."""
        portal = self._target.portal
        settings = self._host.changes.node_settings(
            self._call, self._target.iqn, portal.host, portal.port
        )
        return settings is not None and not settings

    def prepare(self, before: dict[str, str], chap: Credentials | None, iface: str) -> None:
        """Make the record if there is none and give it the values for this log-in."""
        if not before:
            self._make(iface)
        values = {}
        if before.get("node.session.scan") != "manual":
            values["node.session.scan"] = "manual"
        # Sessions of attached volumes come back after a reboot; the detach deletes the record.
        if before.get("node.startup") != "automatic":
            values["node.startup"] = "automatic"
        if chap is not None:
            values["node.session.auth.authmethod"] = chap.method
            values["node.session.auth.username"] = chap.username
            values["node.session.auth.password"] = chap.password
        initiator_utils.ISCSI_SUPPORTS_MANUAL_SCAN = self._set(values)

    def _set(self, values: dict[str, str]) -> bool:
        """Give the record values; tell whether the kernel will leave scanning to others.

        :raises FailedISCSITargetPortalLogin: it has not got them.
        """
        manual, result = True, self._update(values)
        if "node.session.scan" in values and _does_not_know_it(result):
            # open-iscsi before 2.0.874: the kernel scans by itself.
            manual = False
            values = {name: value for name, value in values.items() if name != "node.session.scan"}
            result = self._update(values)
        if result.code != 0:
            what = f"its node record could not be given the values {', '.join(sorted(values))}"
            raise self._failure(what, result)
        return manual

    def _make(self, iface: str) -> None:
        result = self._edit_when_free("--interface", iface, "--op", "new")
        if result.code != 0:
            raise self._failure("its node record could not be made", result)

    def _update(self, values: dict[str, str]) -> Result:
        if not values:
            return Result(0, "", "")
        words = [word for name, value in values.items() for word in ("-n", name, "-v", value)]
        result = self._edit_when_free("--op", "update", *words, shown=2)
        if result.code != 0:
            LOG.debug(
                "Values %s of the node record of %s: exit code %s",
                sorted(values),
                self._target,
                result.code,
            )
        return result

    def _edit_when_free(self, *words: str, shown: int = 0) -> Result:
        """Have iscsiadm do something to this record, again if the database is busy.

        It is one for the host: under many log-ins at once it is busy (bug 1944474).
        """
        for attempt in range(1, _RECORD_TRIES + 1):
            result = self._edit(*words, shown=shown)
            if result.code != _DATABASE or attempt == _RECORD_TRIES:
                break
            self._call.pause(2.0 ** (attempt - 1))
        return result

    def restore(self, before: dict[str, str]) -> None:
        """Leave the record as it was before a log-in that failed."""
        if not before:
            self.delete()
        elif before.get("node.startup", "automatic") != "automatic":
            self._update({"node.startup": before["node.startup"]})

    def not_at_boot(self) -> None:
        """Have its session not made at boot."""
        self._update({"node.startup": "manual"})

    def scan_by_hand(self) -> None:
        """Have its sessions leave scanning to us, if it can be told without a program that they do
        not."""
        portal = self._target.portal
        settings = self._host.changes.node_settings(
            self._call, self._target.iqn, portal.host, portal.port
        )
        if settings and settings.get("node.session.scan") != "manual":
            self._set({"node.session.scan": "manual"})

    def delete(self) -> Result:
        """Remove the record; none there is as good."""
        for attempt in range(1, _DELETE_TRIES + 1):
            result = self._edit("--op", "delete")
            # One that hangs would hang again, and whoever comes next waits for the lock until then.
            if result.code is None or result.code in _NOTHING_THERE or attempt == _DELETE_TRIES:
                break
            # It goes on to read all other records, and fails if one of them goes meanwhile.
            if result.code == _DATABASE and self.is_known_to_be_absent():
                return Result(NOT_FOUND, result.out, result.err)
            self._call.pause(0.2 * 2 ** (attempt - 1))
        return result

    def _failure(self, what: str, result: Result) -> exception.FailedISCSITargetPortalLogin:
        return exception.FailedISCSITargetPortalLogin(
            f"Unable to login to iSCSI Target Portal: {self._target}: {what}: {explain(result)}"
        )


def _does_not_know_it(result: Result) -> bool:
    """Tell whether iscsiadm refused to set a value for its name; the code is newer than the
    text."""
    return result.code == _INVALID or (result.code != 0 and "Invalid param name" in result.err)


def parse_settings(text: str) -> dict[str, str]:
    """Return startup and scan mode from a printed node record; empty if it is none."""
    settings = {}
    for line in text.splitlines():
        name, equals, value = line.partition(" = ")
        if equals and name in ("node.name", "node.startup", "node.session.scan"):
            settings[name] = value.strip()
    return settings


def read_booted(host: Host, call: Call, iqn: str) -> list[Target]:
    """Return the portals of a target name by which a session would be made at boot.

    :raises BrickException: the records could not be read.
    """
    for attempt in range(1, _RECORD_TRIES + 1):
        result = host.programs.run(call, "iscsiadm", "-m", "node", limit_s=_RECORD_LIMIT_S)
        # It reads all records, and fails if one of them goes meanwhile.
        if result.code != _DATABASE or attempt == _RECORD_TRIES:
            break
        call.pause(2.0 ** (attempt - 1))
    if result.code not in _NOTHING_THERE:
        raise exception.BrickException(f"The node records could not be read: {explain(result)}")
    found = []
    for line in result.out.splitlines():
        words = line.split()
        if len(words) != 2 or words[1].lower() != iqn.lower():
            continue
        try:
            target = Target(Portal.parse(words[0]), words[1])
        except exception.InvalidParameterValue:  # a damaged record
            continue
        if _Record(host, call, target).read().get("node.startup") == "automatic":
            found.append(target)
    return found


def may_be_ours(host: Host, call: Call, target: Target) -> bool:
    """Tell whether a session without any device may have been made, or used, by this library: its
    record leaves scanning to us then."""
    settings = host.changes.node_settings(call, target.iqn, target.portal.host, target.portal.port)
    return settings is None or settings.get("node.session.scan") == "manual"


def log_out(host: Host, call: Call, target: Target, sessions: list[Session]) -> None:
    """End all sessions to a target through its portal and remove its record.

    The caller holds the target's session and login locks and has seen that nobody uses the
    sessions.

    :param sessions: all that there are, by the look under these locks.
    :raises BrickException: a session or the record remains; says which and what to try next.
    """
    with call.step(f"log out of {target}"):
        record = _Record(host, call, target)
        if sessions:
            result = _log_out_by_record(call, record)
            for session in _remaining(host, call, sessions, result):
                # No record of it, or one under another spelling: by its number, which is always
                # right.
                result = host.programs.run(
                    call,
                    "iscsiadm",
                    "-m",
                    "session",
                    "-r",
                    str(session.sid),
                    "--logout",
                    limit_s=_LOGOUT_LIMIT_S,
                )
            left = _remaining(host, call, sessions, result)
            if left:
                # It must not come back at boot when the record cannot be removed with its session.
                record.not_at_boot()
                raise exception.BrickException(
                    f"Logout of {target} failed, session {left[0].sid} remains: {explain(result)}"
                )
        elif record.is_known_to_be_absent():
            return
        # The records of a target share a folder, which goes with the last: two at a time get in
        # each other's way (exit code 6).
        with host.locks.held(call, [f"iscsi records {target.iqn.lower()}"]):
            result = record.delete()
        if result.code not in _NOTHING_THERE:
            raise exception.BrickException(
                f"The node record of {target} could not be removed: {explain(result)}"
            )


def _log_out_by_record(call: Call, record: _Record) -> Result:
    """Log out; more than once while iscsid is busy with the session, or has just been started and
    not yet taken it over."""
    for attempt in range(1, _LOGOUT_TRIES + 1):
        result = record.run("--logout", limit_s=_LOGOUT_LIMIT_S)
        if result.code not in _NOT_YET or attempt == _LOGOUT_TRIES:
            break
        call.pause(2.0 ** (attempt - 1))
    return result


def _remaining(host: Host, call: Call, sessions: list[Session], result: Result) -> list[Session]:
    """Return the sessions that are still there, after a moment if iscsiadm said that it
    logged out."""

    def remaining() -> list[Session]:
        return [one for one in sessions if iscsi.is_there(host.sysfs, one)]

    if result.code == 0:
        call.wait_until(lambda: not remaining(), what="end of the session", limit_s=_SETTLE_S)
    return remaining()
