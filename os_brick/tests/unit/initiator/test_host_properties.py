# SPDX-License-Identifier: Apache-2.0
"""What a host tells of itself, whoever else asks at that moment."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from os_brick import executor
from os_brick.initiator import host_properties
from os_brick.initiator.initiator_connector import InitiatorConnector
from os_brick.testing import FakeHost
from os_brick.tests.unit.initiator.connectors.iscsi_helpers import side_by_side

Properties = dict[str, Any]
WWPNS: Properties = {"wwpns": ["100000109b000000"]}
INITIATOR: Properties = {"initiator": "iqn.2010-10.org.example:host"}


def probed(name: str, tell: Callable[[], Properties]) -> type[InitiatorConnector]:
    """Return a connector class that tells the host's properties in this way."""

    def get_connector_properties(root_helper: str | None, **keywords: Any) -> Properties:
        return tell()

    return type(
        name,
        (InitiatorConnector,),
        {"get_connector_properties": staticmethod(get_connector_properties)},
    )


def asking(host: FakeHost, monkeypatch: pytest.MonkeyPatch, name: str, took_s: list[float]) -> Any:
    """Return a function that asks a quick probe, and one that takes so many virtual seconds, the
    first time, the second time …

    :param name: of the second probe's class.
    :param took_s: emptied as it is asked.
    """

    def tell() -> Properties:
        host.pass_time(took_s.pop(0))
        return WWPNS

    monkeypatch.setattr(host_properties, "SystemClock", lambda: host.host.clock)
    classes = [probed(name, tell), probed("Quick", lambda: INITIATOR)]
    return partial(host_properties.collect, classes, "x86_64", "linux", None)


def test_all_who_ask_at_once_are_told_everything(
    fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = asking(fake_host, monkeypatch, "Slow", [10, 10])

    def ask_later() -> Any:
        fake_host.pass_time(5)
        return ask()

    assert side_by_side(fake_host, ask, ask_later) == [WWPNS | INITIATOR] * 2


def test_a_probe_that_got_no_thread_is_asked_the_next_time(
    fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: executor.Thread) -> None:
        raise RuntimeError("can't start new thread")

    ask = asking(fake_host, monkeypatch, "Threadless", [0])
    with monkeypatch.context() as patched:
        patched.setattr(executor.Thread, "start", start)
        assert ask() == {}
    assert ask() == WWPNS | INITIATOR


def test_a_probe_that_hangs_is_not_asked_again_until_all_of_it_have_ended(
    fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two asked it at once and gave it up after 30 s; it ends for the one after 300 s, for the
    other after 600 s."""
    left = [300.0, 600.0, 0.0]
    ask = asking(fake_host, monkeypatch, "Hanging", left)
    assert side_by_side(fake_host, ask, ask) == [INITIATOR, INITIATOR]
    assert left == [0.0]
    for when in (100, 400):
        fake_host.pass_time(when - fake_host.now)
        assert ask() == INITIATOR
    fake_host.pass_time(700 - fake_host.now)
    assert ask() == WWPNS | INITIATOR


def test_a_single_probe_that_hangs_does_not_keep_its_caller(
    fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tell() -> Properties:
        fake_host.pass_time(300)
        return WWPNS

    monkeypatch.setattr(host_properties, "SystemClock", lambda: fake_host.host.clock)
    assert host_properties.collect([probed("Alone", tell)], "x86_64", "linux", None) == {}
    assert fake_host.now < 60
    fake_host.pass_time(300)
