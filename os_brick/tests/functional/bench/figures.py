# SPDX-License-Identifier: Apache-2.0
"""From what was measured, turn by turn, to one figure for each thing (pure)."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable
from typing import Any


@dataclasses.dataclass(frozen=True, order=True)
class Key:
    """What a figure is of."""

    case: str
    #: How many other LUNs were attached.
    others: int
    #: ``attach``, ``extend``, ``detach`` or ``import``.
    do: str
    contender: str


@dataclasses.dataclass(frozen=True)
class Figure:
    """Medians of the rounds that came to their end."""

    seconds: float
    #: Time asleep, in seconds, all threads together.
    slept: float
    #: Programs started: the most of all rounds.
    programs: int
    rounds: int


Figures = dict[Key, Figure]


def read(documents: Iterable[dict[str, Any]]) -> Figures:
    """Return the figures of cases' documents, as ``run`` and ``imports`` write them."""
    values: dict[Key, list[dict[str, Any]]] = {}
    for document in documents:
        for turn in document["turns"]:
            for do in ("attach", "extend", "detach", "import"):
                if do in turn:
                    key = Key(document["case"], turn["others"], do, turn["contender"])
                    values.setdefault(key, []).append(turn[do])
    return {key: _figure(measured) for key, measured in values.items()}


def troubles(documents: Iterable[dict[str, Any]]) -> list[str]:
    """Return a line for each turn that failed or left something on the host."""
    found = []
    for document in documents:
        for turn in document["turns"]:
            what = turn["trouble"].strip().splitlines()[-1:] + turn["leftovers"]
            if what:
                whose = f"{document['case']}, round {turn['round']}, {turn['contender']}"
                found.append(f"{whose}: {'; '.join(what)}")
    return found


def _figure(measured: list[dict[str, Any]]) -> Figure:
    return Figure(
        seconds=statistics.median(each["seconds"] for each in measured),
        slept=statistics.median(each["slept"] for each in measured),
        programs=max(len(each["programs"]) for each in measured),
        rounds=len(measured),
    )
