# SPDX-License-Identifier: Apache-2.0
"""The fake's iscsiadm and iscsid, measured against open-iscsi 2.1.8."""

from __future__ import annotations

import pytest

from os_brick import exception
from os_brick.testing import FakeHost
from os_brick.testing.storage import IscsiTarget
from os_brick.tests.unit.testing.helpers import new_call, run, session_to


@pytest.fixture
def target(fake_host: FakeHost) -> IscsiTarget:
    made = fake_host.iscsi_target(iqn="iqn.2010-10.org.example:a")
    made.lun(1)
    return made


NODE = "iscsiadm -m node -T iqn.2010-10.org.example:a -p 10.0.0.1:3260"


def test_records_are_made_changed_shown_and_deleted(fake_host: FakeHost) -> None:
    assert run(fake_host, NODE) == (21, "", "iscsiadm: No records found\n")
    assert run(fake_host, f"{NODE} --op update -n node.startup -v manual")[0] == 21
    assert run(fake_host, f"{NODE} --op delete")[0] == 21
    assert run(fake_host, "iscsiadm -m node")[0] == 21
    code, out, err = run(
        fake_host, f"{NODE} --interface default --op new -n node.startup -v automatic"
    )
    assert (code, err) == (0, "")
    assert out.startswith("New iSCSI node [tcp:[hw=,ip=,net_if=,iscsi_if=default] 10.0.0.1,3260,-1")
    shown = run(fake_host, NODE)[1]
    assert "node.startup = manual\n" in shown, "2.1.8 ignores values given with --op new"
    assert run(
        fake_host, f"{NODE} --op update -n node.startup -v automatic -n node.session.scan -v manual"
    ) == (0, "", "")
    shown = run(fake_host, NODE)[1]
    assert "node.startup = automatic\n" in shown
    assert "node.session.scan = manual\n" in shown
    assert run(fake_host, "iscsiadm -m node")[1] == "10.0.0.1:3260,-1 iqn.2010-10.org.example:a\n"
    assert run(fake_host, f"{NODE} --op delete") == (0, "", "")
    assert run(fake_host, "iscsiadm -m node")[0] == 21


def test_a_new_record_overwrites_an_old_one(fake_host: FakeHost) -> None:
    run(fake_host, f"{NODE} --op new")
    run(fake_host, f"{NODE} --op update -n node.startup -v automatic")
    run(fake_host, f"{NODE} --op new")
    assert "node.startup = manual\n" in run(fake_host, NODE)[1]


def test_an_unknown_setting_is_refused(fake_host: FakeHost) -> None:
    run(fake_host, f"{NODE} --op new")
    assert run(fake_host, f"{NODE} --op update -n node.foo -v 1")[0] == 7


def test_spelling_of_an_address_counts(fake_host: FakeHost) -> None:
    upper = "iscsiadm -m node -T iqn.2010-10.org.example:a -p [2001:DB8::1]:3260"
    run(fake_host, f"{upper} --op new")
    assert run(fake_host, upper)[0] == 0
    assert run(fake_host, upper.lower().replace("-t ", "-T "))[0] == 21


def test_passwords_are_not_shown(fake_host: FakeHost) -> None:
    run(fake_host, f"{NODE} --op new")
    run(fake_host, f"{NODE} --op update -n node.session.auth.password -v s3cret")
    shown = run(fake_host, NODE)[1]
    assert "s3cret" not in shown
    assert "node.session.auth.password = ********" in shown


def test_log_in_and_out(fake_host: FakeHost, target: IscsiTarget) -> None:
    run(fake_host, f"{NODE} --op new")
    code, out, err = run(fake_host, f"{NODE} --login")
    assert (code, err) == (0, "")
    assert out.endswith("portal: 10.0.0.1,3260] successful.\n")
    fake_host.pass_time(0.1)
    assert len(fake_host.disks()) == 1, "node.session.scan is auto by default"
    assert (
        run(fake_host, "iscsiadm -m session")[1]
        == "tcp: [1] 10.0.0.1:3260,1 iqn.2010-10.org.example:a (non-flash)\n"
    )
    code, out, err = run(fake_host, f"{NODE} --login")
    assert code == 15
    assert run(fake_host, f"{NODE} --op delete")[0] == 15, "a session is using it"
    assert run(fake_host, f"{NODE} --logout")[0] == 0
    assert run(fake_host, f"{NODE} --logout") == (21, "", "iscsiadm: No matching sessions found\n")
    assert run(fake_host, "iscsiadm -m session") == (21, "", "iscsiadm: No active sessions.\n")


def test_a_manual_record_scans_nothing(fake_host: FakeHost, target: IscsiTarget) -> None:
    run(fake_host, f"{NODE} --op new")
    run(fake_host, f"{NODE} --op update -n node.session.scan -v manual")
    run(fake_host, f"{NODE} --login")
    fake_host.pass_time(5)
    assert fake_host.disks() == []
    run(fake_host, "iscsiadm -m session -r 1 --rescan")
    fake_host.pass_time(5)
    assert len(fake_host.disks()) == 1


def test_a_record_may_ask_for_several_sessions(fake_host: FakeHost, target: IscsiTarget) -> None:
    run(fake_host, f"{NODE} --op new")
    run(fake_host, f"{NODE} --op update -n node.session.nr_sessions -v 2")
    run(fake_host, f"{NODE} --login")
    assert len(fake_host.sessions.all()) == 2
    assert run(fake_host, "iscsiadm -m session -r 2 --logout")[0] == 0
    assert [one.sid for one in fake_host.sessions.all()] == [1]


@pytest.mark.parametrize(
    ("fault", "code", "seconds"),
    [("silent", 8, 120), ("refuse", 4, 24), ("hang", 11, 120)],
)
def test_a_bad_portal_keeps_the_log_in_for_iscsids_patience(
    fake_host: FakeHost, target: IscsiTarget, fault: str, code: int, seconds: float
) -> None:
    run(fake_host, f"{NODE} --op new")
    getattr(target.portals[0], fault)()
    assert run(fake_host, f"{NODE} --login")[0] == code
    assert fake_host.now == pytest.approx(seconds, abs=1)
    assert fake_host.sessions.all() == []


def test_patience_is_in_the_record(fake_host: FakeHost, target: IscsiTarget) -> None:
    run(fake_host, f"{NODE} --op new")
    run(
        fake_host,
        f"{NODE} --op update -n node.session.initial_login_retry_max -v 1 "
        "-n node.conn[0].timeo.login_timeout -v 5",
    )
    target.portals[0].silent()
    assert run(fake_host, f"{NODE} --login")[0] == 8
    assert fake_host.now == pytest.approx(5, abs=1)


def test_iscsid_goes_on_when_iscsiadm_is_stopped(fake_host: FakeHost, target: IscsiTarget) -> None:
    run(fake_host, f"{NODE} --op new")
    target.portals[0].silent()
    with pytest.raises(exception.ExecutionTimeout):
        fake_host.execute(*f"{NODE} --login".split(), timeout=10)
    assert fake_host.now == pytest.approx(10, abs=1)
    assert run(fake_host, f"{NODE} --login")[0] == 15
    target.portals[0].restore()
    fake_host.pass_time(20)
    assert [one.state for one in fake_host.sessions.all()] == ["LOGGED_IN"]


def test_a_session_that_is_being_made_shows_as_free_and_can_be_ended(
    fake_host: FakeHost, target: IscsiTarget
) -> None:
    run(fake_host, f"{NODE} --op new")
    target.portals[0].hang()
    assert run(fake_host, f"{NODE} --login", timeout=5)[0] is None
    assert fake_host.host.sysfs.text("class/iscsi_session/session1/state") == "FREE"
    assert run(fake_host, f"{NODE} --logout")[0] == 0
    target.portals[0].restore()
    fake_host.pass_time(300)
    assert fake_host.sessions.all() == []
    assert fake_host.iscsid.under_way == []


def test_chap(fake_host: FakeHost) -> None:
    target = fake_host.iscsi_target(iqn="iqn.2010-10.org.example:a", chap=("user", "s3cret"))
    properties = target.lun(1).properties
    assert (
        properties["auth_method"],
        properties["auth_username"],
        properties["auth_password"],
    ) == ("CHAP", "user", "s3cret")
    run(fake_host, f"{NODE} --op new")
    assert run(fake_host, f"{NODE} --login")[0] == 24
    assert fake_host.sessions.all() == []
    run(
        fake_host,
        f"{NODE} --op update -n node.session.auth.authmethod -v CHAP "
        "-n node.session.auth.username -v user -n node.session.auth.password -v s3cret",
    )
    assert run(fake_host, f"{NODE} --login")[0] == 0


def test_a_wrong_name_is_refused(fake_host: FakeHost, target: IscsiTarget) -> None:
    other = NODE.replace("example:a", "example:b")
    run(fake_host, f"{other} --op new")
    assert run(fake_host, f"{other} --login")[0] == 19


def test_without_iscsid_records_work_and_sessions_do_not(
    fake_host: FakeHost, target: IscsiTarget
) -> None:
    session_to(fake_host, target)
    fake_host.iscsid.running = False
    assert run(fake_host, f"{NODE} --op new")[0] == 0
    assert run(fake_host, f"{NODE} --logout")[0] == 20
    assert len(fake_host.sessions.all()) == 1
    fake_host.sessions.end(fake_host.sessions.all()[0])
    code, _out, err = run(fake_host, f"{NODE} --login")
    assert code == 20
    assert "could not connect to iscsid" in err


def test_discovery_lists_and_records_all_portals(fake_host: FakeHost) -> None:
    fake_host.iscsi_target(portals=2, iqn="iqn.2010-10.org.example:a")
    fake_host.iscsi_target(
        portals=2, iqns=["iqn.2010-10.org.example:b", "iqn.2010-10.org.example:c"]
    )
    run(fake_host, f"{NODE} --op new")
    run(fake_host, f"{NODE} --op update -n node.startup -v automatic")
    code, out, _err = run(
        fake_host, "iscsiadm -m discovery -t sendtargets -I default -p 10.0.0.1:3260"
    )
    assert code == 0
    assert out.splitlines() == [
        "10.0.0.1:3260,1 iqn.2010-10.org.example:a",
        "10.0.0.2:3260,1 iqn.2010-10.org.example:a",
        "10.0.0.1:3260,1 iqn.2010-10.org.example:b",
        "10.0.0.2:3260,1 iqn.2010-10.org.example:c",
    ]
    shown = run(fake_host, "iscsiadm -m node --op show -p 10.0.0.1:3260")[1]
    assert shown.count("node.startup = manual\n") == 2, "discovery writes records anew"
    listed = run(fake_host, "iscsiadm -m discoverydb -o show -P 1")[1]
    assert listed.startswith(
        "SENDTARGETS:\nDiscoveryAddress: 10.0.0.1,3260\nTarget: iqn.2010-10.org.example:a\n"
        "\tPortal: 10.0.0.1:3260,1\n\t\tIface Name: default\n"
    )
    assert listed.endswith(
        "iSNS:\nNo targets found.\nSTATIC:\nNo targets found.\nFIRMWARE:\nNo targets found.\n"
    )


def test_discovery_with_chap_and_of_a_dead_portal(fake_host: FakeHost) -> None:
    target = fake_host.iscsi_target(discovery_chap=("user", "s3cret"))
    discoverydb = "iscsiadm -m discoverydb -t sendtargets -I default -p 10.0.0.1:3260"
    name = "discovery.sendtargets.auth"
    update = (
        f"{discoverydb} --op update -n {name}.authmethod -v CHAP"
        f" -n {name}.username -v user -n {name}.password -v "
    )
    assert run(fake_host, f"{update}s3cret")[0] == 6
    assert run(fake_host, f"{discoverydb} --op new")[0] == 0
    assert run(fake_host, f"{update}wrong")[0] == 0
    assert run(fake_host, f"{discoverydb} --discover")[0] == 24
    run(fake_host, f"{update}s3cret")
    assert run(fake_host, f"{discoverydb} --discover")[0] == 0
    target.portals[0].silent()
    assert run(fake_host, f"{discoverydb} --discover")[0] == 4


def test_interfaces(fake_host: FakeHost) -> None:
    assert "iface.transport_name = tcp\n" in run(fake_host, "iscsiadm -m iface -I default")[1]
    assert run(fake_host, "iscsiadm -m iface -I foo")[0] == 6
    fake_host.node_records.ifaces["card"] = "bnx2i"
    assert "iface.transport_name = bnx2i\n" in run(fake_host, "iscsiadm -m iface -I card")[1]


def test_node_settings_are_read_from_the_record(fake_host: FakeHost) -> None:
    changes, call = fake_host.host.changes, new_call(fake_host)
    where = ("iqn.2010-10.org.example:a", "10.0.0.1", 3260)
    assert changes.node_settings(call, *where) == {}
    run(fake_host, f"{NODE} --op new")
    assert changes.node_settings(call, *where) == {
        "record": "yes",
        "node.startup": "manual",
        "node.session.scan": "auto",
    }
    fake_host.node_records.readable = False
    assert changes.node_settings(call, *where) is None
