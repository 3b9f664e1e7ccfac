# SPDX-License-Identifier: Apache-2.0
"""The bounds that hold for this library's cost, and whether figures keep them (pure)."""

from __future__ import annotations

import dataclasses

from .cases import IMPORT, MINIMUM, OTHERS, OURS, PEER
from .figures import Figure, Figures, Key

_DEEDS = ("attach", "detach")


@dataclasses.dataclass(frozen=True)
class Bound:
    """One figure in proportion to another, or a number of programs (then ``base`` is None)."""

    text: str
    key: Key
    base: Key | None
    limit: float


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a bound holds; None: it was not measured.

    ``by_hand`` is the same figure of the minimum: what the machine allows at all.
    """

    bound: Bound
    value: float | None
    by_hand: float | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the bound holds."""
        return None if self.value is None else self.value <= self.bound.limit

    def __str__(self) -> str:
        mark = {True: "ok    ", False: "MISSED", None: "-     "}[self.holds]
        value = "not measured" if self.value is None else f"{self.value:.3g}"
        text = f"{mark} {self.bound.text}, at most {self.bound.limit:g}: {value}"
        return text if self.by_hand is None else f"{text} (by hand {self.by_hand:.3g})"


def bounds() -> list[Bound]:
    """Return all bounds."""
    found = []
    for case, of_peer in (("single", 0.4), ("two-paths", 0.8)):
        found += [_ratio(case, do, MINIMUM, 1.5) for do in _DEEDS]
        found += [_ratio(case, do, PEER, of_peer) for do in _DEEDS]
    for case in ("single-16", "two-paths-16"):
        found += [_ratio(case, do, PEER, 0.25) for do in _DEEDS]
    found.append(_ratio("silent-portal", "attach", PEER, 0.1))
    for case in (f"single-among-{OTHERS}", f"two-paths-among-{OTHERS}"):
        for do in _DEEDS:
            key, base = Key(case, OTHERS, do, OURS), Key(case, 0, do, OURS)
            found.append(Bound(f"{case}: {do}, growth from 0 to {OTHERS}", key, base, 1.2))
    found += _programs("single", attach=4, detach=3)
    found += _programs("two-paths", attach=2 * 4 + 2, detach=2 * 3 + 2)
    found += [_ratio("nvme", do, MINIMUM, 1.3) for do in _DEEDS]
    found += [_ratio("nvme", do, PEER, 1) for do in _DEEDS]
    found += [_ratio("nvme-16", do, PEER, 0.25) for do in _DEEDS]
    found.append(_ratio("nvme-silent-portal", "attach", PEER, 1 / 3))
    found.append(_ratio("nvme-extend", "extend", PEER, 0.1))
    found += _programs("nvme", attach=2, detach=1)
    for case in ("fc-single", "fc-two-paths"):
        found += [_ratio(case, do, MINIMUM, 1.5) for do in _DEEDS]
        # The peer's detach neither waits nor looks: nothing to be compared with.
        found.append(_ratio(case, "attach", PEER, 0.7))
    for case in ("fc-8", "fc-two-paths-8"):
        found += [_ratio(case, do, PEER, 1 / 3) for do in _DEEDS]
    found.append(_ratio(IMPORT, "import", PEER, 0.5))
    return found


def judge(figures: Figures) -> list[Verdict]:
    """Return the verdict on each bound."""
    return [Verdict(bound, _value(bound, figures), _by_hand(bound, figures)) for bound in bounds()]


def table(figures: Figures) -> list[str]:
    """Return the figures as lines: seconds, ratios, programs and time asleep."""
    lines = [
        f"{'':34}{'seconds':^26}{'ours':^16}{'programs':^16}{'asleep, s':^22}{'rounds':>6}",
        f"{'':34}{'minimum':>9}{'ours':>8}{'peer':>9}{'/minimum':>9}{'/peer':>7}"
        f"{'min':>5}{'ours':>5}{'peer':>6}{'min':>8}{'ours':>7}{'peer':>7}",
    ]
    rows = dict.fromkeys((key.case, key.others, key.do) for key in figures)
    return lines + [_row(figures, *row) for row in rows]


def _ratio(case: str, do: str, other: str, limit: float) -> Bound:
    key, base = Key(case, 0, do, OURS), Key(case, 0, do, other)
    return Bound(f"{case}: {do}, ours / {other}", key, base, limit)


def _programs(case: str, **limits: int) -> list[Bound]:
    return [
        Bound(f"{case}: {do}, programs started", Key(case, 0, do, OURS), None, limit)
        for do, limit in limits.items()
    ]


def _value(bound: Bound, figures: Figures) -> float | None:
    figure = figures.get(bound.key)
    if figure is None:
        return None
    if bound.base is None:
        return figure.programs
    base = figures.get(bound.base)
    return None if base is None else figure.seconds / base.seconds


def _by_hand(bound: Bound, figures: Figures) -> float | None:
    """Return a bound's figure with the minimum in this library's place; None where that says
    nothing."""
    if bound.base is None or bound.base.contender == MINIMUM:
        return None
    key = dataclasses.replace(bound.key, contender=MINIMUM)
    base = bound.base
    if base.contender == OURS:
        base = dataclasses.replace(base, contender=MINIMUM)
    return _value(dataclasses.replace(bound, key=key, base=base), figures)


def _row(figures: Figures, case: str, others: int, do: str) -> str:
    minimum, ours, peer = (
        figures.get(Key(case, others, do, contender)) for contender in (MINIMUM, OURS, PEER)
    )
    name = f"{case} {do}" + (f" ({others})" if "among" in case else "")
    every = (minimum, ours, peer)
    rounds = max(each.rounds for each in every if each)
    return (
        f"{name:34}"
        + "".join(f"{_seconds(each):>{w}}" for each, w in zip(every, (9, 8, 9), strict=True))
        + f"{_proportion(ours, minimum):>9}{_proportion(ours, peer):>7}"
        + "".join(
            f"{each.programs if each else '-':>{w}}"
            for each, w in zip(every, (5, 5, 6), strict=True)
        )
        + "".join(
            f"{f'{each.slept:.2f}' if each else '-':>{w}}"
            for each, w in zip(every, (8, 7, 7), strict=True)
        )
        + f"{rounds:>7}"
    )


def _seconds(figure: Figure | None) -> str:
    return f"{figure.seconds:.2f}" if figure else "-"


def _proportion(figure: Figure | None, base: Figure | None) -> str:
    return f"{figure.seconds / base.seconds:.2f}" if figure and base else "-"
