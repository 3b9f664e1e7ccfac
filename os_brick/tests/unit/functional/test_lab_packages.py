# SPDX-License-Identifier: Apache-2.0
"""Large packages of the lab are installed only for the scenarios that need them."""

from __future__ import annotations

import pytest

from os_brick.tests.functional import scenarios
from os_brick.tests.functional.machine import cli, prepare


@pytest.mark.parametrize(
    ("words", "protocols"),
    [
        ([], ["rbd", "nfs"]),
        (["all"], ["rbd", "nfs"]),
        (["--resume"], ["rbd", "nfs"]),
        (["*busy*"], ["rbd", "nfs"]),
        (["rbd"], ["rbd"]),
        (["iscsi_single_path", "nfs_*"], ["nfs"]),
        (["smoke"], ["rbd", "nfs"]),
        (["iscsi", "fc"], []),
    ],
)
def test_which_protocols_words_ask_for(words: list[str], protocols: list[str]) -> None:
    assert cli.protocols_of(words) == protocols


def test_only_the_smoke_set_has_scenarios_of_several_protocols_that_need_them() -> None:
    for each in scenarios.load_all():
        if each.groups & set(prepare.MORE_PACKAGES):
            assert len(each.groups - {"smoke"}) == 1, each.name
