# SPDX-License-Identifier: Apache-2.0
"""Caches in front of attached volumes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oslo_concurrency import processutils

from os_brick import exception
from os_brick.caches import CacheEngineBase, CacheManager
from os_brick.caches.opencas import Cache, Core, OpenCASEngine, parse_list
from os_brick.testing import FakeHost
from os_brick.testing.process import Answer, Process

HEADER = "type    id   disk       status    write policy   device\n"


class Casadm:
    """Open CAS on a fake host: caches by number, devices behind them."""

    def __init__(self) -> None:
        self.caches: dict[str, str] = {"1": "Running"}
        self.cores: list[Core] = []
        #: What it answers instead.
        self.says: str | None = None

    def __call__(self, process: Process) -> Answer:
        words = list(process.words[1:])
        verb = words.pop(0)
        values = dict(zip(words[::2], words[1::2], strict=False)) if "-f" not in words else {}
        if verb == "-L":
            return Answer(out=self.says if self.says is not None else self.listing())
        if verb == "-A":
            return self._add(values["-i"], values["-d"])
        assert verb == "-R"
        if not values:
            values = {"-i": words[2], "-j": words[4]}
        self.cores = [
            one for one in self.cores if (one.cache, one.number) != (values["-i"], values["-j"])
        ]
        return Answer()

    def _add(self, cache: str, disk: str) -> Answer:
        if any(one.disk == disk for one in self.cores):
            return Answer(1, err="Error inserting core: Core already added\n")
        number = str(1 + sum(one.cache == cache for one in self.cores))
        self.cores.append(Core(cache, number, disk, f"/dev/cas{cache}-{number}"))
        return Answer(out=f"Successfully added core {number} to cache instance {cache}\n")

    def listing(self) -> str:
        if not self.caches:
            return "No caches running\n"
        lines = [HEADER]
        for number, status in self.caches.items():
            lines.append(f"cache   {number}    /dev/nvme0n{number}   {status}   wb             -\n")
            lines += [
                f"\u251ccore   {one.number}    {one.disk}  Active  -  {one.device}\n"
                for one in self.cores
                if one.cache == number
            ]
        return "".join(lines)


@pytest.fixture
def casadm(fake_host: FakeHost) -> Casadm:
    """Open CAS on the fake host, with one cache."""
    made = Casadm()
    fake_host.programs.install("casadm", made)
    return made


def engine(host: FakeHost, cache: Any = 1, **more: Any) -> OpenCASEngine:
    return OpenCASEngine(root_helper="sudo", host=host.host, opencas_cache_id=cache, **more)


def manager(host: FakeHost, path: str | None = "/dev/sdd", **more: Any) -> CacheManager:
    info = {
        "driver_volume_type": "iscsi",
        "serial": "the-serial",
        "data": {"device_path": path, "cacheable": True},
    }
    keywords = {"cache_name": "opencas", "opencas_cache_id": 1, "host": host.host, **more}
    return CacheManager("sudo", info, **keywords)


# -- MI-50 the manager -----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("data", "volume"), [({"volume_id": "the-id"}, "the-id"), ({"device_path": ""}, "the-serial")]
)
def test_a_volume_without_a_path(data: dict[str, Any], volume: str) -> None:
    info = {"driver_volume_type": "rbd", "serial": "the-serial", "data": data}

    with pytest.raises(exception.VolumeLocalCacheNotSupported) as caught:
        CacheManager("sudo", info, cache_name="opencas")

    assert str(caught.value) == (f"Volume local cache is not supported for rbd volume {volume}.")


@pytest.mark.parametrize("data", [{}, {"cacheable": False}, {"cacheable": None}])
def test_a_volume_that_may_not_be_cached_needs_no_engine(data: dict[str, Any]) -> None:
    found = CacheManager("sudo", {"data": {"device_path": "/dev/sdd", **data}})

    assert not found.cacheable
    assert found.engine is None
    assert found.ori_device_path == "/dev/sdd"
    assert (found.attach_volume(), found.detach_volume()) == ("/dev/sdd", "/dev/sdd")


@pytest.mark.parametrize("name", [None, "", "bcache"])
def test_an_engine_that_is_not_known(fake_host: FakeHost, name: str | None) -> None:
    with pytest.raises(exception.Invalid, match="No valid cache engine"):
        manager(fake_host, cache_name=name)


@pytest.mark.parametrize("status", ["Stopping", "Incomplete", "Standby detached"])
def test_an_engine_that_is_not_ready(fake_host: FakeHost, casadm: Casadm, status: str) -> None:
    casadm.caches["1"] = status

    with pytest.raises(exception.Invalid, match="No valid cache engine"):
        manager(fake_host)


def test_the_way_of_a_cached_volume(fake_host: FakeHost, casadm: Casadm) -> None:
    attached = manager(fake_host)
    assert attached.cacheable
    assert isinstance(attached.engine, CacheEngineBase)

    cached = attached.attach_volume()
    original = manager(fake_host, cached).detach_volume()

    assert (cached, original) == ("/dev/cas1-1", "/dev/sdd")
    assert casadm.cores == []


# -- MI-51 Open CAS --------------------------------------------------------------------------
def test_ready(fake_host: FakeHost, casadm: Casadm) -> None:
    casadm.caches = {"1": "Running", "11": "Stopping"}

    assert engine(fake_host, 1).is_engine_ready()
    assert engine(fake_host, "1").is_engine_ready()
    assert not engine(fake_host, 11).is_engine_ready()
    assert not engine(fake_host, 2).is_engine_ready()
    assert set(fake_host.started) == {("casadm", "-L")}


@pytest.mark.parametrize("said", ["", "\n", "No caches running\n", HEADER, "cache 1\n"])
def test_lists_of_nothing(fake_host: FakeHost, casadm: Casadm, said: str) -> None:
    casadm.says = said

    assert not engine(fake_host).is_engine_ready()
    with pytest.raises(exception.BrickException, match=r"Cannot find core device\."):
        engine(fake_host).detach_volume(dev_path="/dev/cas1-1")


def test_attach(fake_host: FakeHost, casadm: Casadm) -> None:
    assert engine(fake_host, dev_path="/dev/sdd").attach_volume() == "/dev/cas1-1"
    assert fake_host.started == [
        ("casadm", "-A", "-i", "1", "-d", "/dev/sdd"),
        ("casadm", "-L"),
    ]


def test_the_real_device_is_cached_not_a_link(fake_host: FakeHost, casadm: Casadm) -> None:
    path = fake_host.lvm.disk()
    fake_host.stale_link("/dev/disk/by-id/volume", path)

    engine(fake_host).attach_volume(dev_path="/dev/disk/by-id/volume")

    assert [one.disk for one in casadm.cores] == [path]


def test_names_that_begin_alike_are_told_apart(fake_host: FakeHost, casadm: Casadm) -> None:
    casadm.caches["11"] = "Running"
    casadm.cores = [
        Core("1", "1", "/dev/sdda", "/dev/cas1-1"),
        Core("11", "1", "/dev/sde", "/dev/cas11-1"),
        Core("1", "11", "/dev/sdf", "/dev/cas1-11"),
    ]

    assert engine(fake_host).attach_volume(dev_path="/dev/sdd") == "/dev/cas1-3"
    assert engine(fake_host).detach_volume(dev_path="/dev/cas1-11") == "/dev/sdf"
    assert engine(fake_host).detach_volume(dev_path="/dev/cas11-1") == "/dev/sde"
    assert [one.disk for one in casadm.cores] == ["/dev/sdda", "/dev/sdd"]


def test_a_device_that_is_cached_already(fake_host: FakeHost, casadm: Casadm) -> None:
    first = engine(fake_host).attach_volume(dev_path="/dev/sdd")

    assert engine(fake_host).attach_volume(dev_path="/dev/sdd") == first


def test_a_device_behind_another_cache(fake_host: FakeHost, casadm: Casadm) -> None:
    casadm.caches["2"] = "Running"
    engine(fake_host, 2).attach_volume(dev_path="/dev/sdd")

    with pytest.raises(processutils.ProcessExecutionError, match="already added"):
        engine(fake_host, 1).attach_volume(dev_path="/dev/sdd")


def test_a_cached_device_that_does_not_show(fake_host: FakeHost, casadm: Casadm) -> None:
    casadm.says = f"{HEADER}cache   1    /dev/nvme0n1   Running   wt             -\n"

    with pytest.raises(exception.BrickException, match=r"Cannot find emulated device\."):
        engine(fake_host).attach_volume(dev_path="/dev/sdd")


def test_a_core_without_a_device_is_no_cached_device(fake_host: FakeHost, casadm: Casadm) -> None:
    casadm.cores = [Core("1", "1", "/dev/sdd", "-")]

    with pytest.raises(processutils.ProcessExecutionError):
        engine(fake_host).attach_volume(dev_path="/dev/sdd")


def test_detach_writes_back_what_is_in_the_cache(fake_host: FakeHost, casadm: Casadm) -> None:
    casadm.cores = [Core("1", "7", "/dev/sdd", "/dev/cas1-7")]

    assert engine(fake_host).detach_volume(dev_path="/dev/cas1-7") == "/dev/sdd"
    # -f would drop it.
    assert fake_host.started[-1] == ("casadm", "-R", "-i", "1", "-j", "7")


def test_detach_by_force(fake_host: FakeHost, casadm: Casadm) -> None:
    casadm.cores = [Core("1", "7", "/dev/sdd", "/dev/cas1-7")]

    assert engine(fake_host).detach_volume(dev_path="/dev/cas1-7", force=True) == "/dev/sdd"
    assert fake_host.started[-1] == ("casadm", "-R", "-f", "-i", "1", "-j", "7")


def test_a_failed_write_back_leaves_the_cache(fake_host: FakeHost, casadm: Casadm) -> None:
    casadm.cores = [Core("1", "7", "/dev/sdd", "/dev/cas1-7")]
    fake_host.faults.fail("casadm", "-R", code=1, err="Error while flushing\n")

    with pytest.raises(processutils.ProcessExecutionError, match="Error while flushing"):
        engine(fake_host).detach_volume(dev_path="/dev/cas1-7")
    assert len(casadm.cores) == 1


def test_a_path_is_needed(fake_host: FakeHost, casadm: Casadm) -> None:
    for call in (engine(fake_host).attach_volume, engine(fake_host).detach_volume):
        with pytest.raises(exception.VolumePathsNotFound):
            call()
    assert fake_host.started == []


def test_failures_are_logged_and_raised(
    fake_host: FakeHost, casadm: Casadm, caplog: pytest.LogCaptureFixture
) -> None:
    fake_host.faults.fail("casadm", code=1, err="no module cas_cache\n", times=9)

    for call in (
        engine(fake_host).is_engine_ready,
        lambda: engine(fake_host).attach_volume(dev_path="/dev/sdd"),
        lambda: engine(fake_host).os_execute("casadm", "-L"),
    ):
        with pytest.raises(processutils.ProcessExecutionError):
            call()
    assert caplog.text.count("no module cas_cache") >= 3


def test_a_command_of_the_callers(fake_host: FakeHost, casadm: Casadm) -> None:
    out, err = engine(fake_host).os_execute("casadm", "-L")

    assert (out, err) == (casadm.listing(), "")


def test_the_execute_function_of_the_service_is_used(fake_host: FakeHost, casadm: Casadm) -> None:
    seen: list[dict[str, Any]] = []

    def execute(*words: str, **keywords: Any) -> tuple[str, str]:
        seen.append(keywords)
        return fake_host.execute(*words, **keywords)

    assert engine(fake_host, execute=execute).is_engine_ready()
    assert [(one["run_as_root"], one["root_helper"]) for one in seen] == [(True, "sudo")]


def test_devices_that_wait_for_their_cache_belong_to_none() -> None:
    text = (
        f"{HEADER}cache   1    /dev/nvme0n1   Running   wt             -\n"
        "\u2514core   1    /dev/sdb     Active    -              /dev/cas1-1\n"
        "core pool  -    -     -    -              -\n"
        "\u2514core   -    /dev/sdc     Detached    -              -\n"
    )

    assert parse_list(text) == [Cache("1", "Running"), Core("1", "1", "/dev/sdb", "/dev/cas1-1")]


@given(st.text())
def test_no_list_is_too_odd(text: str) -> None:
    assert isinstance(parse_list(text), list)
    assert isinstance(parse_list("cache 1 x Running wt -\n" + text), list)


@pytest.mark.parametrize("status", ["Inactive", "Detached"])
def test_the_core_of_an_earlier_volume_of_that_name(fake_host: FakeHost, status: str) -> None:
    """After a reboot the cache is loaded with the core of a volume that is not attached any more,
    and the kernel gives its name to another."""

    def casadm(process: Process) -> Answer:
        if process.words[1] == "-A":
            return Answer(1, err="Error inserting core: Core device path already exists\n")
        return Answer(
            out=f"{HEADER}cache 1 /dev/nvme0n1 Running wb -\n"
            f"\u2514core 1 /dev/sdd {status} - /dev/cas1-1\n"
        )

    fake_host.programs.install("casadm", casadm)
    with pytest.raises(processutils.ProcessExecutionError):
        engine(fake_host).attach_volume(dev_path="/dev/sdd")
