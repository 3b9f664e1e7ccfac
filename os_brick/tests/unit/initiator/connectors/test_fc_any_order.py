# SPDX-License-Identifier: Apache-2.0
"""Whatever happens at whatever moment: nothing lost in silence, nothing left, nobody kept."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oslo_concurrency import processutils

from os_brick import exception
from os_brick.testing import FakeHost
from os_brick.testing.fc_storage import FcVolume

FAILURES = (exception.BrickException, processutils.ProcessExecutionError, OSError)
# call_timeout, and the moments that a program needs to be stopped.
LIMIT_S = 620
# After this every thread has ended, also one that waits for what a scan may still show.
SETTLE_S = 1500
#: A port that is away for longer than any story: the kernel keeps its disks.
FOR_EVER_S = 1e6
ARCHITECTURES = {"pci": "x86_64", "vio": "ppc64le", "units": "s390x", "npiv": "s390x"}


@dataclass(frozen=True)
class Trouble:
    """One thing that happens to a port, in seconds from a call's beginning."""

    when_s: float
    port: int
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

    kind: str
    hbas: int
    ports: int
    multipath: bool
    find_multipaths: str
    no_path_retry: str
    foreign: bool
    slow_disk_s: float
    slow_udev_s: float
    slow_removal_s: float
    before: tuple[Trouble, ...]
    between: tuple[Trouble, ...]
    told: bool
    force: bool
    tools: tuple[BadTool, ...] = ()


TROUBLES = st.lists(
    st.builds(
        Trouble,
        when_s=st.one_of(st.just(0.0), st.floats(0.0, 0.2), st.floats(0.0, 60)),
        port=st.integers(0, 3),
        what=st.sampled_from(["lose", "silence", "restore", "unplug", "plug"]),
    ),
    max_size=3,
).map(tuple)
STORIES = st.builds(
    Story,
    kind=st.sampled_from(sorted(ARCHITECTURES)),
    hbas=st.integers(1, 2),
    ports=st.integers(1, 2),
    multipath=st.booleans(),
    find_multipaths=st.sampled_from(["no", "strict"]),
    no_path_retry=st.sampled_from(["fail", "queue"]),
    foreign=st.booleans(),
    slow_disk_s=st.sampled_from([0.005, 0.5, 6.0]),
    slow_udev_s=st.sampled_from([0.02, 1.0]),
    slow_removal_s=st.sampled_from([0.0, 3.0]),
    before=TROUBLES,
    between=TROUBLES,
    told=st.booleans(),
    force=st.booleans(),
    tools=st.lists(
        st.builds(
            BadTool,
            words=st.sampled_from(
                [
                    ("multipath", "-f"),
                    ("multipath", "-C"),
                    ("multipath", "-a"),
                    ("multipathd",),
                    ("sync",),
                    ("tee",),
                    ("dd",),
                ]
            ),
            code=st.sampled_from([None, 0, 1, 21, 255]),
            times=st.integers(1, 3),
        ),
        max_size=2,
    ).map(tuple),
)


def set_up(host: FakeHost, story: Story) -> tuple[Any, FcVolume]:
    """Give the host what a story wants; return a connector and a volume."""
    host.multipathd.find_multipaths = story.find_multipaths
    host.multipathd.no_path_retry = story.no_path_retry
    host.delays.disk_s = story.slow_disk_s
    host.delays.udev_s = story.slow_udev_s
    host.delays.removal_s = story.slow_removal_s
    for _ in range(story.hbas):
        if ARCHITECTURES[story.kind] == "s390x":
            host.zfcp.add_adapter(npiv=story.kind == "npiv")
        else:
            host.fc.add_hba(story.kind)
    volume = host.fc_array(story.ports).lun(1)
    for port in volume.array.ports:
        port.dev_loss_s = FOR_EVER_S
    connector = host.connector(
        "FIBRE_CHANNEL",
        arch=ARCHITECTURES[story.kind],
        use_multipath=story.multipath,
        foreign=story.foreign,
    )
    return connector, volume


def befall(host: FakeHost, volume: FcVolume, trouble: Trouble) -> None:
    """Have one trouble happen."""
    ports, hbas = volume.array.ports, host.fc.hbas
    port, hba = ports[trouble.port % len(ports)], hbas[trouble.port % len(hbas)]
    if trouble.what == "lose":
        port.lose(dev_loss_s=FOR_EVER_S)
    elif trouble.what == "unplug":
        host.fc.set_state(hba, "Linkdown")
    elif trouble.what == "plug":
        host.fc.set_state(hba, "Online")
    else:
        getattr(port, trouble.what)()


def order(host: FakeHost, volume: FcVolume, what: tuple[Trouble, ...]) -> None:
    """Have the troubles happen from now on."""
    for trouble in what:
        host.after(trouble.when_s, functools.partial(befall, host, volume, trouble))


def heal(host: FakeHost, volume: FcVolume) -> None:
    """End all troubles and let everything come to rest."""
    host.pass_time(70)  # those that were ordered but have not happened yet
    for hba in host.fc.hbas:
        host.fc.set_state(hba, "Online")
    for port in volume.array.ports:
        port.restore()
    host.pass_time(SETTLE_S)


def detach(host: FakeHost, connector: Any, volume: FcVolume, info: Any, *, force: bool) -> bool:
    """Detach; tell whether it said that all was well."""
    began = host.now
    try:
        connector.disconnect_volume(volume.properties, info, force=force)
        return True
    except FAILURES:
        return False
    finally:
        assert host.now - began <= LIMIT_S


def finish(host: FakeHost, connector: Any, volume: FcVolume, info: Any) -> None:
    """Detach on a host that is well again."""
    host.faults.mend()
    assert detach(host, connector, volume, info, force=False)
    heal(host, volume)


def tell(host: FakeHost, story: Story) -> None:
    connector, volume = set_up(host, story)
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
    told = info if story.told else None
    if detach(host, connector, volume, told, force=story.force):
        assert volume.data == b"data"
        assert host.lost == []
    elif not story.force:
        assert host.lost == []
    heal(host, volume)
    if not (volume.data or story.force) or host.leftovers():
        finish(host, connector, volume, told)
    assert host.leftovers() == []
    if not story.force:
        assert (volume.data, host.lost) == (b"data", [])


@given(story=STORIES)
@settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
def test_attach_and_detach_under_any_trouble(story: Story) -> None:
    with FakeHost() as host:
        tell(host, story)
        host.check()


@pytest.mark.parametrize("kind", sorted(ARCHITECTURES))
@pytest.mark.parametrize("multipath", [False, True])
def test_the_story_without_trouble(kind: str, multipath: bool) -> None:
    story = Story(
        *(kind, 2, 2, multipath, "no", "fail", False, 0.005, 0.02, 0.0, (), (), False, False)
    )
    with FakeHost() as host:
        tell(host, story)
        host.check()
