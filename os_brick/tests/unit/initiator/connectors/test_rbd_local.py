# SPDX-License-Identifier: Apache-2.0
"""RBD images that the kernel maps."""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oslo_concurrency import processutils
from oslo_config import cfg

from os_brick import exception
from os_brick.initiator.connectors import base_rbd
from os_brick.initiator.connectors.rbd import RBDConnector
from os_brick.initiator.linux.locking import Locks
from os_brick.testing import FakeHost

LINK = "/dev/rbd/volumes/volume-1"
KEYRING = "[client.cinder]\n\tkey = AQDsecretsecretsecret==\n"
SECRET = "AQDsecretsecretsecret"
ARGS = ("--id", "cinder", "--mon_host", "10.0.0.9:6789")


def connector(host: FakeHost, **keywords: Any) -> Any:
    return host.connector("RBD", do_local_attach=True, **keywords)


def confs(host: FakeHost) -> list[str]:
    return [line for line in host.inventory() if line.startswith("file ")]


@pytest.mark.parametrize("foreign", [False, True])
def test_attach_and_detach(fake_host: FakeHost, foreign: bool) -> None:
    image = fake_host.ceph.image()
    rbd = connector(fake_host, foreign=foreign)
    info = rbd.connect_volume(image.properties)
    assert info == {"path": LINK, "type": "block"}
    assert fake_host.started == [
        ("which", "rbd"),
        ("rbd", "map", "volume-1", "--pool", "volumes", *ARGS),
    ]
    fake_host.write(LINK, b"data")
    rbd.disconnect_volume(image.properties, info)
    assert fake_host.started[-2:] == [("sync", "/dev/rbd0"), ("rbd", "unmap", "/dev/rbd0", *ARGS)]
    assert image.unit.data == b"data"
    assert fake_host.leftovers() == []
    assert fake_host.lost == []


@pytest.mark.parametrize(("given", "own"), [(True, False), (True, None), (None, True)])
def test_the_property_counts_more_than_the_constructor(
    fake_host: FakeHost, given: bool | None, own: bool | None
) -> None:
    properties = fake_host.ceph.image().connection(do_local_attach=given)
    keywords = {} if own is None else {"do_local_attach": own}
    rbd = fake_host.connector("RBD", **keywords)
    assert rbd.do_local_attach is bool(own)
    assert rbd.connect_volume(properties)["path"] == LINK


@pytest.mark.parametrize(
    ("changed", "args"),
    [
        ({"auth_username": None}, ("--mon_host", "10.0.0.9:6789")),
        ({"hosts": None, "ports": None}, ("--id", "cinder")),
        ({"hosts": [], "ports": [], "auth_username": None, "cluster_name": None}, ()),
        (
            {"hosts": ["::1", "a"], "ports": ["1", "2"]},
            ("--id", "cinder", "--mon_host", "[::1]:1,a:2"),
        ),
    ],
)
def test_what_rbd_is_told(
    fake_host: FakeHost, changed: dict[str, Any], args: tuple[str, ...]
) -> None:
    properties = fake_host.ceph.image().connection(**changed)
    rbd = connector(fake_host)
    info = rbd.connect_volume(properties)
    rbd.disconnect_volume(properties, info)
    assert ("rbd", "map", "volume-1", "--pool", "volumes", *args) in fake_host.started
    assert ("rbd", "unmap", "/dev/rbd0", *args) in fake_host.started


def test_the_mixins_helpers() -> None:
    mixin = base_rbd.RBDConnectorMixin
    assert mixin._sanitize_mon_hosts(["::1", "10.0.0.1", "mon"]) == ["[::1]", "10.0.0.1", "mon"]
    properties = {"auth_username": "u", "hosts": ["h"], "ports": ["1"]}
    args = ["--id", "u", "--mon_host", "h:1"]
    assert mixin._get_rbd_args(properties) == args
    assert mixin._get_rbd_args(properties, "/run/x") == [*args, "--conf", "/run/x"]
    assert RBDConnector.get_rbd_device_name("volumes", "volume-1") == LINK


@pytest.mark.parametrize(
    "changed", [{"name": None}, {"name": "a"}, {"name": "a/b/c"}, {"hosts": ["a", "b"]}]
)
def test_properties_that_cannot_be_used(fake_host: FakeHost, changed: dict[str, Any]) -> None:
    properties = fake_host.ceph.image().connection(**changed)
    rbd = connector(fake_host)
    text = "malformed connection properties"
    with pytest.raises(exception.BrickException, match=text):
        rbd.connect_volume(properties)
    with pytest.raises(exception.BrickException, match=text):
        rbd.disconnect_volume(properties, None)
    with pytest.raises(exception.BrickException, match=text):
        rbd.extend_volume(properties)
    assert fake_host.journal == []


def test_ceph_that_is_not_installed(fake_host: FakeHost) -> None:
    fake_host.ceph.is_installed = False
    properties = fake_host.ceph.image().connection(keyring=KEYRING)
    with pytest.raises(exception.BrickException, match=r"^ceph-common package is not installed\.$"):
        connector(fake_host).connect_volume(properties)
    assert fake_host.leftovers() == []


class TestMappedAlready:
    def test_it_is_not_mapped_again(self, fake_host: FakeHost) -> None:
        image = fake_host.ceph.image()
        rbd = connector(fake_host)
        first = rbd.connect_volume(image.properties)
        fake_host.forget()
        assert rbd.connect_volume(image.properties) == first
        assert fake_host.started == []
        assert len(fake_host.ceph.mapped) == 1

    def test_another_pools_image_is_another(self, fake_host: FakeHost) -> None:
        mine = fake_host.ceph.image()
        others = fake_host.ceph.image(pool="backups")
        fake_host.ceph.map(others)
        rbd = connector(fake_host)
        info = rbd.connect_volume(mine.properties)
        assert fake_host.device(info["path"]).name == "rbd1"
        rbd.disconnect_volume(mine.properties, info)
        assert [device.image for device in fake_host.ceph.mapped] == [others]

    @pytest.mark.parametrize("snapshot", ["-", "snap"])
    def test_nor_is_a_snapshot_or_another_namespaces_image_unmapped(
        self, fake_host: FakeHost, snapshot: str
    ) -> None:
        mine = fake_host.ceph.image()
        namespace = "" if snapshot != "-" else "space"
        other = fake_host.ceph.image(namespace=namespace) if namespace else mine
        kept = fake_host.ceph.map(other, snapshot=snapshot)
        rbd = connector(fake_host)
        rbd.disconnect_volume(mine.properties, None)
        assert fake_host.ceph.mapped == [kept]
        rbd.disconnect_volume(mine.properties, rbd.connect_volume(mine.properties))
        assert fake_host.ceph.mapped == [kept]

    def test_a_link_that_leads_to_another_device_is_not_believed(
        self, fake_host: FakeHost, caplog: pytest.LogCaptureFixture
    ) -> None:
        fake_host.ceph.has_udev_rules = False
        other = fake_host.ceph.map(fake_host.ceph.image("volume-2"))
        fake_host.stale_link(LINK, f"/dev/{other.name}")
        info = connector(fake_host).connect_volume(fake_host.ceph.image().properties)
        assert info["path"] == "/dev/rbd1"
        assert "leads to /dev/rbd0" in caplog.text

    def test_a_dangling_link_is_no_mapping(self, fake_host: FakeHost) -> None:
        fake_host.stale_link(LINK, "/dev/rbd7")
        info = connector(fake_host).connect_volume(fake_host.ceph.image().properties)
        assert info["path"] == LINK
        assert len(fake_host.ceph.mapped) == 1

    def test_a_link_without_the_driver_is_looked_at_closely(self, fake_host: FakeHost) -> None:
        image = fake_host.ceph.image()
        fake_host.stale_link(LINK, "/dev/null")
        fake_host.ceph.world.dev.write("null", "")
        info = connector(fake_host).connect_volume(image.properties)
        assert fake_host.started[0] == ("rbd", "showmapped", "--format=json", *ARGS)
        assert info["path"] == LINK

    def test_two_processes_without_a_common_lock_agree(self, fake_host: FakeHost) -> None:
        image = fake_host.ceph.image()
        fake_host.faults.slow("rbd", "map", seconds=1)
        fake_host.after(0.5, lambda: fake_host.ceph.map(image))
        info = connector(fake_host).connect_volume(image.properties)
        assert [device.name for device in fake_host.ceph.mapped] == ["rbd0"]
        assert fake_host.device(info["path"]).name == "rbd0"

    def test_threads_map_once(self, fake_host: FakeHost) -> None:
        image = fake_host.ceph.image()
        rbd = connector(fake_host)
        paths: list[str] = []
        threads = [
            threading.Thread(
                target=lambda: paths.append(rbd.connect_volume(image.properties)["path"])
            )
            for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        with fake_host.idle():
            for thread in threads:
                thread.join()
        assert paths == [LINK] * 5
        assert len(fake_host.ceph.mapped) == 1
        assert sum("map" in words for words in fake_host.started) == 1


class TestAnotherCluster:
    OTHERS: ClassVar[list[str]] = ["10.9.9.9:6789", "[2001:db8::9]:6789"]

    def test_its_image_is_not_handed_out(self, fake_host: FakeHost) -> None:
        image = fake_host.ceph.image()
        kept = fake_host.ceph.map(image, monitors=self.OTHERS)
        with pytest.raises(exception.WrongVolume, match=r"monitors are 10\.9\.9\.9"):
            connector(fake_host).connect_volume(image.properties)
        assert fake_host.ceph.mapped == [kept]

    @pytest.mark.parametrize("force", [False, True])
    def test_nor_unmapped(self, fake_host: FakeHost, force: bool) -> None:
        image = fake_host.ceph.image()
        kept = fake_host.ceph.map(image, monitors=self.OTHERS)
        rbd = connector(fake_host)
        with pytest.raises(exception.BrickException, match="another cluster"):
            rbd.disconnect_volume(image.properties, None, force=force)
        with pytest.raises(exception.WrongVolume):
            rbd.extend_volume(image.properties)
        assert fake_host.ceph.mapped == [kept]
        assert fake_host.started == []

    def test_only_root_may_read_it(self, fake_host: FakeHost) -> None:
        image = fake_host.ceph.image()
        fake_host.ceph.map(image)
        fake_host.faults.unreadable("sys/bus/rbd/devices/*/config_info")
        fake_host.faults.fail("cat", code=0, out="10.9.9.9:6789 name=x volumes volume-1 -\n")
        rbd = connector(fake_host)
        with pytest.raises(exception.WrongVolume):
            rbd.connect_volume(image.properties)
        fake_host.faults.fail("cat", code=1, err="cat: no")
        with pytest.raises(processutils.ProcessExecutionError, match="cat: no"):
            rbd.connect_volume(image.properties)
        fake_host.faults.mend()
        assert rbd.connect_volume(image.properties)["path"] == LINK

    @pytest.mark.parametrize("hosts", [["mon.example"], ["10.0.0.7", "mon.example"], []])
    def test_names_could_be_any_monitor(self, fake_host: FakeHost, hosts: list[str]) -> None:
        image = fake_host.ceph.image()
        fake_host.ceph.map(image)
        properties = image.connection(hosts=hosts, ports=["6789"] * len(hosts))
        connector(fake_host).connect_volume(properties)
        assert len(fake_host.ceph.mapped) == 1

    def test_one_monitor_in_common_is_enough(self, fake_host: FakeHost) -> None:
        image = fake_host.ceph.image()
        fake_host.ceph.map(image, monitors=["10.0.0.9:6789", "[2001:db8::9]:6789"])
        properties = image.connection(hosts=["2001:DB8:0::9", "10.1.1.1"], ports=["3300", "1"])
        connector(fake_host).connect_volume(properties)
        assert len(fake_host.ceph.mapped) == 1


class TestReadOnly:
    @pytest.mark.parametrize("changed", [{"access_mode": "ro"}, {"name": "volumes/volume-1@snap"}])
    def test_it_is_mapped_so(self, fake_host: FakeHost, changed: dict[str, Any]) -> None:
        properties = fake_host.ceph.image().connection(**changed)
        rbd = connector(fake_host)
        info = rbd.connect_volume(properties)
        assert "--read-only" in fake_host.started[-1]
        rbd.disconnect_volume(properties, info)
        assert fake_host.leftovers() == []

    def test_a_mapping_for_reading_is_not_handed_out_for_writing(self, fake_host: FakeHost) -> None:
        image = fake_host.ceph.image()
        fake_host.ceph.map(image, read_only=True)
        with pytest.raises(exception.BlockDeviceReadOnly, match="/dev/rbd0"):
            connector(fake_host).connect_volume(image.properties)


class TestMappingFails:
    def test_rbds_words_are_kept(self, fake_host: FakeHost) -> None:
        image = fake_host.ceph.image()
        image.too_new = True
        with pytest.raises(processutils.ProcessExecutionError) as caught:
            connector(fake_host).connect_volume(image.connection(keyring=KEYRING))
        assert caught.value.exit_code == 6
        assert "RBD image feature set mismatch" in str(caught.value)
        assert fake_host.leftovers() == []

    def test_a_cluster_that_does_not_answer(self, fake_host: FakeHost) -> None:
        fake_host.ceph.be("silent")
        with pytest.raises(processutils.ProcessExecutionError, match="timed out"):
            connector(fake_host).connect_volume(fake_host.ceph.image().properties)
        assert fake_host.now < 70
        assert fake_host.leftovers() == []

    def test_a_program_that_hangs_is_stopped(self, fake_host: FakeHost) -> None:
        fake_host.faults.hang("rbd", "map")
        with pytest.raises(exception.ExecutionTimeout):
            connector(fake_host).connect_volume(fake_host.ceph.image().connection(keyring=KEYRING))
        assert fake_host.now < cfg.CONF.os_brick.call_timeout
        assert fake_host.leftovers() == []

    def test_what_was_mapped_all_the_same_is_unmapped(self, fake_host: FakeHost) -> None:
        image = fake_host.ceph.image()
        fake_host.faults.fail("rbd", "map", code=1, err="rbd: udev did not answer")
        fake_host.faults.slow("which", seconds=1)
        rbd = connector(fake_host)
        fake_host.after(0.5, lambda: fake_host.ceph.map(image))
        with pytest.raises(processutils.ProcessExecutionError, match="udev did not answer"):
            rbd.connect_volume(image.properties)
        assert fake_host.leftovers() == []

    def test_a_mapping_that_nobody_sees_is_an_error(self, fake_host: FakeHost) -> None:
        fake_host.ceph.load_driver()
        fake_host.faults.fail("rbd", "map", code=0, out="/dev/rbd0\n")
        with pytest.raises(exception.VolumeDeviceNotFound, match="/dev/rbd0"):
            connector(fake_host).connect_volume(fake_host.ceph.image().properties)

    def test_the_first_failure_counts(
        self, fake_host: FakeHost, caplog: pytest.LogCaptureFixture
    ) -> None:
        image = fake_host.ceph.image()
        fake_host.faults.fail("rbd", "map", code=1, err="rbd: first")
        fake_host.faults.fail("rbd", "unmap", code=1, err="rbd: second")
        fake_host.faults.slow("which", seconds=1)
        rbd = connector(fake_host)
        fake_host.after(0.5, lambda: fake_host.ceph.map(image))
        with pytest.raises(processutils.ProcessExecutionError, match="first"):
            rbd.connect_volume(image.connection(keyring=KEYRING))
        assert "Leftovers may remain" in caplog.text
        assert len(confs(fake_host)) == 1  # the mapping is there

    def test_what_cannot_be_looked_at_after_it_was_mapped_is_unmapped(
        self, fake_host: FakeHost
    ) -> None:
        image = fake_host.ceph.image()
        fake_host.ceph.load_driver()
        failed: list[str] = []

        def look(name: str) -> None:
            if name.endswith("bus/rbd/devices") and fake_host.ceph.mapped and not failed:
                failed.append(name)
                raise OSError(errno.EIO, os.strerror(errno.EIO), name)

        fake_host.faults.on_read = look
        with pytest.raises(OSError, match="Input/output error"):
            connector(fake_host).connect_volume(image.connection(keyring=KEYRING))
        assert failed
        assert fake_host.leftovers() == []

    def test_what_was_mapped_for_reading_all_the_same_is_unmapped(
        self, fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As by ``rbd_default_map_options = ro`` in the host's configuration."""
        image = fake_host.ceph.image()
        own = fake_host.ceph.map

        def read_only(*given: Any, **named: Any) -> Any:
            return own(*given, **{**named, "read_only": True})

        monkeypatch.setattr(fake_host.ceph, "map", read_only)
        with pytest.raises(exception.BlockDeviceReadOnly):
            connector(fake_host).connect_volume(image.connection(keyring=KEYRING))
        assert fake_host.leftovers() == []


class TestWithoutUdevsLink:
    def test_the_device_itself_is_returned(
        self, fake_host: FakeHost, caplog: pytest.LogCaptureFixture
    ) -> None:
        fake_host.ceph.has_udev_rules = False
        image = fake_host.ceph.image()
        rbd = connector(fake_host)
        info = rbd.connect_volume(image.properties)
        assert info["path"] == "/dev/rbd0"
        assert "udev" in caplog.text
        assert "LP#1884114" in caplog.text
        rbd.disconnect_volume(image.properties, info)
        assert fake_host.leftovers() == []

    def test_a_late_link_is_waited_for(self, fake_host: FakeHost) -> None:
        fake_host.delays.udev_s = 3
        info = connector(fake_host).connect_volume(fake_host.ceph.image().properties)
        assert info["path"] == LINK

    @pytest.mark.parametrize("mapped_before", [False, True])
    def test_a_mapping_that_goes_while_its_link_is_waited_for_is_not_handed_out(
        self, fake_host: FakeHost, mapped_before: bool
    ) -> None:
        """Another service, which has no lock with us, unmaps it, and its number goes to another."""
        fake_host.ceph.has_udev_rules = False
        image, other = fake_host.ceph.image(), fake_host.ceph.image("volume-2")
        if mapped_before:
            fake_host.ceph.map(image)

        def swap() -> None:
            fake_host.ceph.unmap(fake_host.ceph.mapped[0])
            fake_host.ceph.map(other)

        fake_host.after(1.0, swap)
        rbd = connector(fake_host)
        if mapped_before:
            assert rbd.connect_volume(image.properties)["path"] == "/dev/rbd1"
        else:
            with pytest.raises(exception.VolumeDeviceNotFound, match="unmapped while"):
                rbd.connect_volume(image.properties)
            assert [one.image for one in fake_host.ceph.mapped] == [other]

    @pytest.mark.parametrize(("said", "path"), [("", LINK), ("/dev/rbd5\n", "/dev/rbd5")])
    def test_where_sysfs_is_not_seen_rbds_answer_is_taken(
        self, fake_host: FakeHost, said: str, path: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        fake_host.faults.fail("rbd", "map", code=0, out=said)
        info = connector(fake_host).connect_volume(fake_host.ceph.image().properties)
        assert info["path"] == path
        assert "LP#1884114" in caplog.text


class TestKeyring:
    @pytest.mark.parametrize("foreign", [False, True])
    def test_a_file_for_root_only_lives_as_long_as_the_mapping(
        self, fake_host: FakeHost, foreign: bool
    ) -> None:
        image = fake_host.ceph.image()
        properties = image.connection(keyring=KEYRING)
        rbd = connector(fake_host, foreign=foreign)
        info = rbd.connect_volume(properties)
        conf = info["conf"]
        assert os.path.basename(conf).startswith("brickrbd_")
        assert fake_host.ceph.mapped[0].conf == conf
        text = fake_host.host.run.data(conf.removeprefix("/run/"))
        assert text == f"[global]\nmon_host = 10.0.0.9:6789\n{KEYRING}\n".encode()
        rbd.disconnect_volume(properties, json.loads(json.dumps(info)))
        assert fake_host.started[-1 - foreign] == (
            *("rbd", "unmap", "/dev/rbd0", *ARGS),
            *("--conf", conf),
        )
        assert fake_host.leftovers() == []

    def test_a_detach_needs_not_what_the_attach_returned(self, fake_host: FakeHost) -> None:
        properties = fake_host.ceph.image().connection(keyring=KEYRING)
        rbd = connector(fake_host)
        rbd.connect_volume(properties)
        rbd.disconnect_volume(properties, None)
        assert fake_host.leftovers() == []

    def test_nor_the_keyring(self, fake_host: FakeHost) -> None:
        image = fake_host.ceph.image()
        rbd = connector(fake_host)
        info = rbd.connect_volume(image.connection(keyring=KEYRING))
        rbd.disconnect_volume(image.properties, info)
        assert fake_host.leftovers() == []

    def test_the_file_stays_if_the_mapping_does(self, fake_host: FakeHost) -> None:
        properties = fake_host.ceph.image().connection(keyring=KEYRING)
        rbd = connector(fake_host)
        info = rbd.connect_volume(properties)
        with fake_host.open(LINK), pytest.raises(processutils.ProcessExecutionError):
            rbd.disconnect_volume(properties, info)
        assert len(confs(fake_host)) == 1
        rbd.disconnect_volume(properties, info)
        assert fake_host.leftovers() == []

    def test_two_volumes_have_two_files(self, fake_host: FakeHost) -> None:
        one = fake_host.ceph.image().connection(keyring=KEYRING)
        two = fake_host.ceph.image("volume-2").connection(keyring=KEYRING)
        rbd = connector(fake_host)
        infos = [rbd.connect_volume(one), rbd.connect_volume(two)]
        rbd.disconnect_volume(one, infos[0])
        assert confs(fake_host) == [f"file {infos[1]['conf']}"]

    def test_the_key_is_nowhere_to_be_read(
        self, fake_host: FakeHost, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        properties = fake_host.ceph.image().connection(keyring=KEYRING)
        rbd = connector(fake_host, foreign=True)
        info = rbd.connect_volume(properties)
        with fake_host.open(LINK), pytest.raises(processutils.ProcessExecutionError) as caught:
            rbd.disconnect_volume(properties, info)
        rbd.disconnect_volume(properties, info)
        said = f"{caplog.text}{caught.value!r}{caught.value.timeline}"  # type: ignore[attr-defined]
        assert SECRET not in f"{said}{fake_host.started}{info}"


class TestDetach:
    def test_what_is_not_mapped_is_detached(self, fake_host: FakeHost) -> None:
        fake_host.ceph.load_driver()
        rbd = connector(fake_host)
        rbd.disconnect_volume(fake_host.ceph.image().properties, {"path": LINK, "type": "block"})
        assert fake_host.started == []

    def test_without_the_driver_rbd_is_asked(self, fake_host: FakeHost) -> None:
        image = fake_host.ceph.image()
        connector(fake_host).disconnect_volume(image.properties, None)
        assert fake_host.started == [("rbd", "showmapped", "--format=json", *ARGS)]

    @pytest.mark.parametrize("by_id", [False, True])
    def test_what_rbd_lists_is_unmapped(self, fake_host: FakeHost, by_id: bool) -> None:
        image = fake_host.ceph.image()
        entry = {"id": "3", "pool": "volumes", "name": "volume-1", "snap": "-"}
        entry["device"] = "/dev/rbd3"
        other = {**entry, "pool": "backups", "device": "/dev/rbd2"}
        listing: Any = {"2": other, "3": entry} if by_id else [other, entry]
        fake_host.faults.fail("rbd", "showmapped", code=0, out=json.dumps(listing))
        fake_host.faults.fail("sync", code=0)
        fake_host.faults.fail("rbd", "unmap", code=0)
        connector(fake_host).disconnect_volume(image.properties, None)
        assert fake_host.started[-1] == ("rbd", "unmap", "/dev/rbd3", *ARGS)

    def test_a_path_is_enough_to_know_that_it_was_mapped(self, fake_host: FakeHost) -> None:
        image = fake_host.ceph.image()
        info = connector(fake_host).connect_volume(image.properties)
        fake_host.connector("RBD").disconnect_volume(image.properties, info)
        assert fake_host.leftovers() == []

    def test_all_mappings_of_the_image_go(self, fake_host: FakeHost) -> None:
        image = fake_host.ceph.image()
        fake_host.remember()
        fake_host.ceph.map(image)
        fake_host.ceph.map(image)
        connector(fake_host).disconnect_volume(image.properties, None)
        assert fake_host.leftovers() == []

    def test_a_mounted_device_is_in_use(self, fake_host: FakeHost) -> None:
        image = fake_host.ceph.image()
        rbd = connector(fake_host)
        info = rbd.connect_volume(image.properties)
        fake_host.mount(LINK, "/mnt")
        fake_host.forget()
        with pytest.raises(exception.DeviceInUse, match="mounted at /mnt"):
            rbd.disconnect_volume(image.properties, info)
        assert fake_host.journal == []

    def test_a_short_use_is_waited_for(self, fake_host: FakeHost) -> None:
        image = fake_host.ceph.image()
        rbd = connector(fake_host)
        info = rbd.connect_volume(image.properties)
        fake_host.after(3, fake_host.open(LINK).close)
        rbd.disconnect_volume(image.properties, info)
        assert fake_host.leftovers() == []

    def test_a_busy_device_is_told_with_rbds_words(self, fake_host: FakeHost) -> None:
        image = fake_host.ceph.image()
        rbd = connector(fake_host)
        info = rbd.connect_volume(image.properties)
        with (
            fake_host.open(LINK),
            pytest.raises(processutils.ProcessExecutionError, match="resource busy") as caught,
        ):
            rbd.disconnect_volume(image.properties, info, ignore_errors=True)
        assert caught.value.exit_code == 16
        assert fake_host.now < 30
        assert fake_host.device(info["path"]).name == "rbd0"

    @pytest.mark.parametrize("ignore_errors", [False, True])
    def test_force_unmaps_a_busy_device(self, fake_host: FakeHost, ignore_errors: bool) -> None:
        image = fake_host.ceph.image()
        rbd = connector(fake_host)
        info = rbd.connect_volume(image.properties)
        fake_host.open(LINK)
        rbd.disconnect_volume(image.properties, info, force=True, ignore_errors=ignore_errors)
        assert fake_host.started[-1] == ("rbd", "unmap", "/dev/rbd0", *ARGS, "-o", "force")
        assert fake_host.leftovers() == []

    def test_data_that_cannot_be_written_out_stops_it(self, fake_host: FakeHost) -> None:
        image = fake_host.ceph.image()
        rbd = connector(fake_host)
        info = rbd.connect_volume(image.properties)
        fake_host.write(LINK, b"data")
        fake_host.ceph.be("silent")
        with pytest.raises(exception.ExecutionTimeout):
            rbd.disconnect_volume(image.properties, info)
        assert len(fake_host.ceph.mapped) == 1
        assert fake_host.now < cfg.CONF.os_brick.call_timeout
        fake_host.ceph.be("up")
        rbd.disconnect_volume(image.properties, info)
        assert image.unit.data == b"data"

    @pytest.mark.parametrize("ignore_errors", [False, True])
    def test_with_force_it_is_lost_and_told(self, fake_host: FakeHost, ignore_errors: bool) -> None:
        image = fake_host.ceph.image()
        rbd = connector(fake_host)
        properties = image.connection(keyring=KEYRING)
        info = rbd.connect_volume(properties)
        fake_host.write(LINK, b"data")
        fake_host.ceph.be("silent")
        words = {"force": True, "ignore_errors": ignore_errors}
        if ignore_errors:
            rbd.disconnect_volume(properties, info, **words)
        else:
            with pytest.raises(exception.ExceptionChainer, match="Time out"):
                rbd.disconnect_volume(properties, info, **words)
        assert fake_host.leftovers() == []
        assert fake_host.now < 120

    def test_one_unmapped_meanwhile_is_detached(self, fake_host: FakeHost) -> None:
        image = fake_host.ceph.image()
        rbd = connector(fake_host)
        info = rbd.connect_volume(image.properties)
        mapped = fake_host.ceph.mapped[0]
        fake_host.faults.slow("rbd", "unmap", seconds=1)
        fake_host.after(0.5, lambda: fake_host.ceph.unmap(mapped))
        rbd.disconnect_volume(image.properties, info)
        assert fake_host.leftovers() == []

    def test_a_number_that_went_to_another_image_is_not_unmapped(self, fake_host: FakeHost) -> None:
        image, other = fake_host.ceph.image(), fake_host.ceph.image("volume-2")
        rbd = connector(fake_host)
        info = rbd.connect_volume(image.properties)
        user = fake_host.open(LINK)

        def go_to_another() -> None:
            user.close()
            fake_host.ceph.unmap(fake_host.ceph.mapped[0])
            fake_host.ceph.map(other)

        fake_host.after(0.6, go_to_another)
        rbd.disconnect_volume(image.properties, info)
        assert [one.image for one in fake_host.ceph.mapped] == [other]

    def test_force_needs_no_configuration_file(self, fake_host: FakeHost) -> None:
        properties = fake_host.ceph.image().connection(keyring=KEYRING)
        rbd = connector(fake_host, foreign=True)
        info = rbd.connect_volume(properties)
        fake_host.faults.fail("install", code=1, err="install: No space left on device", times=99)
        with pytest.raises(exception.ExceptionChainer):
            rbd.disconnect_volume(properties, info, force=True)
        assert fake_host.ceph.mapped == []

    def test_sysfs_that_cannot_be_read_is_a_failure(self, fake_host: FakeHost) -> None:
        image = fake_host.ceph.image()
        rbd = connector(fake_host)
        info = rbd.connect_volume(image.properties)
        fake_host.faults.unreadable("sys/bus/rbd/devices*")
        with pytest.raises(OSError, match="denied"):
            rbd.disconnect_volume(image.properties, info)
        assert len(fake_host.ceph.mapped) == 1


class TestEncrypted:
    def test_the_link_is_the_librarys_own(self, fake_host: FakeHost) -> None:
        properties = fake_host.ceph.image().connection(encrypted=True)
        rbd = connector(fake_host)
        info = rbd.connect_volume(properties)
        assert info["path"] == "/dev/disk/by-id/os-brick+dev+rbd+volumes+volume-1"
        # The encryptor has put its mapping in place of it, and taken it away again.
        rbd.disconnect_volume(properties, info)
        assert fake_host.leftovers() == []

    def test_extend_takes_it(self, fake_host: FakeHost) -> None:
        image = fake_host.ceph.image()
        properties = image.connection(encrypted=True)
        rbd = connector(fake_host)
        info = rbd.connect_volume(properties)
        image.grow(2 << 20)
        assert rbd.extend_volume({**properties, "device_path": info["path"]}) == 2 << 20


class TestExtend:
    def test_the_size_in_bytes(self, fake_host: FakeHost) -> None:
        image = fake_host.ceph.image()
        rbd = connector(fake_host)
        rbd.connect_volume(image.properties)
        fake_host.forget()
        image.grow(5 << 20)
        assert rbd.extend_volume(image.properties) == 5 << 20
        assert fake_host.journal == []

    def test_what_is_not_mapped_cannot_be(self, fake_host: FakeHost) -> None:
        image = fake_host.ceph.image()
        fake_host.ceph.map(fake_host.ceph.image(pool="backups"))
        with pytest.raises(exception.BrickException, match=r"^Cannot extend non mapped device\.$"):
            connector(fake_host).extend_volume(image.connection(keyring=KEYRING))
        assert confs(fake_host) == []

    def test_the_size_of_another_image_is_not_returned(self, fake_host: FakeHost) -> None:
        """Its number goes to the other while a program reads who it is."""
        image, other = fake_host.ceph.image(), fake_host.ceph.image("volume-2", size=7 << 20)
        fake_host.ceph.map(image)
        fake_host.faults.unreadable("sys/bus/rbd/devices/*/config_info")
        fake_host.faults.slow("cat", seconds=2)

        def swap() -> None:
            fake_host.ceph.unmap(fake_host.ceph.mapped[0])
            fake_host.ceph.map(other)

        fake_host.after(1.0, swap)
        with pytest.raises(exception.BrickException, match="non mapped"):
            connector(fake_host).extend_volume(image.properties)


def test_it_works_without_a_lock_directory(
    fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_directory() -> str:
        raise cfg.RequiredOptError("lock_path", cfg.OptGroup("os_brick"))

    image = fake_host.ceph.image()
    rbd = connector(fake_host)
    object.__setattr__(fake_host.host, "locks", Locks(no_directory))
    rbd.disconnect_volume(image.properties, rbd.connect_volume(image.properties))
    assert fake_host.leftovers() == []


def test_what_the_host_tells() -> None:
    assert RBDConnector.get_connector_properties("sudo") == {"do_local_attach": False}
    told = RBDConnector.get_connector_properties("sudo", do_local_attach=True)
    assert told == {"do_local_attach": True}


def test_where_volumes_are(fake_host: FakeHost) -> None:
    rbd = connector(fake_host)
    assert rbd.get_volume_paths({}) == []
    assert rbd.get_search_path() is None
    assert rbd.get_all_available_volumes() == []


@given(
    pools=st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=3),
    snapshots=st.lists(st.sampled_from(["-", "s"]), min_size=3, max_size=3),
    namespaces=st.lists(st.sampled_from(["", "n"]), min_size=3, max_size=3),
    force=st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_whatever_else_is_mapped_stays(
    tmp_path_factory: pytest.TempPathFactory,
    pools: list[str],
    snapshots: list[str],
    namespaces: list[str],
    force: bool,
) -> None:
    with FakeHost(str(tmp_path_factory.mktemp("host"))) as host:
        mine = host.ceph.image(pool="a")
        for number, pool in enumerate(pools):
            other = host.ceph.image(pool=pool, namespace=namespaces[number])
            if (pool, namespaces[number], snapshots[number]) != ("a", "", "-"):
                host.ceph.map(other, snapshot=snapshots[number])
        kept = list(host.ceph.mapped)
        rbd = connector(host)
        info = rbd.connect_volume(mine.properties)
        assert host.device(info["path"]) not in kept
        rbd.disconnect_volume(mine.properties, info, force=force)
        assert host.ceph.mapped == kept
        host.check()
