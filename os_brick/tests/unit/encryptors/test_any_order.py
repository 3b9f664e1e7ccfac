# SPDX-License-Identifier: Apache-2.0
"""Whatever is called in whatever order under whatever trouble: no volume with data is formatted,
success means what it says, and the host can always be brought back."""

from __future__ import annotations

import pathlib
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st
from oslo_concurrency import processutils

from os_brick import exception
from os_brick.testing import FakeHost
from os_brick.tests.unit.encryptors.helpers import Encrypted

EXPECTED = (exception.BrickException, processutils.ProcessExecutionError, OSError)

calls = st.sampled_from(["attach", "detach", "extend"])
programs = st.sampled_from(
    ["luksOpen", "luksFormat", "luksClose", "open", "close", "isLuks", "resize", "blkid", "ln"]
)
troubles = st.one_of(
    st.tuples(st.just("fail"), programs, st.sampled_from([1, 2, 4, 5, 127])),
    st.tuples(st.just("hang"), programs, st.just(0)),
    st.tuples(st.just("slow"), programs, st.just(700)),
    st.tuples(st.sampled_from(["lose", "link", "use", "restart"]), st.just(""), st.just(0)),
)
steps = st.lists(st.tuples(calls, st.lists(troubles, max_size=2)), min_size=1, max_size=6)


class Story:
    """One volume, and what may be said of it at any time."""

    def __init__(self, host: FakeHost, provider: str, foreign: bool, used: bool) -> None:
        self.host = host
        self.one = Encrypted(host, provider, foreign=foreign)
        if used:
            self.one.attach()
            self.one.detach()
        self.header = self.one.unit.luks

    def trouble(self, kind: str, program: str, number: int) -> None:
        faults = self.host.faults
        if kind == "fail":
            faults.fail(program, code=number)
        elif kind == "hang":
            faults.hang(program, times=1)
        elif kind == "slow":
            faults.slow(program, seconds=number, times=1)
        elif kind == "lose":
            self.one.lose_paths()
        elif kind == "link":
            faults.failing_writes["link"] = 30
        elif kind == "use" and self.one.mapping is not None:
            self.one.mapping.mounts.append("/mnt/x")
        elif kind == "restart":  # killed before the link was made, or after the mapping was closed
            ordered = faults.failing_writes.pop("link", 0)
            self.one.link_to("dm-0")
            faults.failing_writes["link"] = ordered

    def heal(self) -> None:
        self.host.faults.mend()
        self.one.mend_paths()
        for device in (self.one.mapping, self.one.raw):
            if device is not None:
                device.mounts.clear()
        self.host.pass_time(1)

    def call(self, name: str) -> bool:
        """Make a call; tell whether it succeeded."""
        try:
            getattr(self.one, name)()
        except EXPECTED:
            return False
        except NotImplementedError:
            assert self.one.provider == "plain"
            return False
        return True

    def check(self, name: str, done: bool) -> None:
        """Insist on what has to hold after a call."""
        one = self.one
        if self.header is not None:
            assert one.unit.luks is self.header, "a volume with data was formatted"
        self.header = one.unit.luks
        if name == "attach" and done:
            assert one.mapping is not None
            assert one.mapping.slaves == [one.raw]
            assert one.leads_to == f"/dev/mapper/{one.label}"
        if name == "detach" and done:
            assert one.mapping is None
            assert one.leads_to == "/dev/dm-0"
        if name == "extend" and done:
            assert one.mapping is not None
        if one.leads_to.startswith("/dev/mapper/"):
            assert one.leads_to == f"/dev/mapper/{one.label}"
        else:
            assert one.leads_to == "/dev/dm-0"


@settings(max_examples=60)
@given(
    provider=st.sampled_from(["luks", "luks2", "plain"]),
    foreign=st.booleans(),
    used=st.booleans(),
    todo=steps,
)
def test_any_order_under_any_trouble(
    provider: str, foreign: bool, used: bool, todo: list[tuple[str, list[tuple[str, str, int]]]]
) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        FakeHost(str(pathlib.Path(folder, "host"))) as host,
    ):
        story = Story(host, provider, foreign, used)
        for name, list_of_troubles in todo:
            for trouble in list_of_troubles:
                story.trouble(*trouble)
            done = story.call(name)
            story.heal()
            story.check(name, done)
        # In the end it can be used and brought back as ever.
        for name in ("detach", "attach", "detach"):
            assert story.call(name)
            story.check(name, True)
        host.check()
