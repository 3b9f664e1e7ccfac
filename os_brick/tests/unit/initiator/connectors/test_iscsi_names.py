# SPDX-License-Identifier: Apache-2.0
"""Portals given by host names, while the name service does not know them or does not answer."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from os_brick import exception
from os_brick.testing import FakeHost
from os_brick.testing.storage import Volume

BOTH = pytest.mark.parametrize("multipath", [False, True])
FORCE = pytest.mark.parametrize("force", [False, True])


def by_names(volume: Volume, **more: Any) -> dict[str, Any]:
    """Return connection properties whose portals are ``array1:3260``, ``array2:3260`` …"""
    return volume.connection(spelling=lambda text: text.replace("10.0.0.", "array"), **more)


@pytest.fixture
def named(fake_host: FakeHost) -> Volume:
    """Return a volume behind two portals that have names."""
    fake_host.network.names = {"array1": ["10.0.0.1"], "array2": ["10.0.0.2"]}
    return fake_host.iscsi_target(portals=2).lun(1)


def lose_names(host: FakeHost) -> None:
    """Have the name service not answer."""
    host.network.name_service_error = socket.gaierror(socket.EAI_AGAIN, "Temporary failure")


# -- attach ----------------------------------------------------------------------------------
@BOTH
@pytest.mark.parametrize("unknown", ["array1", "array2"])
def test_a_portal_whose_name_has_no_address_is_one_that_does_not_answer(
    fake_host: FakeHost, named: Volume, multipath: bool, unknown: str
) -> None:
    del fake_host.network.names[unknown]
    connector = fake_host.connector(use_multipath=multipath)
    info = connector.connect_volume(by_names(named))
    assert info["scsi_wwn"] == named.wwid
    assert len(fake_host.sessions.all()) == 1
    connector.disconnect_volume(by_names(named), info)
    assert fake_host.leftovers() == []


@BOTH
def test_if_no_name_has_an_address_the_attach_says_so(
    fake_host: FakeHost, named: Volume, multipath: bool
) -> None:
    fake_host.network.names.clear()
    with pytest.raises(exception.TargetPortalNotFound, match=r"array1:3260.*no address"):
        fake_host.connector(use_multipath=multipath).connect_volume(by_names(named))
    assert fake_host.leftovers() == []


# -- detach ----------------------------------------------------------------------------------
@BOTH
@FORCE
@pytest.mark.parametrize("plural", [False, True])
def test_a_detach_finds_the_volume_without_the_name_service(
    fake_host: FakeHost, named: Volume, multipath: bool, force: bool, plural: bool
) -> None:
    properties = by_names(named, plural=plural)
    connector = fake_host.connector(use_multipath=multipath)
    info = connector.connect_volume(properties)
    fake_host.write(info["path"], b"data")
    lose_names(fake_host)
    connector.disconnect_volume(properties, None, force=force)
    assert named.data == b"data"
    assert fake_host.leftovers() == []


def test_a_session_that_was_made_with_the_name_is_the_portals(
    fake_host: FakeHost, named: Volume
) -> None:
    target = named.target
    fake_host.remember()
    fake_host.node_records.create(target.iqn, "array1", 3260, 1, "default")
    fake_host.sessions.create(target.iqn, target.portals[0], target, 0, configured=("array1", 3260))
    fake_host.pass_time(1)
    lose_names(fake_host)
    fake_host.connector().disconnect_volume(by_names(named, plural=False), None)
    assert fake_host.leftovers() == []


@BOTH
def test_other_targets_and_other_luns_stay(
    fake_host: FakeHost, named: Volume, multipath: bool
) -> None:
    connector = fake_host.connector(use_multipath=multipath)
    connector.connect_volume(named.target.lun(2).properties)
    connector.connect_volume(fake_host.iscsi_target(portals=2).lun(1).properties)
    fake_host.pass_time(1)
    before = fake_host.inventory()
    info = connector.connect_volume(by_names(named))
    lose_names(fake_host)
    connector.disconnect_volume(by_names(named), info)
    fake_host.pass_time(1)
    assert fake_host.inventory() == before


def test_luns_that_depend_on_the_portal_are_not_guessed(fake_host: FakeHost) -> None:
    fake_host.network.names = {"array1": ["10.0.0.1"], "array2": ["10.0.0.2"]}
    target = fake_host.iscsi_target(portals=2)
    volume, other = target.lun([1, 2]), target.lun([2, 1])
    connector = fake_host.connector(use_multipath=True)
    connector.connect_volume(volume.properties)
    connector.connect_volume(other.properties)
    fake_host.pass_time(1)
    before = fake_host.inventory()
    lose_names(fake_host)
    with pytest.raises(socket.gaierror):
        connector.disconnect_volume(by_names(volume), None)
    connector.disconnect_volume(by_names(volume), None, force=True, ignore_errors=True)
    with pytest.raises(exception.WrongVolume):
        connector.disconnect_volume(by_names(volume, plural=False), None)
    assert fake_host.inventory() == before


def test_nothing_found_is_an_error_while_names_are_not_known(
    fake_host: FakeHost, named: Volume
) -> None:
    connector = fake_host.connector()
    lose_names(fake_host)
    with pytest.raises(socket.gaierror):
        connector.disconnect_volume(by_names(named), None)
    with pytest.raises(exception.ExceptionChainer):
        connector.disconnect_volume(by_names(named), None, force=True)
    connector.disconnect_volume(by_names(named), None, force=True, ignore_errors=True)
    assert fake_host.leftovers() == []


# -- extend ----------------------------------------------------------------------------------
@BOTH
def test_extend_without_the_name_service(
    fake_host: FakeHost, named: Volume, multipath: bool
) -> None:
    connector = fake_host.connector(use_multipath=multipath)
    connector.connect_volume(by_names(named))
    named.grow(3 * 1024**3)
    lose_names(fake_host)
    assert connector.extend_volume(by_names(named)) == 3 * 1024**3


def test_extend_of_what_is_not_found_says_that_names_are_not_known(
    fake_host: FakeHost, named: Volume
) -> None:
    lose_names(fake_host)
    with pytest.raises(socket.gaierror):
        fake_host.connector().extend_volume(by_names(named))
