# SPDX-License-Identifier: Apache-2.0
"""Connection properties of Fibre Channel volumes as values (FC-1, FC-2)."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from os_brick import exception
from os_brick.initiator.linux import zfcp
from os_brick.initiator.linux.fc_volume import FcTarget, FcVolume

A, B, C = "20210002ac00383d", "20220002ac00383d", "20230002ac00383d"
ONE, TWO = "100010604b010459", "100010604b01045d"
WWPNS = st.integers(0, 2**64 - 1).map(lambda number: f"{number:016x}")


def parsed(**properties: Any) -> list[tuple[str, int]]:
    return [(target.wwpn, target.lun) for target in FcVolume.parse(properties).targets]


# -- ports and LUNs --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("properties", "targets"),
    [
        ({"target_wwn": A, "target_lun": 1}, [(A, 1)]),
        ({"target_wwn": [A, B], "target_lun": 1}, [(A, 1), (B, 1)]),
        ({"target_wwn": (A, B), "target_lun": 0}, [(A, 0), (B, 0)]),
        ({"target_wwns": [A, B], "target_luns": [1, 2]}, [(A, 1), (B, 2)]),
        ({"target_wwns": [A], "target_wwn": B, "target_lun": 1}, [(A, 1)]),
        ({"target_wwn": [A, B], "target_luns": [5], "target_lun": 1}, [(A, 5), (B, 5)]),
        ({"target_wwns": [], "target_wwn": B, "target_lun": 1}, [(B, 1)]),
        ({"target_wwns": None, "target_wwn": B, "target_luns": None, "target_lun": 1}, [(B, 1)]),
        ({"target_wwn": A.upper(), "target_lun": 1}, [(A, 1)]),
        ({"target_wwn": f"0x{A}", "target_lun": 1}, [(A, 1)]),
        (
            {"target_wwn": ":".join(A[at : at + 2] for at in range(0, 16, 2)), "target_lun": 1},
            [(A, 1)],
        ),
        ({"target_wwn": [A, A.upper()], "target_lun": 1}, [(A, 1)]),
        ({"target_wwn": A, "target_lun": "7"}, [(A, 7)]),
        ({"target_wwns": [A, B], "target_luns": ["1", 2]}, [(A, 1), (B, 2)]),
        ({"target_wwn": A, "target_lun": 256, "addressing_mode": "SAM2"}, [(A, 16640)]),
        ({"target_wwn": A, "target_lun": 1, "addressing_mode": "SAM3-flat"}, [(A, 16385)]),
    ],
)
def test_ports_and_luns_in_every_form(
    properties: dict[str, Any], targets: list[tuple[str, int]]
) -> None:
    assert parsed(**properties) == targets


@pytest.mark.parametrize(
    "properties",
    [
        {"target_lun": 1},
        {"target_wwn": [], "target_lun": 1},
        {"target_wwn": None, "target_lun": 1},
        {"target_wwn": {"a": 1}, "target_lun": 1},
        {"target_wwn": 17, "target_lun": 1},
        {"target_wwn": A},
        {"target_wwn": A, "target_lun": None},
        {"target_wwn": A, "target_lun": {}},
        {"target_wwns": [A, B, C], "target_luns": [1, 2]},
        {"target_wwns": [A], "target_luns": [1, 2]},
    ],
)
def test_ports_and_luns_that_are_missing_or_do_not_agree(properties: dict[str, Any]) -> None:
    with pytest.raises(exception.VolumePathsNotFound) as caught:
        FcVolume.parse(properties)
    assert str(caught.value).startswith(
        "Unable to find potential volume paths for FC device with luns: "
    )


@pytest.mark.parametrize(
    ("properties", "key"),
    [
        ({"target_wwn": "not a name", "target_lun": 1}, "target_wwn"),
        ({"target_wwn": A[:-1], "target_lun": 1}, "target_wwn"),
        ({"target_wwns": [A, f"{A}; rm -rf"], "target_lun": 1}, "target_wwns"),
        ({"target_wwns": [A, 3], "target_lun": 1}, "target_wwns"),
        ({"target_wwn": A, "target_lun": -1}, "target_lun"),
        ({"target_wwn": A, "target_lun": "one"}, "target_lun"),
        ({"target_wwn": A, "target_lun": True}, "target_lun"),
        ({"target_wwns": [A, B], "target_luns": [1, "x"]}, "target_luns"),
        ({"target_wwn": A, "target_lun": 20000, "addressing_mode": "SAM2"}, "target_lun"),
        ({"target_wwn": A, "target_lun": 1, "addressing_mode": "odd"}, "addressing_mode"),
        ({"target_wwn": A, "target_lun": 1, "initiator_target_map": [A]}, "initiator_target_map"),
        (
            {"target_wwn": A, "target_lun": 1, "initiator_target_map": {ONE: 5}},
            "initiator_target_map",
        ),
        (
            {"target_wwn": A, "target_lun": 1, "initiator_target_map": {ONE: 0}},
            "initiator_target_map",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_by_key(properties: dict[str, Any], key: str) -> None:
    with pytest.raises(exception.InvalidParameterValue) as caught:
        FcVolume.parse(properties)
    assert key in str(caught.value)


@given(st.lists(WWPNS, min_size=1, max_size=8, unique=True), st.integers(0, 2**32))
def test_letter_case_and_the_kind_of_number_make_no_difference(wwpns: list[str], lun: int) -> None:
    plain = FcVolume.parse({"target_wwn": wwpns, "target_lun": lun})
    other = {"target_wwn": [wwpn.upper() for wwpn in wwpns], "target_lun": str(lun)}
    assert FcVolume.parse(other) == plain
    assert [target.wwpn for target in plain.targets] == wwpns


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20) | WWPNS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=6,
    ),
    st.sampled_from(
        ["target_wwn", "target_wwns", "target_lun", "target_luns", "initiator_target_map"]
    ),
)
def test_no_value_does_worse_than_be_refused(value: Any, key: str) -> None:
    properties = {"target_wwn": [A, B], "target_lun": 1, key: value}
    before = copy.deepcopy(properties)
    try:
        FcVolume.parse(properties)
    except (exception.InvalidParameterValue, exception.VolumePathsNotFound):
        pass
    assert properties == before


# -- the map of initiators -------------------------------------------------------------------
def with_map(given_map: Any) -> FcVolume:
    return FcVolume.parse(
        {"target_wwns": [A, B], "target_luns": [1, 2], "initiator_target_map": given_map}
    )


@pytest.mark.parametrize("nothing", [None, {}])
def test_no_map_means_that_each_port_is_meant_for_all(nothing: Any) -> None:
    volume = with_map(nothing)
    assert volume.is_meant_for(ONE)
    assert volume.targets_by(ONE) == volume.targets


def test_a_map_tells_each_port_its_targets_and_their_luns() -> None:
    volume = with_map({ONE.upper(): [A.upper()], TWO: [B, A]})
    assert volume.targets_by(ONE) == (FcTarget(A, 1),)
    assert volume.targets_by(TWO) == (FcTarget(B, 2), FcTarget(A, 1))
    assert not volume.is_meant_for("ffffffffffffffff")
    assert volume.targets_by("ffffffffffffffff") == ()


def test_a_target_of_the_map_that_is_no_port_of_the_volume_is_left_out_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    volume = with_map({ONE: [A, C]})
    assert volume.targets_by(ONE) == (FcTarget(A, 1),)
    assert C in caplog.text


def test_a_name_in_the_map_that_is_none_is_left_out_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    volume = with_map({"iqn.2010-10.org.example:host": [A], ONE: A})
    assert volume.targets_by(ONE) == (FcTarget(A, 1),)
    assert "iqn.2010-10.org.example:host" in caplog.text


# -- IBM Z -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("lun", "number", "on_the_wire"),
    [
        (0, 0, "0x0000000000000000"),
        (1, 1, "0x0001000000000000"),
        (255, 255, "0x00ff000000000000"),
        (0x4001, 0x4001, "0x4001000000000000"),
        (0xFFFF, 0xFFFF, "0xffff000000000000"),
        (0x40104032, 0x40324010, "0x4010403200000000"),
    ],
)
def test_luns_of_ibm_z(lun: int, number: int, on_the_wire: str) -> None:
    properties = {"target_wwn": A, "target_lun": lun}
    assert FcVolume.parse(properties, zfcp.kernel_lun).targets == (FcTarget(A, number),)
    assert zfcp.fcp_lun(number) == on_the_wire


def test_a_lun_of_ibm_z_that_is_too_large_is_refused() -> None:
    with pytest.raises(exception.InvalidParameterValue, match="target_lun"):
        FcVolume.parse({"target_wwn": A, "target_lun": 0x100000000}, zfcp.kernel_lun)


@given(st.integers(0, 2**64 - 1))
def test_a_lun_on_the_wire_is_the_number_in_levels_of_16_bits(number: int) -> None:
    text = zfcp.fcp_lun(number)
    levels = [int(text[at : at + 4], 16) for at in range(2, 18, 4)]
    assert sum(level << 16 * place for place, level in enumerate(levels)) == number
