# SPDX-License-Identifier: Apache-2.0
"""NVMe as values: addresses, names, identifiers, and what tools and subsystems answer."""

from __future__ import annotations

import errno
import pathlib
import struct
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from os_brick import exception
from os_brick.initiator.linux import md, nvme, nvme_identify, nvme_namespaces
from os_brick.initiator.linux.nvme import Portal
from os_brick.initiator.linux.nvme_ids import NamespaceIds, head_of, normal_uuid
from os_brick.initiator.linux.nvme_volume import NvmeVolume
from os_brick.initiator.linux.sysfs import Tree
from os_brick.testing import FakeHost

UUID = "4941ef75-95b8-ee97-8ccf-096800f205c6"
OTHER = "9a2d9b1f-5be6-4c5a-a1ea-b9d2e6fc0bd5"
ids = st.builds(
    NamespaceIds,
    st.sampled_from(["", UUID, OTHER]),
    st.sampled_from(["", UUID, OTHER]),
    st.sampled_from([None, 1, 2]),
)


# -- addresses -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", {}),
        ("traddr=10.0.0.1,trsvcid=4420", {"traddr": "10.0.0.1", "trsvcid": "4420"}),
        (
            "traddr=10.0.0.1,trsvcid=4420,src_addr=10.0.0.9\n",
            {"traddr": "10.0.0.1", "trsvcid": "4420", "src_addr": "10.0.0.9"},
        ),
        ("traddr=nn-0x1:pn-0x2,host_traddr=nn-0x3:pn-0x4", {
            "traddr": "nn-0x1:pn-0x2", "host_traddr": "nn-0x3:pn-0x4"}),
        ("new=a=b,,odd", {"new": "a=b"}),
    ],
)  # fmt: skip
def test_addresses_are_pairs(text: str, pairs: dict[str, str]) -> None:
    assert nvme.parse_address(text) == pairs


@given(st.text(alphabet="a=,b1.:\n ", max_size=30))
def test_any_address_can_be_parsed(text: str) -> None:
    assert all(isinstance(value, str) for value in nvme.parse_address(text).values())


@pytest.mark.parametrize(("text", "seconds"), [("10", 10), ("off", None), ("", None), ("-1", -1)])
def test_delays(text: str, seconds: int | None) -> None:
    assert nvme.parse_delay(text) == seconds


@given(st.ip_addresses())
def test_an_address_in_any_spelling_is_the_same_portal(address: object) -> None:
    one = Portal.parse(str(address), 4420, "tcp")
    exploded = getattr(address, "exploded")  # noqa: B009 - of either class
    assert Portal.parse(exploded.upper(), "4420", "TCP") == one
    assert not one.is_name


@pytest.mark.parametrize(
    ("portal", "text"),
    [
        (Portal("tcp", "10.0.0.1", "4420"), "tcp 10.0.0.1:4420"),
        (Portal("rdma", "fe80::1", "4420"), "rdma [fe80::1]:4420"),
        (Portal("fc", "nn-0x1:pn-0x2", "", "nn-0x3:pn-0x4"), "fc nn-0x1:pn-0x2 from nn-0x3:pn-0x4"),
    ],
)
def test_portals_as_text(portal: Portal, text: str) -> None:
    assert str(portal) == text


@given(st.one_of(st.none(), st.integers(), st.text(max_size=20), st.binary(max_size=4)))
def test_bad_names_are_refused_cleanly(value: object) -> None:
    for parse in (nvme.parse_nqn, lambda value, key: Portal.parse(value, 4420, "tcp", key)):
        told = ""
        try:
            parse(value, "the key")
        except exception.InvalidParameterValue as exc:
            told = str(exc)
        assert not told or "the key" in told


# -- names of namespaces -------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("nvme0c1n2", "nvme0n2"),
        ("nvme12c3n10", "nvme12n10"),
        ("nvme0n10", "nvme0n10"),
        ("nvme0", "nvme0"),
        ("ng0n1", "ng0n1"),
    ],
)
def test_heads_of_hidden_paths(name: str, head: str) -> None:
    assert head_of(name) == head


@pytest.mark.parametrize(
    "text", [UUID, UUID.upper(), UUID.replace("-", ""), f" {UUID}\n", UUID.replace("-", "").upper()]
)
def test_uuids_in_one_spelling(text: str) -> None:
    assert normal_uuid(text) == UUID


def test_an_all_zero_identifier_is_none() -> None:
    assert normal_uuid("0" * 32) == ""


@pytest.mark.parametrize(
    ("wanted", "shown", "fits"),
    [
        (NamespaceIds(UUID), NamespaceIds(UUID, "", 1), True),
        (NamespaceIds(UUID), NamespaceIds(OTHER, "", 1), False),
        (NamespaceIds(UUID), NamespaceIds("", "", 1), None),
        # Without a UUID the kernel shows the NGUID as such.
        (NamespaceIds(UUID), NamespaceIds(OTHER, OTHER, 1), None),
        (NamespaceIds(UUID), NamespaceIds(UUID, UUID, 1), True),
        (NamespaceIds("", UUID), NamespaceIds(OTHER, UUID, 1), True),
        (NamespaceIds("", UUID), NamespaceIds(OTHER, OTHER, 1), False),
        (NamespaceIds("", UUID), NamespaceIds(UUID, "", 1), True),
        (NamespaceIds("", "", 1), NamespaceIds(OTHER, OTHER, 1), True),
        (NamespaceIds("", "", 1), NamespaceIds(OTHER, OTHER, 2), False),
        (NamespaceIds(UUID, OTHER, 1), NamespaceIds(UUID, UUID, 1), False),
        (NamespaceIds(UUID, OTHER, 1), NamespaceIds(UUID, OTHER, 2), False),
        (NamespaceIds(UUID, "", 2), NamespaceIds(OTHER, OTHER, 2), True),
    ],
)
def test_whose_namespace_it_is(
    wanted: NamespaceIds, shown: NamespaceIds, fits: bool | None
) -> None:
    assert wanted.fits(shown) is fits


@given(ids, ids)
def test_fitting_is_sound(wanted: NamespaceIds, shown: NamespaceIds) -> None:
    if wanted.fits(shown):
        assert None in (wanted.nsid, shown.nsid) or wanted.nsid == shown.nsid
        assert not wanted.nguid or not shown.nguid or wanted.nguid == shown.nguid
    if shown and shown.uuid and shown.nguid and shown.nsid:
        assert shown.fits(shown) is True


def test_wwids_stand_in_for_attributes_that_are_missing(fake_host: FakeHost) -> None:
    """Kernels before 4.10 or so show only the wwid."""
    sysfs = fake_host.host.sysfs
    for name, wwid, expected in (
        ("nvme8n1", f"uuid.{UUID}", NamespaceIds(UUID, "", 1)),
        ("nvme8n2", f"eui.{UUID.replace('-', '')}", NamespaceIds("", UUID, 1)),
        ("nvme8n3", "eui.0011223344556677", NamespaceIds("", "", 1)),
        ("nvme8n4", "nvme.1d0f-aa-bb-00000001", NamespaceIds("", "", 1)),
    ):
        folder = pathlib.Path(sysfs.path("block", name))
        folder.mkdir(parents=True)
        (folder / "nsid").write_text("1\n")
        (folder / "wwid").write_text(f"{wwid}\n")
        assert nvme_namespaces.read_ids_of_head(sysfs, name) == expected


def test_a_controller_that_goes_while_it_is_read_is_gone(fake_host: FakeHost) -> None:
    fake_host.nvme_subsystem(connected=True)
    (controller,) = nvme.read_controllers(fake_host.host.sysfs)
    gone = fake_host.nvme.controllers[0]

    def vanish(name: str) -> None:
        if name.endswith("/state") and not gone.gone:
            fake_host.nvme.delete(gone)
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    fake_host.faults.on_read = vanish
    assert nvme.read_state(fake_host.host.sysfs, controller) == ""


def test_native_multipath_is_not_known_before_the_driver_is_there(tmp_path: pathlib.Path) -> None:
    assert nvme.has_native_multipath(Tree(str(tmp_path))) is None


# -- formats of properties -----------------------------------------------------------------
def test_formats_are_told_apart() -> None:
    """NV-01."""
    old = {"nqn": "nqn.a", "target_portal": "h", "target_port": 1, "transport_type": "tcp"}
    new = {"target_nqn": "nqn.a", "portals": [["h", 1, "tcp"]]}
    assert NvmeVolume.parse(old).is_replicated is False
    assert NvmeVolume.parse(new).targets == NvmeVolume.parse(old).targets
    replicas = {"volume_replicas": [new, new], "alias": "a"}
    assert NvmeVolume.parse(replicas).is_replicated is True
    assert NvmeVolume.parse({**replicas, "replica_count": "2"}).replica_count == 2
    assert NvmeVolume.parse({**replicas, "replica_count": 1}).is_replicated is None
    with pytest.raises(exception.InvalidParameterValue, match="replica_count"):
        NvmeVolume.parse({**replicas, "replica_count": "two"})


def test_the_old_format_has_no_uuid() -> None:
    """The key is the volume's id there, if it is at all."""
    old = {"nqn": "n", "target_portal": "h", "target_port": 1, "transport_type": "tcp"}
    assert not NvmeVolume.parse(old | {"vol_uuid": "whatever"}).targets[0].ids


# -- what a subsystem answers --------------------------------------------------------------
def _descriptor(kind: int, value: bytes) -> bytes:
    return bytes([kind, len(value), 0, 0]) + value


def test_descriptors() -> None:
    data = _descriptor(1, b"12345678") + _descriptor(2, uuid.UUID(OTHER).bytes)
    data += _descriptor(3, uuid.UUID(UUID).bytes) + bytes(4096)
    assert nvme_identify.parse_descriptors(data, 7) == NamespaceIds(UUID, OTHER, 7)
    assert nvme_identify.parse_descriptors(bytes(4096), 7) == NamespaceIds("", "", 7)


@given(st.binary(max_size=64))
def test_any_bytes_can_be_parsed(data: bytes) -> None:
    nvme_identify.parse_descriptors(data, 1)
    nvme_identify.parse_size(data)
    nvme_identify.parse_size(data + bytes(400))


def test_lists() -> None:
    assert nvme_identify.parse_list(struct.pack("<4I", 1, 5, 0, 9)) == [1, 5]
    assert nvme_identify.parse_list(bytes(16)) == []


@pytest.mark.parametrize(
    ("flbas", "shift", "index"), [(0, 9, 0), (1, 12, 1), (0x10, 9, 0), (0x21, 12, 17)]
)
def test_sizes_by_the_format_in_use(flbas: int, shift: int, index: int) -> None:
    """Bits 3:0, and 6:5 above them."""
    data = bytearray(4096)
    data[0:8] = struct.pack("<Q", 1000)
    data[26] = flbas
    data[128 + 4 * index + 2] = shift
    assert nvme_identify.parse_size(bytes(data)) == 1000 << shift


@pytest.mark.parametrize(
    "text",
    [
        f"loc     : 0\nnidt    : 3\nnidl    : 16\ntype    : uuid\nuuid    : {UUID}\n",
        f'{{"ns-descs":[{{"loc":0,"nidt":3,"nidl":16,"type":"uuid","uuid":"{UUID}"}}]}}',
        f'{{"uuid" : "{UUID}"}}',
    ],
)
def test_described_by_any_version(text: str) -> None:
    assert nvme_identify.parse_described(text, 1) == NamespaceIds(UUID, "", 1)


@pytest.mark.parametrize("text", ["", "garbage\n", "Usage: nvme ns-descs <device>\n", "{}"])
def test_what_describes_nothing_is_refused(text: str) -> None:
    with pytest.raises(OSError, match="ns-descs"):
        nvme_identify.parse_described(text, 1)


def test_a_namespace_may_have_no_identifiers() -> None:
    text = "NVME Namespace Identification Descriptors NS 7:\n"
    assert nvme_identify.parse_described(text, 7) == NamespaceIds("", "", 7)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("NVMe Status:INVALID_NS(400b)\n", 0x400B),
        ("NVMe status: INVALID_FIELD: A reserved value in a defined field(0x4002)\n", 0x4002),
        ("NVMe status: Invalid Namespace or Format: It is invalid(0x400b)\n", 0x400B),
        ("sudo: a password is required\n", None),
        ("/dev/nvme0: Invalid argument (22)\n", None),
    ],
)
def test_statuses_that_nvme_prints(text: str, status: int | None) -> None:
    assert nvme_identify.parse_status(text) == status


def test_listed() -> None:
    assert nvme_identify.parse_listed("[   0]:0x1\n[   1]:0xa\n") == [1, 10]
    assert nvme_identify.parse_listed("") == []


@pytest.mark.parametrize(
    "text",
    ["garbage\n", '{ "nsid_list" : [ { "nsid" : 1 } ] }\n', "[   0]:0x1\n[   1]:\n", "x [ 0]:0x1"],
)
def test_what_lists_nothing_is_refused(text: str) -> None:
    with pytest.raises(OSError, match="list-ns"):
        nvme_identify.parse_listed(text)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"nsze": 1}', "no JSON"])
def test_no_size_in_what_makes_no_sense(text: str) -> None:
    assert nvme_identify.parse_id_ns(text) is None


# -- md ------------------------------------------------------------------------------------
MDSTAT = """Personalities : [raid1]
md126 : active raid1 nvme1n10[1] nvme2n1[0]
      1046528 blocks super 1.2 [2/2] [UU]
      bitmap: 0/1 pages [0KB], 65536KB chunk

unused devices: <none>
"""


@pytest.mark.parametrize(
    ("disk", "array"),
    [("nvme1n10", "md126"), ("nvme1n1", None), ("nvme2n1", "md126"), ("n1", None)],
)
def test_members_are_compared_whole(disk: str, array: str | None) -> None:
    assert md.find_in_mdstat(MDSTAT, disk) == array


EXAMINED = """/dev/nvme0n1:
          Magic : a92b4efc
        Version : 1.2
    Feature Map : 0x1
     Array UUID : 0e9b0d5e:6a0c3b62:8c6d6f7c:0b6b1d0e
           Name : any:vol-1
     Raid Level : raid1
   Raid Devices : 2

         Events : 17

    Device Role : Active device 1
   Array State : .A ('A' == active, '.' == missing, 'R' == replacing)
"""


def test_superblocks() -> None:
    found = md.parse_examined("nvme0n1", EXAMINED)
    assert found is not None
    assert found.uuid == "0e9b0d5e:6a0c3b62:8c6d6f7c:0b6b1d0e"
    assert (found.events, found.role, found.state) == (17, 1, ".A")
    assert md.parse_examined("nvme0n10", EXAMINED) is None
    assert md.parse_examined("nvme0n1", "") is None
    # A partition table is told of with exit code 0.
    assert md.parse_examined("nvme0n1", "/dev/nvme0n1:\n   MBR Magic : aa55\n") is None


def _member(disk: str, events: int, role: int, state: str, array: str = "u") -> md.Superblock:
    return md.Superblock(disk, array, events, role, state)


def test_members_are_chosen() -> None:
    fresh, stale = _member("a", 9, 0, "A."), _member("b", 4, 1, "AA")
    assert md.choose([fresh, stale]) == ([fresh], [stale])
    both = [_member("a", 9, 0, "AA"), _member("b", 9, 1, "AA")]
    assert md.choose(both) == (both, [])
    # Of three: one was lost, then another; the second knows of the first only.
    three = [_member("a", 1, 0, "AAA"), _member("b", 5, 1, ".AA"), _member("c", 9, 2, "..A")]
    assert md.choose(three) == ([three[2]], three[:2])
    with pytest.raises(exception.BrickException, match="different data"):
        md.choose([_member("a", 9, 0, "A."), _member("b", 7, 1, ".A")])
