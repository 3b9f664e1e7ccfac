# SPDX-License-Identifier: Apache-2.0
"""Identities from INQUIRY pages, and what they say of two devices."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from os_brick.initiator.linux.identity import (
    Identity,
    from_udev,
    join,
    normal_form,
    parse_page83,
    parse_serial,
)

BINARY, ASCII, UTF8 = 1, 2, 3
T10, EUI64, NAA, NAME = 1, 2, 3, 8
LOGICAL_UNIT, TARGET_PORT = 0, 1

NAA6 = bytes.fromhex("6001405abcdef0123456789abcdef012")
NAA5 = bytes.fromhex("5001405000000001")


def designator(
    kind: int, value: bytes, code_set: int = BINARY, association: int = LOGICAL_UNIT
) -> bytes:
    return bytes([code_set, association << 4 | kind, 0, len(value)]) + value


def page(*designators: bytes, number: int = 0x83) -> bytes:
    content = b"".join(designators)
    return bytes([0, number]) + len(content).to_bytes(2, "big") + content


# -- page 0x83 -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (designator(NAA, NAA6), "36001405abcdef0123456789abcdef012"),
        (designator(NAA, NAA5), "35001405000000001"),
        (designator(NAA, b"6001405ABCDEF", ASCII), "36001405abcdef"),
        (designator(EUI64, bytes(range(1, 9))), "20102030405060708"),
        (designator(T10, b"LIO-ORG disk  1:2b", ASCII), "1LIO-ORG_disk_1:2b"),
        (
            designator(NAME, b"iqn.2010-10.org.example:lun1\0\0\0\0", UTF8),
            "8iqn.2010-10.org.example:lun1",
        ),
    ],
    ids=["naa-6", "naa-5", "naa-text", "eui-64", "t10", "name"],
)
def test_each_kind_has_udevs_form(one: bytes, expected: str) -> None:
    assert parse_page83(page(one)).ids == (expected,)


def test_a_device_is_called_by_its_strongest_statement() -> None:
    everything = page(
        designator(T10, b"LIO-ORG x", ASCII),
        designator(NAME, b"name", UTF8),
        designator(NAA, NAA5),
        designator(EUI64, bytes(range(8))),
        designator(NAA, NAA6),
    )
    found = parse_page83(everything)
    assert found.wwid == f"3{NAA6.hex()}"
    assert [one[0] for one in found.ids] == ["3", "3", "2", "8", "1"]


def test_what_names_the_target_port_does_not_name_the_unit() -> None:
    port = designator(NAA, NAA5, association=TARGET_PORT)
    assert parse_page83(page(port, designator(NAA, NAA6))).ids == (f"3{NAA6.hex()}",)
    assert parse_page83(page(port)) == Identity()


def test_a_designator_of_nothing_but_zeroes_or_blanks_names_nothing() -> None:
    assert parse_page83(page(designator(NAA, bytes(8)))) == Identity()
    assert parse_page83(page(designator(T10, b"    \0\0", ASCII))) == Identity()


def test_unknown_kinds_are_skipped() -> None:
    known = designator(NAA, NAA6)
    assert parse_page83(page(designator(4, b"\0\0\0\1"), known)) == parse_page83(page(known))


@pytest.mark.parametrize(
    "damaged",
    [b"", b"\0\x83", page(designator(NAA, NAA6), number=0x80), page()],
    ids=["empty", "short", "another-page", "no-designator"],
)
def test_no_page_is_no_identity(damaged: bytes) -> None:
    assert parse_page83(damaged) == Identity()
    assert parse_page83(damaged).wwid == ""
    assert str(parse_page83(damaged)) == "unknown"


@given(st.binary(max_size=300))
def test_any_bytes_can_be_read(data: bytes) -> None:
    for one in parse_page83(b"\0\x83" + data).ids:
        assert one[0] in "1238"
        assert one == normal_form(one)


@given(
    st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=5),
    st.integers(min_value=0, max_value=200),
)
def test_a_page_cut_short_says_nothing_else(values: list[bytes], length: int) -> None:
    whole = page(*(designator(NAA, value) for value in values))
    assert set(parse_page83(whole[:length]).ids) <= set(parse_page83(whole).ids)


# -- page 0x80, scsi_id ----------------------------------------------------------------------------
def test_a_serial_number_is_named_with_vendor_and_model() -> None:
    found = parse_serial("QEMU", "QEMU HARDDISK", page(b"  drive-0 ", number=0x80))
    assert found.ids == ("SQEMU_QEMU_HARDDISK_drive-0",)


@pytest.mark.parametrize("serial", [b"", page(b"", number=0x80), page(b"    ", number=0x80)])
def test_without_serial_number_there_is_no_identity(serial: bytes) -> None:
    assert parse_serial("QEMU", "HARDDISK", serial) == Identity()


def test_what_scsi_id_prints_is_an_identity() -> None:
    assert from_udev("36001405abc\n") == Identity(("36001405abc",))
    assert from_udev("\n") == Identity()


@given(st.text())
def test_the_normal_form_is_one(text: str) -> None:
    once = normal_form(text)
    assert normal_form(once) == once
    assert not any(letter.isspace() for letter in once)


# -- comparing -------------------------------------------------------------------------------------
ONE = Identity(("36001405a", "1LIO-ORG_one"))
OTHER = Identity(("36001405b", "1LIO-ORG_one"))


def test_the_strongest_kind_in_common_decides() -> None:
    assert ONE.same_as(ONE) is True
    assert ONE.same_as(OTHER) is False
    assert Identity(("1LIO-ORG_one",)).same_as(OTHER) is True


def test_nothing_in_common_is_no_answer() -> None:
    assert Identity(("36001405a",)).same_as(Identity(("8name",))) is None
    assert Identity().same_as(ONE) is None
    assert Identity().same_as(Identity()) is None


IDENTITIES = st.lists(
    st.builds(lambda kind, value: kind + value, st.sampled_from("3281S"), st.sampled_from("abc")),
    max_size=5,
).map(lambda ids: Identity(tuple(ids)))


@given(IDENTITIES, IDENTITIES)
def test_comparing_is_the_same_both_ways(one: Identity, other: Identity) -> None:
    assert one.same_as(other) == other.same_as(one)
    assert one.same_as(one) in (True, None)


def test_a_maps_wwid_is_the_devices_whichever_designator_it_is_of() -> None:
    assert ONE.is_wwid("36001405a") is True
    assert ONE.is_wwid("1LIO-ORG  one") is True
    assert ONE.is_wwid("36001405b") is False


@pytest.mark.parametrize("wwid", ["", "8name", "SVENDOR_serial", "35001405000000001"])
def test_a_wwid_of_another_kind_says_nothing(wwid: str) -> None:
    assert ONE.is_wwid(wwid) is None


def test_what_several_say_of_one_device_is_joined() -> None:
    assert join([ONE, Identity(), OTHER]).ids == ("36001405a", "1LIO-ORG_one", "36001405b")
