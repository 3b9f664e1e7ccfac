# SPDX-License-Identifier: Apache-2.0
"""RBD volumes made of connection properties."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from os_brick import exception
from os_brick.initiator.linux import rbd_volume
from os_brick.initiator.linux.rbd_volume import RbdImage, RbdVolume

PROPERTIES: dict[str, Any] = {
    "name": "volumes/volume-1",
    "hosts": ["::1", "10.0.0.1", "mon.example"],
    "ports": ["6789", "6789", "3300"],
    "cluster_name": "ceph",
    "auth_username": "cinder",
}


@pytest.mark.parametrize("key", sorted(PROPERTIES))
def test_a_handle_needs_each_key(key: str) -> None:
    properties = {name: value for name, value in PROPERTIES.items() if name != key}
    with pytest.raises(exception.BrickException, match="malformed connection properties") as caught:
        RbdVolume.for_handle(properties)
    assert key in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "volume-1",
        "a/b/c",
        "a/b/c/d",
        "/b",
        "a/",
        "",
        None,
        5,
        "../b",
        "a/-f",
        "a/b c",
        "a/b@",
        "-a/b",
    ],
)
def test_a_name_has_to_be_pool_and_image(name: Any) -> None:
    with pytest.raises(exception.BrickException, match="malformed connection properties"):
        RbdVolume.parse({**PROPERTIES, "name": name})


def test_namespaces_are_refused_clearly() -> None:
    with pytest.raises(exception.BrickException, match="namespaces of a pool are not supported"):
        RbdVolume.parse({**PROPERTIES, "name": "pool/space/image"})


@pytest.mark.parametrize(
    "changed",
    [
        {"hosts": ["10.0.0.1"]},
        {"ports": "6789"},
        {"hosts": ["a b", "c", "d"]},
        {"hosts": ["x\n[client]", "c", "d"]},
        {"auth_username": "../../etc/shadow"},
        {"cluster_name": "a/b"},
    ],
)
def test_what_cannot_be_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(exception.BrickException, match="malformed connection properties"):
        RbdVolume.for_handle({**PROPERTIES, **changed})


@pytest.mark.parametrize("changed", [{"hosts": [], "ports": []}, {"cluster_name": ""}])
def test_a_handle_needs_more_than_empty_values(changed: dict[str, Any]) -> None:
    with pytest.raises(exception.BrickException, match="is empty"):
        RbdVolume.for_handle({**PROPERTIES, **changed})


def test_ipv6_addresses_get_brackets() -> None:
    volume = RbdVolume.for_handle(PROPERTIES)
    assert volume.monitors == ("[::1]:6789", "10.0.0.1:6789", "mon.example:3300")
    assert rbd_volume.bracketed(["[::1]", "::1"]) == ["[::1]", "[::1]"]


def test_a_cluster_as_configured_on_the_host_needs_no_monitors() -> None:
    volume = RbdVolume.parse({"name": "volumes/volume-1"})
    assert (volume.monitors, volume.user, volume.keyring) == ((), "", None)
    assert volume.program_args == []


def test_all_monitors_are_in_one_option() -> None:
    assert RbdVolume.parse(PROPERTIES).program_args == [
        *("--id", "cinder"),
        *("--mon_host", "[::1]:6789,10.0.0.1:6789,mon.example:3300"),
    ]


def test_bytes_are_text() -> None:
    volume = RbdVolume.parse({**PROPERTIES, "name": b"p/i", "auth_username": b"u"})
    assert (volume.image, volume.user) == (RbdImage("p", "i"), "u")


def test_the_text_of_a_configuration_file() -> None:
    volume = RbdVolume.for_handle({**PROPERTIES, "hosts": ["::1", "a"], "ports": [1, "2"]})
    assert volume.configuration("[client.cinder]\n  key = S3cret") == (
        "[global]\nmon_host = [::1]:1,a:2\n[client.cinder]\n  key = S3cret\n"
    )
    assert rbd_volume.configuration((), "") == "[global]\n\n"


def test_a_keyring_is_not_shown() -> None:
    volume = RbdVolume.parse({**PROPERTIES, "keyring": "key = S3cret"})
    assert "S3cret" not in f"{volume!r} {volume}"


@pytest.mark.parametrize(
    ("text", "image", "link", "spec"),
    [
        ("p/i", RbdImage("p", "i"), "/dev/rbd/p/i", "i"),
        ("p/i@s", RbdImage("p", "i", snapshot="s"), "/dev/rbd/p/i@s", "i@s"),
    ],
)
def test_names_of_an_image(text: str, image: RbdImage, link: str, spec: str) -> None:
    assert RbdImage.parse(text) == image
    assert (image.link, image.spec, str(image)) == (link, spec, text)
    assert RbdImage("p", "i", "n").link == "/dev/rbd/p/n/i"


@pytest.mark.parametrize(
    ("changed", "read_only"),
    [
        ({}, False),
        ({"access_mode": "rw"}, False),
        ({"access_mode": "ro"}, True),
        ({"name": "p/i@s"}, True),
    ],
)
def test_what_is_only_read(changed: dict[str, Any], read_only: bool) -> None:
    assert RbdVolume.parse({**PROPERTIES, **changed}).read_only is read_only


@given(name=st.text())
def test_whatever_the_name_its_link_stays_below_its_folder(name: str) -> None:
    try:
        image = RbdImage.parse(name)
    except exception.BrickException:
        return
    parts = image.link.split("/")
    assert parts[:3] == ["", "dev", "rbd"]
    assert len(parts) == 5
    assert not {"", ".", ".."} & set(parts[3:])
    assert not image.spec.startswith("-")
