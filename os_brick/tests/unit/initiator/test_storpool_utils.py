# SPDX-License-Identifier: Apache-2.0
"""StorPool's configuration, names and API, with a server on a real socket."""

from __future__ import annotations

import pathlib
import platform
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from os_brick import exception
from os_brick.initiator import storpool_utils
from os_brick.initiator.storpool_utils import StorPoolAPI, StorPoolAPIError
from os_brick.tests.initiator.test_storpool_utils import SP_CONF
from os_brick.tests.unit.initiator.vendors import servers
from os_brick.tests.unit.initiator.vendors.clock import Clock
from os_brick.tests.unit.initiator.vendors.servers import Said
from os_brick.tests.unit.initiator.vendors.storpool import TOKEN, Cluster, error


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as one:
        yield one


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def api(cluster: Cluster, clock: Clock) -> StorPoolAPI:
    return StorPoolAPI("127.0.0.1", str(cluster.port), TOKEN, clock=clock)


# -- configuration (SP-01) -------------------------------------------------------------------
@pytest.fixture
def files(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setattr(storpool_utils, "CONF_FILE", tmp_path / "storpool.conf")
    monkeypatch.setattr(storpool_utils, "CONF_DIRECTORY", tmp_path / "storpool.conf.d")
    for name in storpool_utils.ENV_OVERRIDE:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "storpool.conf.d").mkdir()
    return tmp_path


def test_the_file_is_required(files: pathlib.Path) -> None:
    with pytest.raises(exception.BrickException, match=r"storpool.conf is missing"):
        storpool_utils.get_conf()


def test_defaults(files: pathlib.Path) -> None:
    (files / "storpool.conf").write_text("")

    assert storpool_utils.get_conf() == {"SP_API_HTTP_HOST": "127.0.0.1", "SP_API_HTTP_PORT": "81"}


def test_sections_files_and_what_wins(files: pathlib.Path) -> None:
    here = platform.node()
    (files / "storpool.conf").write_text(
        "# a comment\nSP_A=all\nSP_a=other case\nSP_B=all\nSP_B=again\nSP_EMPTY\nSP_C=50%:x=y\n"
        f"[{here}]\nSP_OURID=1\nSP_A=here\n[elsewhere]\nSP_OURID=2\n"
    )
    (files / "storpool.conf.d/20.conf").write_text("SP_B=20\nSP_A=not for who has a section\n")
    (files / "storpool.conf.d/10.conf").write_text(f"SP_B=10\n[{here}]\nSP_D=10\n")
    (files / "storpool.conf.d/notes.txt").write_text("SP_B=txt\n")

    assert storpool_utils.get_conf() == {
        "SP_API_HTTP_HOST": "127.0.0.1",
        "SP_API_HTTP_PORT": "81",
        "SP_A": "here",
        "SP_a": "other case",
        "SP_B": "20",
        "SP_C": "50%:x=y",
        "SP_D": "10",
        "SP_EMPTY": "",
        "SP_OURID": "1",
    }
    assert storpool_utils.get_conf("elsewhere")["SP_OURID"] == "2"
    assert "SP_OURID" not in storpool_utils.get_conf(section="nowhere")


def test_the_environment_wins_if_wanted(
    files: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (files / "storpool.conf").write_text("SP_API_HTTP_PORT=82\nSP_OURID=1\n")
    for name in (*storpool_utils.ENV_OVERRIDE, "SP_OURID"):
        monkeypatch.setenv(name, "9")

    assert storpool_utils.get_conf() == {
        "SP_API_HTTP_HOST": "9",
        "SP_API_HTTP_PORT": "9",
        "SP_AUTH_TOKEN": "9",
        "SP_OURID": "1",
    }
    assert storpool_utils.get_conf(use_env=False)["SP_API_HTTP_PORT"] == "82"


@pytest.mark.parametrize("content", [b"=s3cret\n", b"SP_A=s3cret\xff\n"])
def test_a_file_with_a_mistake_is_named_and_not_quoted(files: pathlib.Path, content: bytes) -> None:
    (files / "storpool.conf").write_text("")
    (files / "storpool.conf.d/bad.conf").write_bytes(content)

    with pytest.raises(exception.BrickException, match=r"bad\.conf cannot be read") as caught:
        storpool_utils.get_conf()
    assert "s3cret" not in str(caught.value)


def test_what_services_tests_import() -> None:
    assert StorPoolAPI(
        SP_CONF["SP_API_HTTP_HOST"], SP_CONF["SP_API_HTTP_PORT"], SP_CONF["SP_AUTH_TOKEN"]
    )


# -- names (SP-02) ---------------------------------------------------------------------------
def test_names() -> None:
    assert storpool_utils.os_to_sp_volume_name("os", "1-2") == "os--volume-1-2"
    assert storpool_utils.os_to_sp_snapshot_name("os", "temp", "3") == "os--temp--none--snapshot-3"
    assert (
        storpool_utils.os_to_sp_snapshot_name("os", "temp", "3", more="x")
        == "os--temp--x--snapshot-3"
    )


# -- API (SP-03) -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("ask", "line", "body"),
    [
        (lambda api: api.disks_list(), "GET DisksList", ""),
        (lambda api: api.volume_templates_list(), "GET VolumeTemplatesList", ""),
        (lambda api: api.volumes_reassign([1]), "POST MultiCluster/VolumesReassign", "[1]"),
        (lambda api: api.volume_create({"a": 1}), "POST MultiCluster/VolumeCreate", '{"a": 1}'),
        (lambda api: api.volume_update("v", {}), "POST MultiCluster/VolumeUpdate/v", "{}"),
        (lambda api: api.volume_revert("v", {}), "POST MultiCluster/VolumeRevert/v", "{}"),
        (lambda api: api.volume_delete("v"), "POST MultiCluster/VolumeDelete/v", "{}"),
        (lambda api: api.volumes_list(), "GET MultiCluster/VolumesList", ""),
        (lambda api: api.snapshot_create("v", {}), "POST MultiCluster/VolumeSnapshot/v", "{}"),
        (lambda api: api.snapshot_update("s", {}), "POST SnapshotUpdate/s", "{}"),
        (lambda api: api.snapshot_delete("s"), "POST MultiCluster/SnapshotDelete/s", "{}"),
        (lambda api: api.get_iscsi_config(), "GET iSCSIConfig", ""),
        (lambda api: api.post_iscsi_config({}), "POST iSCSIConfig", "{}"),
    ],
)
def test_methods_and_paths(
    cluster: Cluster, api: StorPoolAPI, ask: Callable[[StorPoolAPI], Any], line: str, body: str
) -> None:
    answer = ask(api)

    assert cluster.said == [line]
    assert answer["got"] == body


def test_a_volume_by_its_name(cluster: Cluster, api: StorPoolAPI) -> None:
    volume = cluster.add("v", "g")

    assert api.volume("v") == [{"name": "v", "size": volume.size}]
    assert api.volume_get_info("v")["globalId"] == "g"
    api.volumes_reassign_wait({"reassign": [{"volume": "v", "rw": [1]}]})
    assert volume.attached == {1: "rw"}


def test_an_error_tells_what_storpool_said(cluster: Cluster, api: StorPoolAPI) -> None:
    with pytest.raises(StorPoolAPIError) as caught:
        api.volume("none")

    exc = caught.value
    assert str(exc) == "HTTP: 404, objectDoesNotExist: no volume none"
    assert (exc.status, exc.name, exc.desc, exc.transient) == (
        404,
        "objectDoesNotExist",
        "no volume none",
        False,
    )
    assert exc.json["error"]["name"] == "objectDoesNotExist"
    assert isinstance(exc, exception.BrickException)


def test_an_error_with_status_200(cluster: Cluster, api: StorPoolAPI) -> None:
    cluster.first = [error(200, "strange", "but true")]

    with pytest.raises(StorPoolAPIError, match="HTTP: 200, strange: but true"):
        api.disks_list()


@pytest.mark.parametrize("json", [{}, None, [], {"error": None}, {"error": {}}])
def test_an_error_that_says_nothing(json: Any) -> None:
    exc = StorPoolAPIError(500, json)

    assert (exc.name, exc.transient) == ("<Missing error name>", False)
    assert str(exc).startswith("HTTP: 500, <Missing")


def test_an_answer_that_is_no_json(cluster: Cluster, api: StorPoolAPI) -> None:
    cluster.first = [Said(502, b"<html>")]

    with pytest.raises(StorPoolAPIError, match="HTTP: 502, noJSON"):
        api.disks_list()


def test_transient_errors_are_tried_again_with_the_same_body(
    cluster: Cluster, api: StorPoolAPI, clock: Clock
) -> None:
    cluster.first = [error(500, "later", "soon", transient=True)] * 2

    assert api.volume_create({"name": 'a"b'})["got"] == '{"name": "a\\"b"}'
    assert len({asked.body for asked in cluster.asked}) == 1
    assert clock.pauses == [1, 2]


def test_transient_errors_that_stay(cluster: Cluster, api: StorPoolAPI, clock: Clock) -> None:
    cluster.first = [error(500, "later", "soon", transient=True)] * 6

    with pytest.raises(StorPoolAPIError, match="later") as caught:
        api.disks_list()
    assert caught.value.transient
    assert clock.pauses == [1, 2, 4, 8, 16]
    assert len(cluster.asked) == 6


def test_servers_that_break_off_are_asked_again(
    cluster: Cluster, api: StorPoolAPI, clock: Clock
) -> None:
    cluster.first = [Said(drop=True)]

    assert api.disks_list()["verb"] == "DisksList"
    assert clock.pauses == [1]


def test_nobody_listens(clock: Clock) -> None:
    api = StorPoolAPI("127.0.0.1", servers.closed_port(), TOKEN, transient_retries=2, clock=clock)

    with pytest.raises(ConnectionRefusedError):
        api.disks_list()
    assert clock.pauses == [1, 2]


def test_what_is_no_http_is_asked_again(clock: Clock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for _ in range(2):
                connection, _address = listening.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"SSH-2.0-server\r\n")

        threading.Thread(target=serve, daemon=True).start()
        port = listening.getsockname()[1]
        api = StorPoolAPI("127.0.0.1", port, TOKEN, transient_retries=1, clock=clock)
        with pytest.raises(Exception, match=r"SSH-2\.0"):
            api.disks_list()
    assert clock.pauses == [1]


def test_other_errors_of_the_network_are_raised_at_once(clock: Clock) -> None:
    with servers.silent() as port, pytest.raises(TimeoutError):
        StorPoolAPI("127.0.0.1", port, TOKEN, timeout=0.05, clock=clock).disks_list()
    assert clock.pauses == []
