# SPDX-License-Identifier: Apache-2.0
"""Exchanges over real sockets: answers, limits, and who the server is."""

from __future__ import annotations

import http.client
import pathlib
import socket
import ssl
import threading

import pytest

from os_brick.initiator.vendors.http import Request, Server, Tls, exchange
from os_brick.tests.unit.initiator.vendors import servers
from os_brick.tests.unit.initiator.vendors.servers import Answering, Asked, Said

LIMIT_S = 20.0


class Echo(Answering):
    """Says back what it was sent."""

    def answer(self, asked: Asked) -> Said:
        if asked.path == "/elsewhere":
            return Said(302, b"", {"Location": "/here"})
        return Said(201, asked.body or asked.path.encode())


def test_a_request_arrives_whole_and_so_does_the_answer() -> None:
    with Echo() as server:
        request = Request.of_json("POST", "/a%2Fb", {"a": ["ü"]}, {"X-Mine": "1"})
        answer = exchange(Server("127.0.0.1", server.port), request, LIMIT_S)
        (asked,) = server.asked

    assert (answer.status, answer.json()) == (201, {"a": ["ü"]})
    assert (asked.method, asked.path, asked.headers["X-Mine"]) == ("POST", "/a%2Fb", "1")
    assert asked.headers["Content-Type"] == "application/json"


def test_redirects_are_answers_and_nobody_follows_them() -> None:
    with Echo() as server:
        request = Request("GET", "/elsewhere", {"Authorization": "Basic c2VjcmV0"})
        answer = exchange(Server("127.0.0.1", server.port), request, LIMIT_S)
        assert [asked.path for asked in server.asked] == ["/elsewhere"]

    assert answer.status == 302


def test_environment_proxies_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{servers.closed_port()}")
    with Echo() as server:
        answer = exchange(Server("127.0.0.1", server.port), Request("GET", "/x"), LIMIT_S)

    assert answer.body == b"/x"


def test_nobody_listens() -> None:
    with pytest.raises(ConnectionRefusedError):
        exchange(Server("127.0.0.1", servers.closed_port()), Request("GET", "/"), LIMIT_S)


def test_the_server_never_answers() -> None:
    with (
        servers.silent() as port,
        pytest.raises(TimeoutError, match=f"127.0.0.1:{port} did not answer"),
    ):
        exchange(Server("127.0.0.1", port), Request("GET", "/"), 0.05)


def test_an_answer_that_comes_byte_by_byte_ends_at_the_limit_and_its_thread_with_it() -> None:
    before = set(threading.enumerate())
    with servers.dripping(0.005) as port:
        with pytest.raises(TimeoutError):
            exchange(Server("127.0.0.1", port), Request("GET", "/"), 0.1)
        left = [one for one in set(threading.enumerate()) - before if str(port) in one.name]
        for thread in left:
            thread.join(10)
        assert not any(thread.is_alive() for thread in left)


def test_an_answer_that_breaks_off() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _address = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort")

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(http.client.IncompleteRead):
            exchange(Server("127.0.0.1", listening.getsockname()[1]), Request("GET", "/"), LIMIT_S)


def test_certificates_are_checked_unless_told_otherwise() -> None:
    with Echo(tls=True) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            exchange(Server("127.0.0.1", server.port, Tls()), Request("GET", "/"), LIMIT_S)
        assert server.asked == []

        trusting = Server("127.0.0.1", server.port, Tls(ca=servers.CA))
        assert exchange(trusting, Request("GET", "/"), LIMIT_S).status == 201
        blind = Server("127.0.0.1", server.port, Tls(verify=False))
        assert exchange(blind, Request("GET", "/"), LIMIT_S).status == 201


def test_a_directory_of_certificates_may_be_given(tmp_path: pathlib.Path) -> None:
    with Echo(tls=True) as server:
        empty = Server("127.0.0.1", server.port, Tls(ca=str(tmp_path)))
        with pytest.raises(ssl.SSLCertVerificationError):
            exchange(empty, Request("GET", "/"), LIMIT_S)


def test_the_certificate_has_to_be_for_the_host_that_was_asked() -> None:
    with Echo(tls=True) as server:
        other_name = Server("localhost", server.port, Tls(ca=servers.CA))
        with pytest.raises(ssl.SSLCertVerificationError):
            exchange(other_name, Request("GET", "/"), LIMIT_S)


def test_a_missing_file_of_certificates_is_named() -> None:
    with pytest.raises(FileNotFoundError):
        exchange(Server("127.0.0.1", 1, Tls(ca="/nowhere/ca.pem")), Request("GET", "/"), LIMIT_S)


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("10.0.0.1", "http://10.0.0.1:80"),
        ("::1", "http://[::1]:80"),
        ("[::1]", "http://[::1]:80"),
        ("gateway", "http://gateway:80"),
    ],
)
def test_servers_by_name_and_address(host: str, text: str) -> None:
    assert str(Server(host, 80)) == text
    assert Server(host, 80).bare_host == host.strip("[]")


def test_requests_show_no_secret() -> None:
    request = Request.of_json("POST", "/login", {"password": "s3cret"}, {"Authorization": "s3cret"})

    assert "s3cret" not in repr(request)
