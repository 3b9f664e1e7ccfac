# SPDX-License-Identifier: Apache-2.0
"""LVM of a fake host answers as LVM 2.03.16 does."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from os_brick.testing import FakeHost
from os_brick.testing.lvm import GIB
from os_brick.tests.unit.testing.helpers import run

REAL = pathlib.Path(__file__).parent.parent / "local_dev" / "data"
REPORT = ("--reportformat", "json", "--units", "b", "--nosuffix", "-o")
COLUMNS = "vg_name,lv_name,lv_size,lv_attr,origin,pool_lv,lv_time,data_percent"


def rows(text: str) -> list[dict[str, Any]]:
    (found,) = json.loads(text)["report"][0].values()
    return list(found)


def fails(host: FakeHost, *words: str) -> tuple[int | None, str]:
    code, _out, err = run(host, " ".join(words))
    assert code != 0
    return code, err


@pytest.fixture
def demo(fake_host: FakeHost) -> FakeHost:
    """The group that the recorded reports are of, as far as it matters."""
    fake_host.lvm.group("demo", GIB, GIB)
    for words in (
        "lvcreate -n thick -L 64m demo",
        "lvcreate -k y --name snap --snapshot demo/thick -L 64m",
        "lvcreate -T -l 100%FREE demo/pool",
        "lvcreate -T -V 1g -n thin demo/pool",
        "lvcreate --name tsnap -k y --snapshot demo/thin",
    ):
        fake_host.execute(*words.split())
    fake_host.lvm.deactivate(fake_host.lvm.groups[0].volumes["tsnap"])
    return fake_host


@pytest.mark.parametrize("readonly", [True, False])
def test_volumes_are_reported_as_by_the_real_one(demo: FakeHost, readonly: bool) -> None:
    name = "lvs-2.03.16_readonly.txt" if readonly else "lvs-2.03.16.txt"
    words = ["--readonly"] if readonly else []
    out, err = demo.execute("env", "LC_ALL=C", "lvs", *REPORT, COLUMNS, *words, "demo")

    def facts(text: str) -> dict[str, tuple[str, ...]]:
        return {
            row["lv_name"]: (row["lv_attr"][0], row["origin"], row["pool_lv"], row["data_percent"])
            for row in rows(text)
        }

    assert facts(out) == facts((REAL / name).read_text())
    assert err == ""
    indents = [line[: len(line) - len(line.lstrip())] for line in out.splitlines()]
    assert indents[:4] == ["  ", " " * 6, " " * 10, " " * 14]


def test_what_is_selected(demo: FakeHost) -> None:
    select = ("-S", 'lv_name="thick" || lv_name="nothing"')
    out, _err = demo.execute("lvs", *REPORT, COLUMNS, *select, "demo")
    none, _err = demo.execute("vgs", *REPORT, "vg_name", "-S", 'vg_name="nothing"')

    assert [row["lv_name"] for row in rows(out)] == ["thick"]
    assert rows(none) == rows((REAL / "vgs-2.03.16_none.txt").read_text()) == []


def test_errors(demo: FakeHost) -> None:
    assert fails(demo, "vgs", *REPORT, "vg_name", "nothing") == (
        5,
        '  Volume group "nothing" not found\n  Cannot process volume group nothing\n',
    )
    assert fails(demo, "lvremove", "-f", "demo/nothing") == (
        5,
        '  Failed to find logical volume "demo/nothing"\n',
    )
    assert fails(demo, "lvchange", "-a", "y", "--yes", "-K", "-k", "n", "demo/thick") == (
        3,
        "  Command does not accept option: --ignoreactivationskip.\n",
    )
    code, said = fails(demo, "lvextend", "-L", "1g", "demo/thick")
    assert (code, "only while inactive" in said) == (5, True)
    code, said = fails(demo, "lvcreate", "-n", "snapshot1", "demo", "-L", "4m")
    assert (code, "reserved" in said) == (3, True)


def test_active_volumes_are_mappings(demo: FakeHost) -> None:
    names = {mapping.dm_name for mapping in demo.mapper.all()}
    assert names == {"demo-thick", "demo-snap", "demo-pool", "demo-thin"}

    demo.execute("lvchange", "-a", "n", "demo/thick")
    assert {mapping.dm_name for mapping in demo.mapper.all()} == {"demo-pool", "demo-thin"}
    demo.execute("lvchange", "-a", "y", "--yes", "-K", "demo/thick")
    assert "demo-snap" in {mapping.dm_name for mapping in demo.mapper.all()}


def test_an_old_signature_is_asked_about(demo: FakeHost) -> None:
    fresh = demo.lvm.group("fresh")
    fresh.old_signature = True

    code, said = fails(demo, "lvcreate", "-n", "a", "fresh", "-L", "64m")
    assert (code, "Failed to wipe signatures" in said) == (5, True)
    demo.execute("lvcreate", "-n", "a", "fresh", "-L", "64m", process_input="y\n")
    demo.execute("lvcreate", "-n", "b", "fresh", "-L", "64m")


@pytest.mark.parametrize(
    "words",
    [
        "lvs --all",
        "lvcreate --type raid5 -n a demo -L 4m",
        "vgs -o vg_name",
        "lvchange --resync demo/thick",
        "udevadm trigger",
    ],
)
def test_what_is_not_modelled_says_so(demo: FakeHost, words: str) -> None:
    with pytest.raises(AssertionError, match="this fake"):
        demo.execute(*words.split())
    demo.forgive()
