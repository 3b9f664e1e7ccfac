# SPDX-License-Identifier: Apache-2.0
"""Nothing that hangs in the lab's machine may hang its run."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import time

import pytest

from os_brick.tests.functional import run, scenarios
from os_brick.tests.functional.guest import kernel
from os_brick.tests.functional.machine import channel


def test_a_scenario_of_the_smoke_set_leaves_time_for_the_others() -> None:
    smoke = scenarios.choose(scenarios.load_all(), ["smoke"])

    assert {each.limit_s for each in smoke} == {scenarios.SMOKE_S}


def test_a_job_that_counts_is_alive(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = _clock(monkeypatch)
    file = tmp_path / "heartbeat"
    heart = channel.Heart(file, 180)
    for count in range(5):
        now[0] += 170
        file.write_text(str(count))
        assert not heart.stands_still()


def test_a_job_that_counted_and_stops_stands_still(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = _clock(monkeypatch)
    file = tmp_path / "heartbeat"
    heart = channel.Heart(file, 180)
    file.write_text("1")
    assert not heart.stands_still()
    now[0] += 179
    assert not heart.stands_still()
    now[0] += 2
    assert heart.stands_still()


def test_what_an_earlier_job_counted_is_not_this_ones(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = _clock(monkeypatch)
    file = tmp_path / "heartbeat"
    file.write_text("77")
    heart = channel.Heart(file, 180)
    now[0] += 181
    assert heart.stands_still()


def test_a_program_that_hangs_is_not_waited_for() -> None:
    with pytest.raises(kernel.NotSeen, match="did not end within"):
        kernel.run(sys.executable, "-c", "import time; time.sleep(600)", limit_s=0.2)


def test_a_program_that_fails_says_why() -> None:
    with pytest.raises(AssertionError, match="ended with 3: out\\nerr"):
        kernel.run("sh", "-c", "echo out; echo err >&2; exit 3")


def test_the_scenario_in_which_the_run_hung_or_the_machine_died_has_failed() -> None:
    saved = {"passed": ["one"], "failed": [], "running": "two", "remaining": ["three"]}
    summary = run.resumed(saved, frozen=False)
    assert (summary.failed, summary.remaining, summary.running) == (["two"], ["three"], "")


def test_the_scenario_in_which_the_machine_froze_is_run_again_once() -> None:
    saved = {"passed": ["one"], "failed": [], "running": "two", "remaining": ["three"]}
    summary = run.resumed(saved, frozen=True)
    assert (summary.failed, summary.remaining) == ([], ["two", "three"])
    assert summary.repeated == ["two"]
    again = {**dataclasses.asdict(summary), "running": "two", "remaining": ["three"]}
    summary = run.resumed(again, frozen=True)
    assert (summary.failed, summary.remaining) == (["two"], ["three"])


def test_a_machine_that_froze_between_two_scenarios_goes_on_with_the_rest() -> None:
    saved = {"passed": ["one"], "failed": [], "running": "", "remaining": ["two"]}
    summary = run.resumed(saved, frozen=True)
    assert (summary.failed, summary.remaining, summary.repeated) == ([], ["two"], [])


def _clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now
