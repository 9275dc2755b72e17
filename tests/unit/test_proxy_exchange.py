"""The proxy against real TLS servers on loopback: polite ones, slow ones, silent ones and liars."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bus.errors import CommandError
from bus.messages.docker_worker import HttpResponse, RunCommand, UploadedFile
from services.docker_worker.proxy import Uploads, run_command
from services.docker_worker.proxy_exchange import BODY_LIMIT

Script = Callable[[ssl.SSLSocket], object]
HELLO = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@dataclass
class Context:
    """The house, as far as the proxy asks for it."""

    address: str = "127.0.0.1"
    uploads: Uploads = field(default_factory=Uploads)

    def internal_address(self, device_id: str) -> str:
        if device_id == "unknown":
            raise CommandError("not_found", "there is no device unknown")
        return self.address


@dataclass
class Server:
    """A TLS server that plays `script` to every connection, after it has read one request (if it `reads`)."""

    port: int
    script: Script
    reads: bool = True
    requests: list[bytes] = field(default_factory=list)

    def call(self, context: Context | None = None, **fields: Any) -> HttpResponse:
        values: dict[str, Any] = {"device_id": "plc1", "method": "GET", "api": "api/status", "port": self.port} | fields
        return run_command(context or Context(), RunCommand(**values), ports=frozenset({self.port}))

    def failure(self, **fields: Any) -> CommandError:
        with pytest.raises(CommandError) as caught:
            self.call(**fields)
        return caught.value


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    path: Path = tmp_path_factory.mktemp("tls") / "server.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def read_request(connection: ssl.SSLSocket) -> bytes:
    request = b""
    while b"\r\n\r\n" not in request:
        piece = connection.recv(65536)
        if not piece:
            return request
        request += piece
    head, _, body = request.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().splitlines() if line.startswith(b"content-length:")]
    wanted = int(lengths[0].split(b":")[1]) if lengths else 0
    while len(body) < wanted and (piece := connection.recv(65536)):
        body += piece
    return head + b"\r\n\r\n" + body


@contextmanager
def serving(identity: ssl.SSLContext, script: Script, address: str = "127.0.0.1", port: int = 0) -> Iterator[Server]:
    listener = socket.create_server((address, port), backlog=32)
    server = Server(port=listener.getsockname()[1], script=script)

    def serve(plain: socket.socket) -> None:
        try:
            with plain, identity.wrap_socket(plain, server_side=True) as connection:
                connection.settimeout(10)
                if server.reads:
                    server.requests.append(read_request(connection))
                server.script(connection)
        except OSError:
            pass  # the proxy went away, which is what half of these tests want

    def accept() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(plain,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


@pytest.fixture
def server(identity: ssl.SSLContext) -> Iterator[Server]:
    with serving(identity, says(HELLO)) as started:
        yield started


def says(*pieces: bytes) -> Script:
    return lambda connection: connection.sendall(b"".join(pieces))


def drips(head: bytes, piece: bytes) -> Script:
    def script(connection: ssl.SSLSocket) -> None:
        connection.sendall(head)
        for _ in range(200):
            connection.sendall(piece)
            time.sleep(0.05)

    return script


def test_a_request_arrives_as_it_was_meant_and_the_answer_comes_back(server: Server) -> None:
    answer = server.call(method="POST", api="api/login", data={"username": "a"}, headers={"Authorization": "Bearer t"})
    assert (answer.status_code, answer.body, answer.ok) == (200, {}, True)
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /api/login HTTP/1.1"
    assert sorted(lines[1:]) == sorted(
        [
            b"Host: 127.0.0.1:%d" % server.port,
            b"Accept-Encoding: identity",
            b"Content-Length: 16",
            b"Authorization: Bearer t",
            b"Content-Type: application/json",
            b"Connection: close",
        ]
    )
    assert body == b'{"username":"a"}'


@pytest.mark.parametrize("status", [401, 404, 409, 422, 500])
def test_errors_of_the_device_are_relayed_verbatim(server: Server, status: int) -> None:
    server.script = says(b'HTTP/1.1 %d X\r\nContent-Type: application/json\r\n\r\n{"msg": "m"}' % status)
    answer = server.call()
    assert (answer.status_code, answer.ok, answer.body) == (status, False, {"msg": "m"})


def test_a_redirect_is_relayed_and_not_followed(identity: ssl.SSLContext, server: Server) -> None:
    with serving(identity, says(HELLO), address="127.0.0.2") as elsewhere:
        location = b"https://127.0.0.2:%d/" % elsewhere.port
        server.script = says(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n")
        answer = server.call()
        assert (answer.status_code, answer.headers["Location"]) == (302, location.decode())
        assert elsewhere.requests == []


def test_proxies_of_the_environment_are_not_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent")
    assert server.call().status_code == 200


def test_head_has_no_body(server: Server) -> None:
    server.script = says(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 7000000\r\n\r\n")
    assert server.call(method="HEAD").body == ""


def test_a_binary_body_survives(server: Server) -> None:
    server.script = says(b"HTTP/1.1 200 OK\r\nContent-Type: application/zip\r\n\r\nPK\x00\xff")
    answer = server.call()
    assert (answer.body, answer.body_encoding) == ("UEsA/w==", "base64")


def test_a_chunked_answer_is_put_together(server: Server) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    server.script = says(head, b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\n")
    assert server.call().body == "abcde"


def test_an_answer_announced_too_long_is_refused_unread(server: Server) -> None:
    server.script = says(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n")
    problem = server.failure()
    assert problem.code == "refused"
    assert "999999999" in problem.message
    assert str(BODY_LIMIT) in problem.message


def test_an_answer_that_grows_too_long_is_refused(server: Server) -> None:
    server.script = drips(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n", bytes(100_000))
    problem = server.failure()
    assert problem.code == "refused"
    assert str(BODY_LIMIT) in problem.message


def test_an_answer_of_just_the_allowed_length_passes(server: Server) -> None:
    server.script = says(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n", b"x" * BODY_LIMIT)
    assert len(server.call().body) == BODY_LIMIT


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
    ids=["header line", "headers", "body", "endless 100-continue", "chunks"],
)
def test_a_peer_that_drips_cannot_stretch_the_deadline(server: Server, head: bytes, piece: bytes) -> None:
    server.script = drips(head, piece)
    started = time.monotonic()
    problem = server.failure(timeout_s=0.4)
    assert time.monotonic() - started < 0.9
    assert problem.code == "timeout"
    assert "unknown" in problem.message


def test_a_peer_that_does_not_read_cannot_stretch_the_deadline(server: Server) -> None:
    released = threading.Event()
    server.reads = False
    server.script = lambda _: released.wait(5)
    upload = UploadedFile(filename="p.zip", content=bytes(4_000_000))
    started = time.monotonic()
    try:
        problem = server.failure(method="POST", files={"file": upload}, timeout_s=0.4)
    finally:
        released.set()
    assert problem.code == "timeout"
    assert time.monotonic() - started < 0.9


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nX" * 9000,
    ],
)
def test_an_answer_cut_short_or_senseless_leaves_it_unknown_whether_it_ran(server: Server, answer: bytes) -> None:
    server.script = says(answer)
    problem = server.failure()
    assert problem.code == "timeout"
    assert "unknown" in problem.message


def test_a_wedged_api_is_named(server: Server) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        server.port = silent.getsockname()[1]
        problem = server.failure(timeout_s=0.3)
    assert problem.code == "timeout"
    assert "accepts no TLS handshake" in problem.message
    assert "wedged" in problem.message


def test_nobody_there_is_unavailable(server: Server) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        server.port = taken.getsockname()[1]
    problem = server.failure()
    assert problem.code == "unavailable"
    assert "refused" in problem.message


def test_a_peer_without_tls_is_unavailable(server: Server) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as plain:
        server.port = plain.getsockname()[1]

        def greet() -> None:
            connection, _ = plain.accept()
            with connection:
                connection.sendall(b"220 ftp\r\n")
                connection.recv(1000)

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        problem = server.failure()
        thread.join(5)
    assert problem.code == "unavailable"
    assert "TLS" in problem.message


def test_what_the_registry_says_of_a_device_is_the_answer(server: Server) -> None:
    assert server.failure(device_id="unknown").code == "not_found"
    assert server.requests == []


def test_one_upload_at_a_time_on_a_device_and_other_requests_pass(server: Server) -> None:
    context = Context()
    entered, released = threading.Event(), threading.Event()

    def slow(connection: ssl.SSLSocket) -> None:
        entered.set()
        released.wait(5)
        connection.sendall(HELLO)

    upload: dict[str, Any] = {"method": "POST", "files": {"file": UploadedFile(filename="p.zip", content=b"PK")}}
    server.script = slow
    answers: list[HttpResponse] = []
    first = threading.Thread(target=lambda: answers.append(server.call(context, **upload)), daemon=True)
    first.start()
    assert entered.wait(5)
    server.script = says(HELLO)
    with pytest.raises(CommandError) as caught:
        server.call(context, **upload)
    assert caught.value.code == "conflict"
    assert "busy" in caught.value.message
    assert server.call(context).ok
    assert server.call(context, device_id="plc2", **upload).ok
    released.set()
    first.join(5)
    assert answers[0].ok
    assert server.call(context, **upload).ok


def test_an_upload_that_failed_frees_its_place(server: Server) -> None:
    context = Context()
    upload: dict[str, Any] = {"method": "POST", "files": {"file": UploadedFile(filename="p.zip", content=b"PK")}}
    server.script = says(b"")
    with pytest.raises(CommandError):
        server.call(context, **upload)
    server.script = says(HELLO)
    assert server.call(context, **upload).ok


HOSTILE = st.one_of(
    st.text(max_size=60),
    st.builds(
        "{}{}127.0.0.2:{}{}".format,
        st.sampled_from(["", "/", "/api", "https:", "x"]),
        st.sampled_from(["@", "//", "\\\\", "/@", ":@", "/\t/", "%40", "?@", "#@", ";@", "\r\nHost: "]),
        st.sampled_from(["", "PORT"]),
        st.sampled_from(["", "/api/status", "?a=b"]),
    ),
)


def test_no_request_ever_leaves_the_devices_address(identity: ssl.SSLContext, server: Server) -> None:
    """A decoy sits on the same port of another address: whatever path, header or parameter, it hears nothing."""
    with serving(identity, says(HELLO), address="127.0.0.2", port=server.port) as decoy:

        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        @given(api=HOSTILE, header=HOSTILE, parameter=HOSTILE)
        def attack(api: str, header: str, parameter: str) -> None:
            api = api.replace("PORT", str(server.port))
            before = len(server.requests)
            try:
                server.call(api=api, headers={"Host": header, "Accept": header}, params={parameter: parameter})
            except CommandError as problem:
                assert problem.code in ("invalid", "refused")
                assert len(server.requests) == before
            else:
                (request,) = server.requests[before:]
                assert b"\r\nHost: 127.0.0.1:%d\r\n" % server.port in request

        attack()
        assert decoy.requests == []


def test_no_answer_of_a_device_breaks_the_proxy(server: Server) -> None:
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from([b"", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\n", HELLO[:-4]]), st.binary(max_size=200))
    def answer(head: bytes, rest: bytes) -> None:
        server.script = says(head + rest)
        try:
            server.call(timeout_s=2)
        except CommandError as problem:
            assert problem.code in ("timeout", "refused")

    answer()
