# SPDX-License-Identifier: Apache-2.0
"""The library's own verbs for SCSI as the calls use them, with the verbs themselves replaced."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.changes import PrivilegedChanges
from os_brick.initiator.linux.identity import Identity, parse_serial
from os_brick.initiator.linux.scsi import Disk, Hctl
from os_brick.privileged import scsi as verbs
from os_brick.testing import FakeHost, pages

DISK = Disk("sda", Hctl(1, 0, 0, 1), 4711)
WWID = "36001405aabbccdd0011223344556677a"
STANDARD = bytes(8) + b"ACME    " + b"Disk 1          " + b"0001"
IDENTIFICATION = pages.page83(WWID, vendor="ACME", serial="X1", port=1, target_name="t")
GOOD, CHECK_CONDITION, BUSY = 0, 2, 8


@dataclasses.dataclass
class Answer:
    """What a disk answers to an INQUIRY."""

    page: bytes = b""
    status: int = GOOD
    host_status: int = 0
    sense: bytes = b""


def checked(key: int, code: int) -> Answer:
    """Return a failure with sense data in descriptor format."""
    return Answer(status=CHECK_CONDITION, sense=bytes((0x72, key, code, 0)))


NO_SUCH_PAGE = checked(0x05, 0x24)
NO_SUCH_LUN = checked(0x05, 0x25)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[int, Answer]:
    """Answers by page; what is not here the disk does not have."""
    given: dict[int, Answer] = {-1: Answer(STANDARD)}

    def inquire(name: str, hctl: str, instance: int, page: int, limit_s: float) -> dict[str, Any]:
        assert (name, hctl, instance) == ("sda", "1:0:0:1", 4711)
        return dataclasses.asdict(given.get(page, NO_SUCH_PAGE))

    monkeypatch.setattr(verbs, "inquire", inquire)
    return given


@pytest.fixture
def call(fake_host: FakeHost) -> Call:
    return Call("test", fake_host.host.clock, 60)


def test_a_disk_says_who_it_is(answers: dict[int, Answer], call: Call) -> None:
    answers[0x83] = Answer(IDENTIFICATION)
    said = PrivilegedChanges().inquire(call, DISK)
    assert said is not None
    assert said.wwid == WWID


def test_a_disk_with_a_serial_number_only_says_that(answers: dict[int, Answer], call: Call) -> None:
    answers[0x80] = Answer(pages.page80("X1"))
    said = PrivilegedChanges().inquire(call, DISK)
    assert said == parse_serial("ACME", "Disk 1", pages.page80("X1")) != Identity()


def test_a_disk_without_any_page_says_that_it_is_there(
    answers: dict[int, Answer], call: Call
) -> None:
    assert PrivilegedChanges().inquire(call, DISK) == Identity()


@pytest.mark.parametrize("page", [-1, 0x80, 0x83])
@pytest.mark.parametrize(
    "gone", [NO_SUCH_LUN, Answer(bytes((0x7F,)) + bytes(35)), Answer(bytes((0x20,)) + bytes(35))]
)
def test_a_lun_that_is_gone_is_none(
    answers: dict[int, Answer], call: Call, page: int, gone: Answer
) -> None:
    answers[page] = gone
    assert PrivilegedChanges().inquire(call, DISK) is None


@pytest.mark.parametrize("page", [-1, 0x80, 0x83])
@pytest.mark.parametrize(
    "trouble",
    [Answer(status=BUSY), checked(0x0B, 0), checked(0x02, 4), Answer(host_status=1)],
    ids=["busy", "aborted", "not-ready", "no-path"],
)
def test_an_error_of_the_moment_is_no_answer(
    answers: dict[int, Answer], call: Call, page: int, trouble: Answer
) -> None:
    answers[page] = trouble
    with pytest.raises(OSError, match="does not"):
        PrivilegedChanges().inquire(call, DISK)
