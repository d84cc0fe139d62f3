"""What people are told when the engine cannot be used, or will not do it."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer

import pytest

from labctl.runtime import image
from labctl.runtime.docker_client import open_client
from labctl.runtime.protocol import RuntimeFailure

Answer = tuple[int, dict[str, object]]
Answers = Callable[[str], Answer]

NOBODY = 65534


class Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True


@contextmanager
def engine(path: Path, answers: Answers) -> Iterator[None]:
    """An engine on a unix socket that answers a path of the API with a status and JSON."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers(self.path)
            octets = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(octets)))
            self.end_headers()
            self.wfile.write(octets)

        def log_message(self, format: str, *args: object) -> None:
            """Not on the tests' stderr."""

    with Server(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the engine's socket is to be."""
    path = tmp_path / "engine.sock"
    for name in ("DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    return path


def refusal() -> RuntimeFailure:
    with pytest.raises(RuntimeFailure) as caught:
        open_client()
    return caught.value


def test_no_engine(place: Path) -> None:
    told = refusal()
    assert told.message == "no Docker engine answers"
    assert "--runtime namespaces" in told.hint and "systemctl start docker" in told.hint


def test_an_engine_that_hangs_up(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()

        def hang_up() -> None:
            listener.accept()[0].close()

        threading.Thread(target=hang_up).start()
        assert refusal().message == "no Docker engine answers"


@pytest.mark.skipif(os.geteuid() != 0, reason="to become a user who may not, one must be root")
def test_a_socket_that_one_may_not_open(place: Path) -> None:
    with engine(place, lambda _: (200, {"ApiVersion": "1.41"})):
        place.chmod(0o600)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setresuid(NOBODY, NOBODY, NOBODY)
                told = refusal()
                os.write(write, f"{told.message}|{told.hint}".encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        os.close(write)
        with os.fdopen(read) as told_by_child:
            message, _, hint = told_by_child.read().partition("|")
    assert message == "the Docker engine's socket may not be opened"
    assert "usermod -aG docker" in hint


@pytest.mark.parametrize(("version", "words"), [("1.40", "API 1.40"), ("1.12", "an API older than")])
def test_an_engine_that_is_too_old(place: Path, version: str, words: str) -> None:
    with engine(place, lambda _: (200, {"ApiVersion": version})):
        told = refusal()
    assert words in told.message and "labctl needs 1.41 or newer" in told.message
    assert "20.10" in told.hint


@pytest.mark.parametrize("host", ["ssh://somebody@engine.example", "tcp://engine.example:2376"])
def test_an_engine_behind_ssh_or_tls(place: Path, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    if host.startswith("tcp"):
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        monkeypatch.setenv("DOCKER_CERT_PATH", str(place.parent))
        for name in ("ca.pem", "cert.pem", "key.pem"):
            (place.parent / name).touch()
    told = refusal()
    assert "behind ssh or TLS" in told.message
    assert "ssh -nNT -L" in told.hint


def test_the_engine_of_the_current_docker_context(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from docker.context import ContextAPI

    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.setenv("DOCKER_CONFIG", str(place.parent))
    monkeypatch.setattr("docker.context.config.find_config_file", lambda *_: str(place.parent / "config.json"))
    ContextAPI.create_context("mine", host=f"unix://{place}")
    (place.parent / "config.json").write_text(json.dumps({"currentContext": "mine"}))
    with engine(place, lambda _: (200, {"ApiVersion": "1.41"})):
        assert open_client().api_version == "1.41"


def test_a_disk_that_is_full(place: Path) -> None:
    def answers(path: str) -> Answer:
        if path.endswith("/version"):
            return 200, {"ApiVersion": "1.41"}
        return 500, {"message": "write /var/lib/docker/x: no space left on device"}

    with engine(place, answers), pytest.raises(RuntimeFailure) as caught:
        image.state(open_client())
    assert "no space left on device" in caught.value.message
    assert "docker system df" in caught.value.hint


def test_an_image_that_is_missing_is_no_failure_but_a_state(place: Path) -> None:
    def answers(path: str) -> Answer:
        if path.endswith("/version"):
            return 200, {"ApiVersion": "1.41"}
        return 404, {"message": "No such image: labctl-node:latest"}

    with engine(place, answers):
        assert image.state(open_client()) == image.ImageState(None, False)
