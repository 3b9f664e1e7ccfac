# SPDX-License-Identifier: Apache-2.0
"""Sizes in LVM's texts."""

from __future__ import annotations

from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from os_brick import exception
from os_brick.local_dev import lvm_sizes

GIB, TIB = lvm_sizes.GIB, lvm_sizes.TIB


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4194304", 4 << 20),
        ("4194304B", 4 << 20),
        (" 1.50g ", GIB * 3 // 2),
        ("<1.00g", GIB),
        ("1.00t", TIB),
        ("2s", 1024),
        ("", None),
        ("0", 0),
        ("-1", None),
        ("ten", None),
    ],
)
def test_fields_of_reports(text: str, size: int | None) -> None:
    assert lvm_sizes.parse_bytes(text) == size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("10g", 10 * GIB),
        ("10G", 10 * 1000**3),
        ("1.5t", TIB * 3 // 2),
        ("512", 512 << 20),
        ("512m", 512 << 20),
        ("+1g", 3 * GIB),
        ("1b", 1),
    ],
)
def test_sizes_that_callers_ask_for(text: str, size: int) -> None:
    assert lvm_sizes.requested_bytes(text, 2 * GIB) == size


@given(st.text() | st.integers() | st.none())
def test_nothing_but_sizes_gets_through(text: object) -> None:
    try:
        size = lvm_sizes.requested_bytes(text)  # type: ignore[arg-type]
    except exception.InvalidParameterValue:
        return
    assert size >= 0
    assert isinstance(text, str)
    assert text[:1] != "-"


@given(st.integers(min_value=0, max_value=1 << 80))
def test_text_in_gib_is_exact(size: int) -> None:
    text = lvm_sizes.gib_text(size)

    with localcontext() as context:
        context.prec = 100
        assert Decimal(text) * GIB == size
    whole, _dot, fraction = text.partition(".")
    assert whole.isdecimal()
    assert len(fraction) >= 2
    assert lvm_sizes.parse_bytes(f"{text}g") == size
    assert lvm_sizes.gib(size) == size / GIB


@pytest.mark.parametrize(
    ("size", "region"),
    [
        (TIB * 9 // 10, None),
        (TIB * 3 // 2 - 1, None),
        (TIB * 3 // 2, 2),
        (2 * TIB, 2),
        (2 * TIB + 1, 4),
        (4 * TIB, 4),
        (5 * TIB, 8),
    ],
)
def test_region_of_a_mirror_s_log(size: int, region: int | None) -> None:
    assert lvm_sizes.mirror_region(size) == region
