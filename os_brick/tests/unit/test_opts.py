# SPDX-License-Identifier: Apache-2.0
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
from oslo_concurrency import lockutils
from oslo_config import cfg

import os_brick
from os_brick import opts

WARNING = "Service needs to call os_brick.setup()"


class Settings:
    """Sets options of the process's configuration, for the time of a test."""

    def __init__(self) -> None:
        self.changed: list[tuple[str, str]] = []

    def config(self, group: Any, **values: Any) -> None:
        for name, value in values.items():
            cfg.CONF.set_override(name, value, group=group)
            self.changed.append((name, group))

    def undo(self) -> None:
        for name, group in self.changed:
            cfg.CONF.clear_override(name, group=group)


@pytest.fixture
def conf() -> Iterator[Any]:
    lockutils.get_lock_path(cfg.CONF)  # registers its options
    settings = Settings()
    settings.config("oslo_concurrency", lock_path=None)
    default = cfg.CONF.os_brick.lock_path
    cfg.CONF.set_default("lock_path", None, group="os_brick")
    yield settings
    settings.undo()
    cfg.CONF.set_default("lock_path", default, group="os_brick")


def test_options_for_sample_configuration() -> None:
    ((group, options),) = opts.list_opts()

    assert group == "os_brick"
    assert {option.name: option.default for option in options} == {
        "lock_path": None,
        "wait_mpath_device_attempts": 4,
        "wait_mpath_device_interval": 1,
        "call_timeout": 600,
        "flush_timeout": 300,
    }


@pytest.mark.parametrize(
    "name",
    ["wait_mpath_device_attempts", "wait_mpath_device_interval", "call_timeout", "flush_timeout"],
)
def test_numbers_start_at_one(conf: Any, name: str) -> None:
    with pytest.raises(ValueError, match="1"):
        conf.config("os_brick", **{name: 0})


def test_setup_takes_the_lock_path_of_oslo(
    conf: Any, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    conf.config("oslo_concurrency", lock_path=str(tmp_path))

    for _time in range(2):
        os_brick.setup(cfg.CONF)

    assert cfg.CONF.os_brick.lock_path == opts.get_lock_path() == str(tmp_path)
    assert not caplog.records


def test_setup_leaves_what_the_operator_configured(conf: Any, tmp_path: pathlib.Path) -> None:
    conf.config("oslo_concurrency", lock_path=str(tmp_path / "service"))
    conf.config("os_brick", lock_path=str(tmp_path / "shared"))

    os_brick.setup(cfg.CONF)

    assert opts.get_lock_path() == str(tmp_path / "shared")


def test_setup_with_another_configuration_object(conf: Any, tmp_path: pathlib.Path) -> None:
    other = cfg.ConfigOpts()
    lockutils.get_lock_path(other)
    other.set_override("lock_path", str(tmp_path), group="oslo_concurrency")

    os_brick.setup(other)

    assert other.os_brick.lock_path == str(tmp_path)
    assert opts.get_lock_path() == str(tmp_path)


def test_setup_ignores_unknown_arguments_with_a_warning(
    conf: Any, caplog: pytest.LogCaptureFixture
) -> None:
    os_brick.setup(cfg.CONF, of_a_later_version=1)

    assert "of_a_later_version" in caplog.text


def test_without_setup_the_lock_path_of_oslo_works_with_a_warning(
    conf: Any, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    conf.config("oslo_concurrency", lock_path=str(tmp_path))

    assert opts.get_lock_path() == opts.get_lock_path() == str(tmp_path)
    assert caplog.text.count(WARNING) == 1


def test_no_path_at_all(conf: Any) -> None:
    with pytest.raises(cfg.RequiredOptError, match="lock_path"):
        opts.get_lock_path()
