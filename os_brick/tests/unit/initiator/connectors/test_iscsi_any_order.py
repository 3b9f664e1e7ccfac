# SPDX-License-Identifier: Apache-2.0
"""Whatever happens at whatever moment: nothing lost in silence, nothing left, nobody kept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oslo_concurrency import processutils

from os_brick import exception
from os_brick.testing import FakeHost
from os_brick.testing.storage import Volume
from os_brick.tests.unit.initiator.connectors.iscsi_helpers import side_by_side

FAILURES = (exception.BrickException, processutils.ProcessExecutionError, OSError)
# call_timeout, and the moments that a program needs to be stopped.
LIMIT_S = 620
# After this iscsid has given up what it had begun, and every thread has ended.
SETTLE_S = 1500


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
    find_multipaths: str
    no_path_retry: str
    foreign: bool
    slow_disk_s: float
    slow_udev_s: float
    slow_removal_s: float
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
    find_multipaths=st.sampled_from(["no", "strict"]),
    no_path_retry=st.sampled_from(["fail", "queue"]),
    foreign=st.booleans(),
    slow_disk_s=st.sampled_from([0.005, 0.5, 6.0]),
    slow_udev_s=st.sampled_from([0.02, 1.0]),
    slow_removal_s=st.sampled_from([0.0, 3.0]),
    before=troubles(60),
    between=troubles(60),
    force=st.booleans(),
    tools=st.lists(
        st.builds(
            BadTool,
            words=st.sampled_from(
                [
                    ("iscsiadm", "new"),
                    ("iscsiadm", "update"),
                    ("iscsiadm", "--login"),
                    ("iscsiadm", "--logout"),
                    ("iscsiadm", "delete"),
                    ("multipath", "-f"),
                    ("multipath", "-C"),
                    ("multipath", "-a"),
                    ("multipathd",),
                    ("sync",),
                    ("tee",),
                ]
            ),
            code=st.sampled_from([None, 0, 1, 6, 20, 21, 255]),
            times=st.integers(1, 3),
        ),
        max_size=2,
    ).map(tuple),
)


def order(host: FakeHost, volume: Volume, what: tuple[Trouble, ...]) -> None:
    """Have the troubles happen from now on."""
    for trouble in what:
        portal = volume.target.portals[trouble.portal % len(volume.target.portals)]
        host.after(trouble.when_s, getattr(portal, trouble.what))


def heal(host: FakeHost, volume: Volume) -> None:
    """End all troubles and let everything come to rest."""
    host.pass_time(70)  # those that were ordered but have not happened yet
    for portal in volume.target.portals:
        portal.restore()
    host.pass_time(SETTLE_S)


def detach(host: FakeHost, connector: Any, volume: Volume, info: Any, *, force: bool) -> bool:
    """Detach; tell whether it said that all was well."""
    began = host.now
    try:
        connector.disconnect_volume(volume.properties, info, force=force)
        return True
    except FAILURES:
        return False
    finally:
        assert host.now - began <= LIMIT_S


def finish(host: FakeHost, connector: Any, volume: Volume, info: Any) -> None:
    """Detach on a host that is well again."""
    host.faults.mend()
    assert detach(host, connector, volume, info, force=False)
    heal(host, volume)


@given(story=STORIES)
@settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
def test_attach_and_detach_under_any_trouble(story: Story) -> None:
    with FakeHost() as host:
        tell(host, story)
        host.check()


def set_up(host: FakeHost, story: Story) -> None:
    """Give the host the settings of a story."""
    host.multipathd.find_multipaths = story.find_multipaths
    host.multipathd.no_path_retry = story.no_path_retry
    host.delays.disk_s = story.slow_disk_s
    host.delays.udev_s = story.slow_udev_s
    host.delays.removal_s = story.slow_removal_s


def tell(host: FakeHost, story: Story) -> None:
    set_up(host, story)
    volume = host.iscsi_target(portals=story.portals).lun(1)
    connector = host.connector(use_multipath=story.multipath, foreign=story.foreign)
    order(host, volume, story.before)
    for tool in story.tools:
        if tool.words == ("sync",) and tool.code == 0:
            continue  # a lie about a write-out cannot be seen through
        if tool.code is None:
            host.faults.hang(*tool.words, times=tool.times)
        else:
            host.faults.fail(*tool.words, code=tool.code, times=tool.times)
    began = host.now
    try:
        info = connector.connect_volume(volume.properties)
    except FAILURES:
        assert host.now - began <= LIMIT_S
        heal(host, volume)
        if story.tools:
            finish(host, connector, volume, None)
        assert host.leftovers() == []
        return
    assert host.now - began <= LIMIT_S
    assert info["scsi_wwn"] == volume.wwid
    host.write(info["path"], b"data")
    order(host, volume, story.between)
    if detach(host, connector, volume, info, force=story.force):
        assert volume.data == b"data"
        assert host.lost == []
    elif not story.force:
        assert host.lost == []
    heal(host, volume)
    if not (volume.data or story.force) or host.leftovers():
        finish(host, connector, volume, info)
    assert host.leftovers() == []
    if not story.force:
        assert (volume.data, host.lost) == (b"data", [])


# -- several volumes -------------------------------------------------------------------------
@dataclass(frozen=True)
class Life:
    """What one volume goes through: pauses in seconds before each attach and each detach."""

    pauses: tuple[tuple[float, float], ...]
    force: bool


PAUSE = st.one_of(st.just(0.0), st.floats(0.0, 0.1), st.floats(0.0, 3.0))
LIVES = st.lists(
    st.builds(
        Life,
        pauses=st.lists(st.tuples(PAUSE, PAUSE), min_size=1, max_size=2).map(tuple),
        force=st.booleans(),
    ),
    min_size=2,
    max_size=4,
)


@given(story=STORIES, lives=LIVES, calm=st.booleans())
@settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
def test_volumes_of_one_target_side_by_side(story: Story, lives: list[Life], calm: bool) -> None:
    with FakeHost() as host:
        tell_of_several(host, story, lives, calm)
        host.check()


def tell_of_several(host: FakeHost, story: Story, lives: list[Life], calm: bool) -> None:
    set_up(host, story)
    target = host.iscsi_target(portals=story.portals)
    volumes = [target.lun(number) for number in range(len(lives))]
    connector = host.connector(use_multipath=story.multipath, foreign=story.foreign)
    if not calm:
        order(host, volumes[0], story.before)
    written = [0] * len(lives)
    infos: list[Any] = [None] * len(lives)

    def live(number: int) -> None:
        volume, life = volumes[number], lives[number]
        for before_s, after_s in life.pauses:
            host.pass_time(before_s)
            try:
                info = connector.connect_volume(volume.properties)
            except FAILURES:
                assert not calm
                return
            infos[number] = info
            assert info["scsi_wwn"] == volume.wwid
            host.write(info["path"], b"x")
            written[number] += 1
            host.pass_time(after_s)
            if not detach(host, connector, volume, info, force=life.force):
                assert not calm
                return
            assert volume.data == b"x" * written[number]

    ends = side_by_side(host, *[partial(live, number) for number in range(len(lives))])
    assert ends == [None] * len(lives)
    heal(host, volumes[0])
    if not calm:
        for volume, info in zip(volumes, infos, strict=True):
            finish(host, connector, volume, info)
    assert host.leftovers() == []
    for number, volume in enumerate(volumes):
        if not lives[number].force:
            assert volume.data == b"x" * written[number]


@pytest.mark.parametrize("multipath", [False, True])
def test_the_story_without_trouble(multipath: bool) -> None:
    story = Story(2, multipath, "no", "fail", False, 0.005, 0.02, 0.0, (), (), False)
    with FakeHost() as host:
        tell(host, story)
