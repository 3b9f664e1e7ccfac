# SPDX-License-Identifier: Apache-2.0
"""From turns to figures to verdicts: what the bench says of what it measured."""

import threading
from typing import Any

import pytest

from os_brick.tests.functional.bench import cases, fc_minimum, figures, steps, verdicts


def turn(contender: str, attach: float, detach: float = 1.0, **more: Any) -> dict[str, Any]:
    def deed(seconds: float) -> dict[str, Any]:
        return {"seconds": seconds, "slept": 0.5, "programs": ["a", "b", "c"]}

    usual = {"contender": contender, "round": 1, "others": 0, "trouble": "", "leftovers": []}
    return usual | {"attach": deed(attach), "detach": deed(detach)} | more


def document(case: str, *turns: dict[str, Any]) -> dict[str, Any]:
    return {"case": case, "turns": list(turns)}


def judged(*documents: dict[str, Any]) -> dict[str, verdicts.Verdict]:
    return {each.bound.text: each for each in verdicts.judge(figures.read(documents))}


def test_a_figure_is_the_median_and_the_most_programs() -> None:
    many = turn("ours", 9.0)
    many["attach"]["programs"] = ["x"] * 5
    found = figures.read([document("single", turn("ours", 1.0), turn("ours", 2.0), many)])
    assert found[figures.Key("single", 0, "attach", "ours")] == figures.Figure(2.0, 0.5, 5, 3)


@pytest.mark.parametrize(("seconds", "holds"), [(1.5, True), (1.51, False)])
def test_a_bound_on_a_ratio_holds_up_to_its_limit(seconds: float, holds: bool) -> None:
    found = judged(document("single", turn("minimum", 1.0), turn("ours", seconds)))
    assert found["single: attach, ours / minimum"].holds is holds


def test_a_bound_that_was_not_measured_neither_holds_nor_is_missed() -> None:
    found = judged(document("single", turn("ours", 1.0)))
    verdict = found["single: attach, ours / minimum"]
    assert verdict.holds is None
    assert "not measured" in str(verdict)


@pytest.mark.parametrize(("programs", "holds"), [(4, True), (5, False)])
def test_programs_are_counted(programs: int, holds: bool) -> None:
    one = turn("ours", 1.0)
    one["attach"]["programs"] = ["x"] * programs
    assert judged(document("single", one))["single: attach, programs started"].holds is holds


def test_growth_compares_with_and_without_others() -> None:
    found = judged(
        document("two-paths-among-200", turn("ours", 1.0), turn("ours", 1.3, others=200))
    )
    assert found["two-paths-among-200: attach, growth from 0 to 200"].value == pytest.approx(1.3)
    assert found["two-paths-among-200: detach, growth from 0 to 200"].holds


def test_a_verdict_tells_what_the_machine_allows_by_hand() -> None:
    many = document("single-16", turn("minimum", 4.0), turn("ours", 5.0), turn("peer", 10.0))
    verdict = judged(many)["single-16: attach, ours / peer"]
    assert verdict.holds is False
    assert verdict.by_hand == pytest.approx(0.4)
    assert str(verdict).endswith("at most 0.25: 0.5 (by hand 0.4)")
    grown = document(
        "single-among-200",
        turn("minimum", 2.0),
        turn("ours", 1.0),
        turn("minimum", 3.0, others=200),
        turn("ours", 1.7, others=200),
    )
    verdict = judged(grown)["single-among-200: attach, growth from 0 to 200"]
    assert verdict.value == pytest.approx(1.7)
    assert verdict.by_hand == pytest.approx(1.5)
    against = judged(document("single", turn("minimum", 1.0), turn("ours", 1.0)))
    assert against["single: attach, ours / minimum"].by_hand is None
    assert against["single: attach, programs started"].by_hand is None


def test_a_failed_turn_gives_no_figure_but_is_told() -> None:
    failed = turn("peer", 1.0) | {"trouble": "Failed: attach\nValueError: no"}
    del failed["attach"], failed["detach"]
    documents = [document("single", failed)]
    assert figures.read(documents) == {}
    assert figures.troubles(documents) == ["single, round 1, peer: ValueError: no"]


def test_leftovers_are_told_and_the_figures_count() -> None:
    documents = [document("single", turn("peer", 1.0, leftovers=["disk sda"]))]
    assert len(figures.read(documents)) == 2
    assert figures.troubles(documents) == ["single, round 1, peer: disk sda"]


def test_the_table_has_a_line_for_each_deed_of_a_case() -> None:
    lines = verdicts.table(
        figures.read(
            [document("single", turn("minimum", 1.0), turn("ours", 1.25), turn("peer", 5.0))]
        )
    )
    assert lines[2].split() == ["single", "attach", "1.00", "1.25", "5.00", "1.25", "0.25"] + (
        ["3"] * 3 + ["0.50"] * 3 + ["1"]
    )
    assert lines[3].startswith("single detach")
    assert len(lines) == 4


def test_bounds_of_fibre_channel() -> None:
    single = document(
        "fc-single",
        turn("minimum", 1.0, 1.0),
        turn("ours", 1.4, 1.6),
        turn("peer", 2.0, 0.1),
    )
    eight = document("fc-8", turn("ours", 3.0, 3.5), turn("peer", 9.0, 9.0))
    found = {text: each for text, each in judged(single, eight).items() if text.startswith("fc-")}
    assert {text: each.holds for text, each in found.items() if "two-paths" not in text} == {
        "fc-single: attach, ours / minimum": True,
        "fc-single: attach, ours / peer": True,
        "fc-single: detach, ours / minimum": False,
        "fc-8: attach, ours / peer": True,
        "fc-8: detach, ours / peer": False,
    }


def test_every_bound_is_of_a_case() -> None:
    assert {bound.key.case for bound in verdicts.bounds()} <= set(cases.choose([]))


def test_a_case_is_chosen_by_name_or_pattern_in_the_usual_order() -> None:
    assert cases.choose(["two-paths", "single"]) == ["single", "two-paths"]
    assert cases.choose(["*-16"]) == ["single-16", "two-paths-16", "nvme-16"]
    with pytest.raises(ValueError, match="nonsense"):
        cases.choose(["nonsense"])


def test_ways_of_fibre_channel_are_those_of_the_zones_in_the_kernels_letters() -> None:
    properties = {
        "target_wwn": ["50AA", "50BB", "50CC"],
        "initiator_target_map": {"20AA": ["50AA", "50BB"], "20BB": ["50BB"]},
    }
    expected = [("20aa", "50aa"), ("20aa", "50bb"), ("20bb", "50bb")]
    assert fc_minimum.ways_of(properties) == expected


@pytest.mark.parametrize(
    ("port", "target_id", "lun", "expected"),
    [("rport-2:0-3", "1", 7, "2:0:1:7"), ("rport-12:1-10", "0", 300, "12:1:0:300")],
)
def test_a_remote_ports_name_has_host_and_channel(
    port: str, target_id: str, lun: int, expected: str
) -> None:
    assert fc_minimum.address_of(port, target_id, lun) == expected


def test_steps_side_by_side_run_at_once_and_answer_in_order() -> None:
    meeting = threading.Barrier(3)

    def meet(number: int) -> int:
        meeting.wait(30)
        return number * 10

    assert steps.side_by_side(meet, [3, 1, 2]) == [30, 10, 20]
    assert steps.side_by_side(meet, []) == []


def test_a_failure_side_by_side_is_raised_when_all_have_ended() -> None:
    done = []

    def deed(name: str) -> None:
        if name == "bad":
            raise ValueError(name)
        done.append(name)

    with pytest.raises(ValueError, match="bad"):
        steps.side_by_side(deed, ["one", "bad", "two"])
    assert sorted(done) == ["one", "two"]
