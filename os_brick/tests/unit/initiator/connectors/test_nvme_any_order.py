# SPDX-License-Identifier: Apache-2.0
"""Whatever happens at whatever moment: nothing lost in silence, nothing left, nobody kept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oslo_concurrency import processutils

from os_brick import exception
from os_brick.testing import FakeHost
from os_brick.testing.nvme_storage import NvmeVolume
from os_brick.tests.unit.initiator.connectors.iscsi_helpers import side_by_side

FAILURES = (exception.BrickException, processutils.ProcessExecutionError, OSError)
# call_timeout, and the moments that a program needs to be stopped.
LIMIT_S = 620
# After this every connect that was begun has ended, every controller is back, every thread done.
SETTLE_S = 900


@dataclass(frozen=True)
class Trouble:
    """One thing that happens to a portal, in seconds from a call's beginning."""

    when_s: float
    portal: int
    what: str


@dataclass(frozen=True)
class BadTool:
    """A command that fails, or hangs where ``code`` is None, so many times."""

    words: tuple[str, ...]
    code: int | None
    times: int


@dataclass(frozen=True)
class Story:
    """A host, a volume on it, and what happens while it is attached and detached."""

    portals: int
    multipath: bool
    native: bool
    foreign: bool
    events: bool
    ids: tuple[str, ...]
    version: tuple[int, int]
    slow_scan_s: float
    slow_connect_s: float
    before: tuple[Trouble, ...]
    between: tuple[Trouble, ...]
    force: bool
    tools: tuple[BadTool, ...] = ()


def troubles(latest_s: float) -> st.SearchStrategy[tuple[Trouble, ...]]:
    """Return up to three troubles."""
    one = st.builds(
        Trouble,
        when_s=st.one_of(st.just(0.0), st.floats(0.0, 0.2), st.floats(0.0, latest_s)),
        portal=st.integers(0, 2),
        what=st.sampled_from(["kill", "silent", "refuse", "hang", "restore"]),
    )
    return st.lists(one, max_size=3).map(tuple)


STORIES = st.builds(
    Story,
    portals=st.integers(1, 3),
    multipath=st.booleans(),
    native=st.booleans(),
    foreign=st.booleans(),
    events=st.booleans(),
    ids=st.sampled_from([("uuid",), ("nguid",), ("nsid",), ()]),
    version=st.sampled_from([(1, 8), (1, 12), (1, 16), (2, 3)]),
    slow_scan_s=st.sampled_from([0.01, 0.5, 4.0]),
    slow_connect_s=st.sampled_from([0.02, 1.0]),
    before=troubles(30),
    between=troubles(30),
    force=st.booleans(),
    tools=st.lists(
        st.builds(
            BadTool,
            words=st.sampled_from(
                [
                    ("modprobe",),
                    ("nvme", "connect"),
                    ("nvme", "disconnect"),
                    ("nvme", "ns-rescan"),
                    ("nvme", "ns-descs"),
                    ("nvme", "list-ns"),
                    ("sync",),
                    ("tee",),
                    ("dd",),
                ]
            ),
            code=st.sampled_from([None, 0, 1, 70, 114]),
            times=st.integers(1, 3),
        ),
        max_size=2,
    ).map(tuple),
)


def order(host: FakeHost, volume: NvmeVolume, what: tuple[Trouble, ...]) -> None:
    """Have the troubles happen from now on."""
    portals = volume.subsystem.portals
    for trouble in what:
        host.after(trouble.when_s, getattr(portals[trouble.portal % len(portals)], trouble.what))


def heal(host: FakeHost, volume: NvmeVolume) -> None:
    """End all troubles and let everything come to rest."""
    host.pass_time(40)  # those that were ordered but have not happened yet
    for portal in volume.subsystem.portals:
        portal.restore()
    host.pass_time(SETTLE_S)


def detach(
    host: FakeHost, connector: Any, properties: dict[str, Any], info: Any, *, force: bool
) -> bool:
    """Detach; tell whether it said that all was well."""
    began = host.now
    try:
        connector.disconnect_volume(properties, info, force=force)
        return True
    except FAILURES:
        return False
    finally:
        assert host.now - began <= LIMIT_S


def set_up(host: FakeHost, story: Story) -> None:
    """Give the host the settings of a story."""
    host.nvme.native_multipath = story.native
    host.nvme_cli.version = story.version
    host.nvme.scan_s = story.slow_scan_s
    host.nvme.connect_s = story.slow_connect_s


def spoil(host: FakeHost, story: Story) -> None:
    """Order the bad tools of a story."""
    for tool in story.tools:
        if tool.code == 0 and tool.words in (("sync",), ("tee",)):
            continue  # a lie about a write-out cannot be seen through
        if tool.code is None:
            host.faults.hang(*tool.words, times=tool.times)
        else:
            host.faults.fail(*tool.words, code=tool.code, times=tool.times)


@given(story=STORIES)
@settings(max_examples=50)
def test_attach_and_detach_under_any_trouble(story: Story) -> None:
    with FakeHost() as host:
        tell(host, story)
        host.check()


def tell(host: FakeHost, story: Story) -> None:
    set_up(host, story)
    subsystem = host.nvme_subsystem(portals=story.portals)
    subsystem.sends_events = story.events
    volume = subsystem.namespace()
    properties = volume.connection(*story.ids)
    connector = host.connector("NVMEOF", use_multipath=story.multipath, foreign=story.foreign)
    order(host, volume, story.before)
    spoil(host, story)
    began = host.now
    try:
        info = connector.connect_volume(properties)
    except FAILURES:
        assert host.now - began <= LIMIT_S
        heal(host, volume)
        host.faults.mend()
        if story.tools:
            assert detach(host, connector, properties, None, force=False)
        assert host.leftovers() == []
        return
    assert host.now - began <= LIMIT_S
    assert host.device(info["path"]).storage()[1] in (volume.unit, None)
    host.write(info["path"], b"data")
    order(host, volume, story.between)
    done = detach(host, connector, properties, info, force=story.force)
    if done or not story.force:
        assert host.lost == []
    if done:
        assert volume.data == b"data"
    heal(host, volume)
    host.faults.mend()
    if not done or host.leftovers():
        assert detach(host, connector, properties, info, force=False)
        heal(host, volume)
    assert host.leftovers() == []
    if not story.force:
        assert (volume.data, host.lost) == (b"data", [])


# -- several volumes -------------------------------------------------------------------------
PAUSE = st.one_of(st.just(0.0), st.floats(0.0, 0.1), st.floats(0.0, 3.0))


@given(
    story=STORIES,
    lives=st.lists(st.tuples(PAUSE, PAUSE), min_size=2, max_size=4),
    calm=st.booleans(),
)
@settings(max_examples=15)
def test_namespaces_of_one_subsystem_side_by_side(
    story: Story, lives: list[tuple[float, float]], calm: bool
) -> None:
    with FakeHost() as host:
        tell_of_several(host, story, lives, calm)
        host.check()


def tell_of_several(
    host: FakeHost, story: Story, lives: list[tuple[float, float]], calm: bool
) -> None:
    set_up(host, story)
    subsystem = host.nvme_subsystem(portals=story.portals)
    volumes = [subsystem.namespace() for _ in lives]
    connector = host.connector("NVMEOF", use_multipath=story.multipath, foreign=story.foreign)
    if not calm:
        order(host, volumes[0], story.before)

    def live(number: int) -> None:
        volume, (before_s, after_s) = volumes[number], lives[number]
        host.pass_time(before_s)
        try:
            info = connector.connect_volume(volume.properties)
        except FAILURES:
            assert not calm
            return
        assert host.device(info["path"]).storage()[1] in (volume.unit, None)
        host.write(info["path"], b"x")
        host.pass_time(after_s)
        if detach(host, connector, volume.properties, info, force=False):
            assert volume.data == b"x"
        else:
            assert not calm

    ends = side_by_side(host, *[partial(live, number) for number in range(len(lives))])
    assert ends == [None] * len(lives)
    heal(host, volumes[0])
    # The array takes its volumes away after each detach; the last one ends the connections.
    for volume in volumes:
        assert detach(host, connector, volume.properties, None, force=False)
        volume.vanish()
        host.pass_time(5)
    assert detach(host, connector, volumes[0].properties, None, force=False)
    assert host.leftovers() == []
    assert host.lost == []


@pytest.mark.parametrize("multipath", [False, True])
@pytest.mark.parametrize("native", [False, True])
def test_the_story_without_trouble(multipath: bool, native: bool) -> None:
    story = Story(2, multipath, native, False, True, ("uuid",), (2, 3), 0.01, 0.02, (), (), False)
    with FakeHost() as host:
        tell(host, story)
