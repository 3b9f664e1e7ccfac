# SPDX-License-Identifier: Apache-2.0
"""From turns to figures to verdicts: what the bench says of what it measured."""

from typing import Any

import pytest

from os_brick.tests.functional.bench import cases, figures, verdicts


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


def test_every_bound_is_of_a_case() -> None:
    assert {bound.key.case for bound in verdicts.bounds()} <= set(cases.choose([]))


def test_a_case_is_chosen_by_name_or_pattern_in_the_usual_order() -> None:
    assert cases.choose(["two-paths", "single"]) == ["single", "two-paths"]
    assert cases.choose(["*-16"]) == ["single-16", "two-paths-16", "nvme-16"]
    with pytest.raises(ValueError, match="nonsense"):
        cases.choose(["nonsense"])
