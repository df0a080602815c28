"""The server as it runs: on a socket, under load, with new and broken models, and with clients that mean no good."""

import asyncio
import json
import logging
import os
import random
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import timeit
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

import httpx
import numpy as np
import pandas as pd
import pytest
import uvicorn
from fastapi.testclient import TestClient
from uvicorn.server import ServerState

from churn_mlops.data import generate_sample_data
from churn_mlops.features import FeatureEngineer
from churn_mlops.formula import load
from churn_mlops.models import ChurnModel, ChurnPredictor
from churn_mlops.serving.app import create_app
from churn_mlops.serving.command import main
from churn_mlops.serving.model_holder import ModelHolder
from churn_mlops.serving.notes import UnusualFinder
from churn_mlops.serving.protocol import BoundedHttp
from churn_mlops.serving.request_log import JsonLines
from churn_mlops.settings import load_settings

ROOT = Path(__file__).parents[1]
CUSTOMER = {
    "tenure": 2,
    "monthly_charges": 89.5,
    "total_charges": 179.0,
    "contract_type": "Month-to-month",
    "payment_method": "Electronic check",
    "internet_service": "Fiber optic",
    "tech_support": "No",
    "online_security": None,
}
BODY = json.dumps(CUSTOMER).encode()
MARK = "Mrs Private, 4 Secret Lane"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Save two models that answer differently."""
    table = generate_sample_data(400)
    X, y = table.drop(columns=["customer_id", "churn"]), table["churn"]
    folder = tmp_path_factory.mktemp("models")
    first, second = (
        ChurnModel("logistic_regression", C=C).fit(X, y).save(folder / f"{C}.safetensors") for C in (1.0, 0.01)
    )
    return first, second


@pytest.fixture
def served(models: tuple[Path, Path], tmp_path: Path) -> Path:
    """Name the file that a server serves: a copy of the first model."""
    path = tmp_path / "churn-model.safetensors"
    path.write_bytes(models[0].read_bytes())
    return path


@pytest.fixture
def client(served: Path) -> TestClient:
    return TestClient(create_app(served))


def replace(path: Path, content: bytes) -> None:
    """Give a file new content in one step, as `ChurnModel.save` does."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def digest(path: Path) -> str:
    """Return the name of the content of a model file."""
    return str(ChurnModel.load(path).formula_.digest)


class Server:
    """A real server in a process of its own, ended with the block; its log can be waited for."""

    def __init__(self, path: Path, *options: str, **variables: str) -> None:
        command = [sys.executable, "-m", "churn_mlops.serving.command", str(path), "--port", "0", *options]
        environment = {**os.environ, "CHURN_THREADS": "1", **variables}
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        self.log: list[str] = []
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._reader.start()
        line = self.wait_for(r"churn-serve: .+ at http://\S+")
        self.url = str(re.search(r"http://\S+", line)[0])  # type: ignore[index]
        self.port = int(self.url.rpartition(":")[2])
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(60)
        self._reader.join(60)

    def _read(self) -> None:
        for line in self.process.stderr or ():
            with self._more:
                self.log.append(line)
                self._more.notify_all()
        with self._more:
            self.log.append("(end of the log)")
            self._more.notify_all()

    def wait_for(self, pattern: str, times: int = 1) -> str:
        """Return the line of the log that is the so-many-th to hold a pattern, as soon as it is there."""

        def found() -> list[str]:
            return [line for line in self.log if re.search(pattern, line)]

        with self._more:
            self._more.wait_for(lambda: len(found()) >= times or self.log[-1:] == ["(end of the log)"], timeout=60)
            assert len(found()) >= times, f"no {pattern!r} in the log:\n{''.join(self.log)}"
            return found()[times - 1]

    def connect(self) -> socket.socket:
        """Open a bare connection, for what a well-behaved client cannot send."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)


def reply(connection: socket.socket) -> bytes:
    """Read all that the server sends until it hangs up."""
    received = b""
    while part := connection.recv(65_536):
        received += part
    return received


def one_reply(connection: socket.socket) -> bytes:
    """Read one answer of a JSON object without others inside; the connection stays open."""
    received = b""
    while not received.endswith(b"}"):
        received += connection.recv(65_536)
    return received


def head(path: str, *lines: str) -> bytes:
    """Write the head of a POST request."""
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: test", "Connection: close", *lines, "", ""]).encode()


@pytest.fixture(scope="module")
def server(models: tuple[Path, Path]) -> Iterator[Server]:
    """Start a server with narrow limits, for tests that leave it as it was."""
    limits = {"CHURN_SERVING__MAX_BODY_BYTES": "100000", "CHURN_SERVING__BODY_TIMEOUT": "0.3"}
    with Server(models[0], **limits) as running:
        yield running


# --- a new model ------------------------------------------------------------------------------------------------------


def test_a_model_is_exchanged_under_load_without_a_failed_request(served: Path, models: tuple[Path, Path]) -> None:
    expected = {ChurnPredictor(each).predict(CUSTOMER)["churn_probability"] for each in models}
    under_load, exchanged = threading.Barrier(5), threading.Event()

    def ask(url: str) -> list[tuple[int, float]]:
        answers = []
        with httpx.Client() as http:
            for n in range(10_000):
                answer = http.post(f"{url}/predict", content=BODY)
                answers.append((answer.status_code, answer.json()["churn_probability"]))
                if n == 10:
                    under_load.wait(60)
                if exchanged.is_set() and n >= 50:
                    break
        return answers

    with Server(served) as running, ThreadPoolExecutor(4) as threads:
        work = [threads.submit(ask, running.url) for _ in range(4)]
        under_load.wait(60)
        replace(served, models[1].read_bytes())
        running.process.send_signal(signal.SIGHUP)
        running.wait_for(f"now serving the model {digest(models[1])}")
        exchanged.set()
        answers = [answer for each in work for answer in each.result()]
    assert {status for status, _ in answers} == {200}
    assert {probability for _, probability in answers} == expected


def test_a_broken_file_leaves_the_old_model_and_shows(served: Path, models: tuple[Path, Path]) -> None:
    with Server(served) as running:
        replace(served, models[1].read_bytes()[:-100])
        running.process.send_signal(signal.SIGHUP)
        running.wait_for("the model from before stays")
        ready = httpx.get(f"{running.url}/ready").json()
        metrics = httpx.get(f"{running.url}/metrics").text
        answer = httpx.post(f"{running.url}/predict", content=BODY)

        replace(served, models[1].read_bytes())
        running.process.send_signal(signal.SIGHUP)
        running.wait_for(f"now serving the model {digest(models[1])}")
        mended = httpx.get(f"{running.url}/ready").json()
    assert answer.json() == {**ChurnPredictor(models[0]).predict(CUSTOMER), "notes": []}
    assert ready["digest"] == digest(models[0])
    assert "churn-model.safetensors is damaged" in ready["reload_error"]
    assert "churn_model_reload_failed 1.0" in metrics
    assert (mended["digest"], mended["reload_error"]) == (digest(models[1]), None)


def test_a_watched_file_is_taken_up_by_itself(served: Path, models: tuple[Path, Path]) -> None:
    with Server(served, "--watch") as running:
        replace(served, models[1].read_bytes())
        running.wait_for(f"now serving the model {digest(models[1])}")


def test_workers_share_the_port_the_numbers_and_the_signal(served: Path, models: tuple[Path, Path]) -> None:
    with Server(served, "--workers", "2") as running:
        running.wait_for("Application startup complete", times=2)
        for _ in range(20):
            assert httpx.post(f"{running.url}/predict", content=BODY).status_code == 200
        metrics = httpx.get(f"{running.url}/metrics").text
        replace(served, models[1].read_bytes())
        running.process.send_signal(signal.SIGHUP)
        running.wait_for(f"now serving the model {digest(models[1])}", times=2)
    assert running.process.returncode == 0
    assert 'churn_requests_total{method="POST",route="/predict",status="200"} 20.0' in metrics
    assert "churn_score_count 20.0" in metrics


def without_tenure(path: Path) -> Path:
    """Save a model that asks for a column less and for one more."""
    table = generate_sample_data(400).assign(region="north").rename(columns={"tenure": "months"})
    table.loc[::3, "region"] = "south"
    return (
        ChurnModel("logistic_regression").fit(table.drop(columns=["customer_id", "churn"]), table["churn"]).save(path)
    )


def test_a_file_with_other_columns_is_not_taken_up(served: Path, models: tuple[Path, Path]) -> None:
    holder = ModelHolder(served)
    holder.get()
    without_tenure(served)
    assert not holder.reload()
    assert holder.get().digest == digest(models[0])
    assert "came: 'months', 'region'; went: 'tenure'" in str(holder.reload_error)
    assert "allow_new_columns = true" in str(holder.reload_error)


def test_a_file_with_other_columns_is_taken_up_where_the_settings_allow_it(served: Path) -> None:
    holder = ModelHolder(load_settings(serving={"model_path": served, "allow_new_columns": True}))
    holder.get()
    expected = digest(without_tenure(served))
    assert holder.reload()
    assert holder.get().digest == expected


def test_a_column_of_another_kind_is_another_column(served: Path) -> None:
    holder = ModelHolder(served)
    holder.get()
    table = generate_sample_data(400)
    table["tenure"] = np.where(table["tenure"] > 12, "old", "new")
    ChurnModel("logistic_regression").fit(table.drop(columns=["customer_id", "churn"]), table["churn"]).save(served)
    assert not holder.reload()
    assert "changed: 'tenure' is categorical, not numeric" in str(holder.reload_error)


def test_a_watched_file_with_other_columns_shows_in_ready(served: Path, models: tuple[Path, Path]) -> None:
    with Server(served, "--watch") as running:
        without_tenure(served)
        running.wait_for("the model from before stays")
        ready = httpx.get(f"{running.url}/ready").json()
    assert ready["digest"] == digest(models[0])
    assert "went: 'tenure'" in ready["reload_error"]


# --- ends and beginnings ----------------------------------------------------------------------------------------------


def test_sigterm_finishes_what_is_in_flight(served: Path, models: tuple[Path, Path]) -> None:
    with Server(served) as running, running.connect() as connection:
        connection.sendall(head("/predict", f"Content-Length: {len(BODY)}", "Expect: 100-continue"))
        assert b" 100 " in connection.recv(65_536)  # the request is inside
        connection.sendall(BODY[:10])
        running.process.terminate()
        running.wait_for("Shutting down")
        connection.sendall(BODY[10:])
        answer = reply(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")
    told = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert told == {**ChurnPredictor(models[0]).predict(CUSTOMER), "notes": []}


def asking_until_the_end(port: int, keep_alive: bool, n_clients: int, stop: Any) -> list[str]:
    """Let clients ask without a pause while a server ends, and return what went wrong in the middle of a request."""
    lost: list[str] = []
    answered = threading.Semaphore(0)
    close = "Connection: keep-alive" if keep_alive else "Connection: close"
    request = f"POST /predict HTTP/1.1\r\nHost: a\r\n{close}\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY

    def ask() -> None:
        while True:
            with suppress(ConnectionRefusedError):
                connection = socket.create_connection(("127.0.0.1", port), timeout=60)
                with connection:
                    answer = b""
                    while b"connection: close" not in answer:
                        try:
                            connection.sendall(request)
                            answer = one_reply(connection)
                        except OSError as error:
                            lost.append(repr(error))
                            return
                        answered.release()
                continue
            return

    with ThreadPoolExecutor(n_clients) as threads:
        for _ in range(n_clients):
            threads.submit(ask)
        for _ in range(n_clients * 5):
            assert answered.acquire(timeout=60)
        stop()
    return lost


@pytest.mark.parametrize("keep_alive", [False, True])
@pytest.mark.parametrize("workers", [1, 2])
def test_no_request_is_lost_at_the_end(served: Path, workers: int, keep_alive: bool) -> None:
    with Server(served, "--workers", str(workers)) as running:
        running.wait_for("Application startup complete", times=workers)
        assert asking_until_the_end(running.port, keep_alive, 12, running.process.terminate) == []


def worker_ids(running: Server, times: int) -> list[int]:
    """Return the numbers of the worker processes that have started so far."""
    running.wait_for("Application startup complete", times=times)
    return [int(number) for number in re.findall(r"Started server process \[(\d+)\]", "".join(running.log))]


def test_a_hung_worker_does_not_delay_the_replacement_of_a_killed_one(served: Path, models: tuple[Path, Path]) -> None:
    with Server(served, "--workers", "2") as running:
        hung, killed = worker_ids(running, 2)
        replace(served, models[1].read_bytes())
        running.process.send_signal(signal.SIGHUP)  # which the parent passes on to those that it knows to be up
        running.wait_for(f"now serving the model {digest(models[1])}", times=2)
        os.kill(hung, signal.SIGSTOP)
        os.kill(killed, signal.SIGKILL)
        running.wait_for(f"worker {killed} died")
        assert f"worker {hung} died" not in "".join(running.log)
        running.wait_for("Application startup complete", times=3)
        assert httpx.get(f"{running.url}/health", timeout=60).status_code == 200
        running.wait_for(f"worker {hung} died or hung")
        running.wait_for("Application startup complete", times=4)


def test_a_hung_worker_does_not_keep_the_signal_from_the_others(served: Path, models: tuple[Path, Path]) -> None:
    with Server(served, "--workers", "2") as running:
        hung, _ = worker_ids(running, 2)
        os.kill(hung, signal.SIGSTOP)
        replace(served, models[1].read_bytes())
        running.process.send_signal(signal.SIGHUP)
        running.wait_for(f"now serving the model {digest(models[1])}")
        os.kill(hung, signal.SIGCONT)
        running.wait_for(f"now serving the model {digest(models[1])}", times=2)


def test_a_killed_server_starts_again_on_its_port(served: Path) -> None:
    with Server(served) as running:
        before = httpx.post(f"{running.url}/predict", content=BODY).json()
        running.process.kill()
    with Server(served, "--port", str(running.port)) as again:
        assert httpx.post(f"{again.url}/predict", content=BODY).json() == before


# --- clients that mean no good ----------------------------------------------------------------------------------------


def spoiled(rng: random.Random) -> bytes:
    """Cut, change, repeat or mix the bytes of a good body."""
    body = bytearray(BODY if rng.random() < 0.5 else b'{"customers": [' + BODY + b"]}")
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(body) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            del body[at:]
        elif kind == 1:
            body[at : at + 1] = rng.randbytes(1)
        elif kind == 2:
            body[at:at] = rng.choice([b"{", b"[", b'"', b"\\", b"null", b"1e999", b"-", b"\xff", b"\\ud800", b"\0"])
        else:
            body[at:at] = body[: rng.randrange(len(body) + 1)]
    return bytes(body)


def test_a_thousand_malformed_bodies_are_refused_and_nothing_breaks(server: Server) -> None:
    rng = random.Random(42)
    with httpx.Client(base_url=server.url) as http:
        statuses = {
            http.post(rng.choice(["/predict", "/predict/batch", "/explain"]), content=spoiled(rng)).status_code
            for _ in range(1_000)
        }
        assert statuses <= {200, 422}
        assert "churn_exceptions_total{" not in http.get("/metrics").text


def test_a_body_that_announces_too_much_is_refused_before_it_is_sent(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(head("/predict", "Content-Length: 10000000000"))
        assert reply(connection).startswith(b"HTTP/1.1 413 ")


def test_a_body_without_a_length_is_counted(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(head("/predict", "Transfer-Encoding: chunked"))
        connection.sendall(b"fde8\r\n" + b" " * 65_000 + b"\r\n" + b"88b9\r\n" + b" " * 35_001)
        assert reply(connection).startswith(b"HTTP/1.1 413 ")


def test_a_body_shorter_than_its_length_is_given_up(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(head("/predict", f"Content-Length: {len(BODY) + 1}") + BODY)
        answer = reply(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"within 0.3 seconds" in answer


def test_a_body_longer_than_its_length_is_cut(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(head("/predict", f"Content-Length: {len(BODY) - 1}") + BODY)
        assert reply(connection).startswith(b"HTTP/1.1 422 ")


def test_slow_clients_do_not_keep_others_waiting(server: Server) -> None:
    stalled = [server.connect() for _ in range(20)]
    for connection in stalled:
        connection.sendall(head("/predict", f"Content-Length: {len(BODY)}") + BODY[:1])
    assert httpx.post(f"{server.url}/predict", content=BODY).status_code == 200
    for connection in stalled:
        with connection:
            assert reply(connection).startswith(b"HTTP/1.1 408 ")


def test_endless_headers_are_refused(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: test\r\nX-Long: " + b"x" * 20_000)
        assert reply(connection).startswith(b"HTTP/1.1 400 ")


@pytest.fixture(scope="module")
def impatient(models: tuple[Path, Path]) -> Iterator[Server]:
    """Start a server that waits one second for a head."""
    with Server(models[0], CHURN_SERVING__HEAD_TIMEOUT="1") as running:
        yield running


def test_a_head_that_never_ends_is_408_however_often_a_byte_comes(impatient: Server) -> None:
    with impatient.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\n")
        connection.settimeout(0.05)
        answer = b""
        while not answer:
            connection.sendall(b"X-More: of it\r\n")
            with suppress(TimeoutError):
                answer = connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert answer.endswith(b"within 1 seconds.")


def test_a_stalled_head_is_408_and_keeps_nobody_waiting(impatient: Server) -> None:
    stalled = [impatient.connect() for _ in range(20)]
    for connection in stalled:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: te")
    assert httpx.post(f"{impatient.url}/predict", content=BODY).status_code == 200
    for connection in stalled:
        with connection:
            assert reply(connection).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("nothing", [b"", b"\r\n\r\n"])
def test_a_connection_on_which_nothing_begins_is_closed(impatient: Server, nothing: bytes) -> None:
    with impatient.connect() as connection:
        connection.sendall(nothing)
        assert reply(connection) == b""


def test_the_second_head_on_a_connection_has_its_time_too(impatient: Server) -> None:
    with impatient.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n")
        assert one_reply(connection).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET /hea")
        assert reply(connection).startswith(b"HTTP/1.1 408 ")


def test_the_rest_of_a_body_that_is_answered_already_has_its_time_and_no_second_answer(impatient: Server) -> None:
    with impatient.connect() as connection:
        connection.sendall(b"POST /none HTTP/1.1\r\nHost: test\r\nContent-Length: 99\r\n\r\n")
        assert one_reply(connection).startswith(b"HTTP/1.1 404 ")
        connection.sendall(b"x")
        assert reply(connection) == b""


def test_the_time_for_a_head_is_none_of_the_body(impatient: Server) -> None:
    with impatient.connect() as connection, impatient.connect() as clock:
        connection.sendall(b"POST /predict HTTP/1.1\r\n")
        connection.sendall(b"Host: test\r\nConnection: close\r\n")
        connection.sendall(f"Content-Length: {len(BODY)}\r\n\r\n".encode())
        with impatient.connect() as later:
            assert reply(clock) == reply(later) == b""
        connection.sendall(BODY)
        assert reply(connection).startswith(b"HTTP/1.1 200 ")


# --- offers of another protocol ---------------------------------------------------------------------------------------


H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")
WEBSOCKET = (
    "Connection: keep-alive, Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n"


def offering(offer: tuple[str, ...], path: str, body: bytes, chunked: bool) -> tuple[bytes, bytes]:
    """Write the head and the body of a POST request that offers another protocol."""
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    start = "\r\n".join([f"POST {path} HTTP/1.1", "Host: test", *offer, length, "", ""]).encode()
    return start, b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if chunked else body


def statuses_until(connection: socket.socket, last: bytes) -> list[int]:
    """Ask for something that ends the connection, and return the statuses of all answers."""
    connection.sendall(last)
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d+) ", reply(connection))]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("segments", [1, 2])
@pytest.mark.parametrize("offer", [H2C, WEBSOCKET])
def test_an_offer_of_another_protocol_is_ignored_and_the_body_is_read(
    server: Server, offer: tuple[str, ...], segments: int, chunked: bool
) -> None:
    start, body = offering(offer, "/predict", BODY, chunked)
    with server.connect() as connection:
        if segments == 1:
            connection.sendall(start + body)
        else:
            connection.sendall(start.replace(b"HTTP/1.1", b"HTTP/1.1\r\nExpect: 100-continue"))
            assert connection.recv(65_536).startswith(b"HTTP/1.1 100 ")  # the server has the head
            connection.sendall(body)
        answer = one_reply(connection)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert statuses_until(connection, b"GET /health HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n") == [200]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("segments", [1, 2])
@pytest.mark.parametrize("offer", [H2C, WEBSOCKET])
def test_a_request_in_the_body_of_an_offer_is_a_body(
    server: Server, offer: tuple[str, ...], segments: int, chunked: bool
) -> None:
    start, body = offering(offer, "/predict", SMUGGLED, chunked)
    last = b"GET /health HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
    with server.connect() as connection:
        if segments == 1:
            assert statuses_until(connection, start + body + last) == [422, 200]
        else:
            connection.sendall(start.replace(b"HTTP/1.1", b"HTTP/1.1\r\nExpect: 100-continue"))
            assert connection.recv(65_536).startswith(b"HTTP/1.1 100 ")
            assert statuses_until(connection, body + last) == [422, 200]


def test_a_head_with_an_offer_may_come_byte_by_byte(server: Server) -> None:
    start, body = offering(H2C, "/predict", BODY, chunked=False)
    with server.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in start + body:
            connection.send(bytes([byte]))
        assert one_reply(connection).startswith(b"HTTP/1.1 200 ")


def test_an_offer_with_both_lengths_is_refused(server: Server) -> None:
    start, body = offering(H2C, "/predict", BODY, chunked=True)
    with server.connect() as connection:
        connection.sendall(start[:-2] + b"Content-Length: 5\r\n\r\n" + body)
        assert [line for line in reply(connection).split(b"\r\n") if b"HTTP/" in line] == [b"HTTP/1.1 400 Bad Request"]


def test_a_thousand_offers_in_a_row_are_answered_one_by_one(server: Server) -> None:
    offer = b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    with server.connect() as connection, ThreadPoolExecutor(1) as thread:
        thread.submit(connection.sendall, offer * 1_000 + b"GET /none HTTP/1.1\r\nConnection: close\r\n\r\n")
        statuses = re.findall(rb"HTTP/1.1 (\d+) ", reply(connection))
    assert statuses == [b"200"] * 1_000 + [b"404"]


@pytest.mark.parametrize("target", [b"test:443", b"/predict"])
def test_a_tunnel_is_refused(server: Server, target: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(b"CONNECT " + target + b" HTTP/1.1\r\nHost: test\r\n\r\n" + SMUGGLED)
        assert re.findall(rb"HTTP/1.1 (\d+) ", reply(connection)) == [b"400"]


# --- clients that come and go -----------------------------------------------------------------------------------------


def test_a_client_that_goes_away_is_no_error(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(head("/predict", "X-Request-ID: gone-1", "Content-Length: 999", "Expect: 100-continue"))
        connection.recv(65_536)
    line = json.loads(server.wait_for('"id":"gone-1"'))
    assert (line["level"], line["status"]) == ("INFO", 499)


@pytest.fixture(scope="module")
def unread(models: tuple[Path, Path]) -> Iterator[Server]:
    """Start a server that waits half a second for a client to take its answer."""
    with Server(models[0], CHURN_SERVING__WRITE_TIMEOUT="0.5", CHURN_SERVING__MAX_BATCH_ROWS="100000") as running:
        yield running


def deaf(running: Server, requests: bytes) -> socket.socket:
    """Send requests over a connection whose answers are not read."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection.settimeout(60)
    connection.connect(("127.0.0.1", running.port))
    connection.sendall(requests)
    return connection


def ends_unread(connection: socket.socket) -> bool:
    """Tell whether the server resets a connection, without reading from it."""
    watch = select.poll()
    watch.register(connection, 0)  # only errors and hang-ups, which need not be asked for
    return bool(watch.poll(20_000))


@pytest.mark.parametrize("connection_header", ["close", "keep-alive"])
def test_a_client_that_never_reads_its_answer_is_let_go(unread: Server, connection_header: str) -> None:
    body = json.dumps({"customers": [dict.fromkeys(CUSTOMER)] * 60_000}).encode()  # more than the system buffers
    lines = f"Host: a\r\nConnection: {connection_header}\r\nContent-Length: {len(body)}"
    with deaf(unread, f"POST /predict/batch HTTP/1.1\r\n{lines}\r\n\r\n".encode() + body) as connection:
        assert ends_unread(connection)
    unread.wait_for("An answer was not taken within 0.5 seconds")


class Stuck(asyncio.Transport):
    """A connection that takes everything and sends nothing, so that closing it does not end it."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.closing, self.aborted = False, asyncio.Event()

    def write(self, data: Any) -> None:
        """Keep it for ever."""

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.aborted.set()


@pytest.mark.parametrize(
    "request_",
    [b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000, b"nonsense\r\n", b"GET"],
)
def test_a_connection_that_closes_with_a_rest_to_send_ends_in_time(request_: bytes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def until_aborted() -> None:
        config = uvicorn.Config(app, log_config=None)
        connection = BoundedHttp(config, ServerState(), {}, head_timeout=0.01, write_timeout=0.01)
        connection.connection_made(stuck := Stuck())
        connection.data_received(request_)
        async with asyncio.timeout(60):
            await stuck.aborted.wait()
        connection.connection_lost(None)

    asyncio.run(until_aborted())


def test_a_client_that_is_slow_to_read_but_reads_gets_all(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = b""
        while part := connection.recv(100):
            answer += part
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["info"]["title"] == "churn_mlops"


def test_too_many_customers_are_413_with_the_limit(served: Path) -> None:
    settings = load_settings(serving={"model_path": served, "max_batch_rows": 2})
    limited = TestClient(create_app(settings))
    statuses = [limited.post("/predict/batch", json={"customers": [CUSTOMER] * n}).status_code for n in (2, 3)]
    assert statuses == [200, 413]
    refused = limited.post("/predict/batch", json={"customers": [CUSTOMER] * 3})
    assert "at most 2 customers" in refused.json()["detail"]


def test_ten_thousand_customers_are_taken_by_default(client: TestClient) -> None:
    customers = [CUSTOMER] * 10_000
    assert client.post("/predict/batch", json={"customers": customers}).json()["total_customers"] == 10_000
    assert client.post("/predict/batch", json={"customers": [*customers, CUSTOMER]}).status_code == 413


# --- where the work is done -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_customers", "on_the_loop"), [(1, True), (5, True), (1_000, False)])
def test_a_small_request_is_computed_on_the_loop_and_a_large_one_beside_it(
    served: Path, n_customers: int, on_the_loop: bool
) -> None:
    threads = []
    predict = ChurnPredictor.predict_batch

    def watched(self: ChurnPredictor, customers: Any) -> Any:
        threads.append(threading.get_ident())
        return predict(self, customers)

    async def ask() -> int:
        app = create_app(served)
        app.state.model.get()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
            with patch.object(ChurnPredictor, "predict_batch", watched):
                answer = await http.post("/predict/batch", json={"customers": [CUSTOMER] * n_customers})
        return answer.status_code

    assert asyncio.run(ask()) == 200
    assert [thread == threading.get_ident() for thread in threads] == [on_the_loop]


NOBODY = {"customers": [{}] * 10_000}


def test_ten_thousand_empty_customers_are_refused_with_twenty_problems_and_a_number(client: TestClient) -> None:
    began = time.perf_counter()
    refused = client.post("/predict/batch", json=NOBODY)
    assert time.perf_counter() - began < 2
    told = refused.json()
    assert (refused.status_code, len(told["detail"]), told["more"]) == (422, 20, 10_000 * len(CUSTOMER) - 20)
    assert len(refused.content) < 5_000
    assert [each["loc"] for each in told["detail"][7:9]] == [
        ["body", "customers", 0, "online_security"],
        ["body", "customers", 1, "tenure"],
    ]


def test_a_customer_with_many_problems_gets_twenty_and_a_number(tmp_path: Path) -> None:
    rng = np.random.default_rng(42)
    table = pd.DataFrame(rng.random((100, 25)), columns=[f"x{i}" for i in range(25)])
    path = ChurnModel("logistic_regression").fit(table, [0, 1] * 50).save(tmp_path / "wide.safetensors")
    told = TestClient(create_app(path)).post("/predict", json={}).json()
    assert (len(told["detail"]), told["more"]) == (20, 5)


def test_all_problems_are_listed_where_they_are_few(client: TestClient) -> None:
    told = client.post("/predict/batch", json={"customers": [CUSTOMER, {}]}).json()
    assert (len(told["detail"]), told["more"]) == (len(CUSTOMER), 0)


def test_health_does_not_wait_for_ten_thousand_empty_customers(server: Server) -> None:
    waits, done = [], threading.Event()

    def refuse() -> int:
        try:
            return max(httpx.post(f"{server.url}/predict/batch", json=NOBODY).status_code for _ in range(5))
        finally:
            done.set()

    with ThreadPoolExecutor(1) as thread, httpx.Client(base_url=server.url) as http:
        http.get("/health")
        refused = thread.submit(refuse)
        while not done.is_set():
            began = time.perf_counter()
            assert http.get("/health").status_code == 200
            waits.append(time.perf_counter() - began)
    assert refused.result() == 422
    assert max(waits) < 0.5


# --- ready ------------------------------------------------------------------------------------------------------------


def test_ready_names_the_model(client: TestClient, models: tuple[Path, Path]) -> None:
    ready = client.get("/ready").json()
    assert ready.keys() == {"status", "digest", "loaded_at", "reload_error"}
    assert (ready["status"], ready["digest"], ready["reload_error"]) == ("ready", digest(models[0]), None)


def test_without_a_model_it_is_not_ready_and_says_why(tmp_path: Path) -> None:
    refused = TestClient(create_app(tmp_path / "none.safetensors")).get("/ready")
    assert refused.status_code == 503
    assert "there is no model file" in refused.json()["detail"]


def test_a_model_that_cannot_predict_is_not_ready(client: TestClient) -> None:
    with patch.object(ChurnPredictor, "predict", side_effect=TypeError("cannot add")):
        assert client.get("/ready").status_code == 503


def test_a_file_that_did_not_change_is_no_change(served: Path, models: tuple[Path, Path]) -> None:
    holder = ModelHolder(served)
    holder.get()
    assert not holder.changed()
    replace(served, b"broken")
    assert holder.changed()
    assert not holder.reload()
    assert not holder.changed()  # the broken file is not tried again every second
    served.unlink()
    assert not holder.changed()


# --- explanations -----------------------------------------------------------------------------------------------------


def test_an_explanation_goes_with_its_prediction(client: TestClient, models: tuple[Path, Path]) -> None:
    told = client.post("/explain", content=BODY).json()
    predictor = ChurnPredictor(models[0])
    assert {name: told[name] for name in ("prediction", "churn_probability")} == {
        name: predictor.predict(CUSTOMER)[name] for name in ("prediction", "churn_probability")
    }
    assert told["reasons"] == predictor.explain(CUSTOMER)


def test_as_many_reasons_as_asked_for(client: TestClient) -> None:
    assert len(client.post("/explain?top=5", content=BODY).json()["reasons"]) == 5


def test_no_reasons_is_refused(client: TestClient) -> None:
    assert client.post("/explain?top=0", content=BODY).json()["detail"][0]["loc"] == ["query", "top"]


# --- the key ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(served: Path) -> TestClient:
    with patch.dict(os.environ, CHURN_API_KEY="open sesame ü"):
        return TestClient(create_app(served))


KEY = "open sesame ü".encode()


@pytest.mark.parametrize("headers", [{b"X-API-Key": KEY}, {b"Authorization": b"Bearer " + KEY}])
def test_the_key_opens(guarded: TestClient, headers: Any) -> None:
    assert guarded.post("/predict", content=BODY, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"X-API-Key": b""},
        {b"X-API-Key": KEY[:-1]},
        {b"X-API-Key": KEY + b"x"},
        {b"X-API-Key": b"\xff"},
        {b"Authorization": KEY},
        {b"Authorization": b"Basic " + KEY},
    ],
)
@pytest.mark.parametrize("path", ["/", "/ready", "/predict", "/metrics", "/docs", "/openapi.json", "/no/such/path"])
def test_without_the_key_nothing_opens(guarded: TestClient, headers: Any, path: str) -> None:
    refused = guarded.post(path, headers=headers, content=BODY)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")


def test_health_needs_no_key(guarded: TestClient) -> None:
    assert guarded.get("/health").status_code == 200


def test_the_document_says_that_a_key_is_needed(guarded: TestClient) -> None:
    document = guarded.get("/openapi.json", headers={b"X-API-Key": KEY}).json()
    assert document["components"]["securitySchemes"].keys() == {"key", "bearer"}
    assert "401" in document["paths"]["/predict"]["post"]["responses"]
    assert "security" not in document["paths"]["/health"]["get"]


def test_an_empty_key_is_one_line(served: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with patch.dict(os.environ, CHURN_API_KEY=""), pytest.raises(SystemExit):
        main([str(served)])
    assert "churn-serve: error: the API key is empty" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["churn_api_key", "Churn_Api_Key"])
def test_the_name_of_the_key_may_be_in_small_letters(served: Path, name: str) -> None:
    with patch.dict(os.environ, {name: KEY.decode()}):
        client = TestClient(create_app(served))
    statuses = [
        client.post("/predict", content=BODY, headers=headers).status_code for headers in ({}, {b"X-API-Key": KEY})
    ]
    assert statuses == [401, 200]


@pytest.mark.parametrize("key", [b"", b"\xff", b"open\xe9", b"a\nb", b"a\tb", b"\x7f", b" ", b" a", b"a "])
def test_a_key_that_no_client_can_send_is_one_line_at_the_start(
    served: Path, key: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    with patch.dict(os.environ, CHURN_API_KEY=os.fsdecode(key)), pytest.raises(SystemExit, match="2"):
        main([str(served), "--port", "0"])
    assert re.fullmatch(r"churn-serve: error: the API key [^\n]+CHURN_API_KEY[^\n]+\n", capsys.readouterr().err)


@pytest.mark.parametrize(("variables", "asks"), [({}, "no key"), ({"churn_api_key": "open sesame"}, "a key")])
def test_the_first_line_says_whether_a_key_is_asked_for(served: Path, variables: dict[str, str], asks: str) -> None:
    with Server(served, **variables) as running:
        running.wait_for(rf"\(documentation: /docs; asks for {asks}\)")
        assert httpx.get(f"{running.url}/ready").status_code == (401 if variables else 200)


# --- pages of other sites ---------------------------------------------------------------------------------------------


CRM = "https://crm.example.com"
ASKS = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type, x-api-key"}


@pytest.fixture(params=["no key", "key"])
def open_to_a_page(request: pytest.FixtureRequest, served: Path) -> tuple[TestClient, dict[bytes, bytes]]:
    """Make a server that pages of one site may ask, and the headers that open it."""
    settings = load_settings(serving={"model_path": served, "allowed_origins": [CRM, "http://localhost:3000"]})
    needs_key = request.param == "key"
    with patch.dict(os.environ, {"CHURN_API_KEY": KEY.decode()} if needs_key else {}):
        return TestClient(create_app(settings)), {b"X-API-Key": KEY} if needs_key else {}


def test_a_page_of_an_allowed_origin_asks_first_and_then_gets_its_answer(
    open_to_a_page: tuple[TestClient, dict[bytes, bytes]],
) -> None:
    client, key = open_to_a_page
    may = client.options("/predict", headers={"Origin": CRM, **ASKS})
    assert (may.status_code, may.headers["access-control-allow-origin"]) == (200, CRM)
    assert {"POST"} <= set(may.headers["access-control-allow-methods"].split(", "))
    assert {"Content-Type", "X-API-Key"} <= set(may.headers["access-control-allow-headers"].split(", "))
    assert "access-control-allow-credentials" not in may.headers
    answer = client.post("/predict", content=BODY, headers={b"Origin": CRM.encode(), **key})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, CRM)
    assert answer.headers["access-control-expose-headers"] == "X-Request-ID"
    assert answer.headers["x-request-id"]


def test_a_page_can_read_why_it_is_refused(open_to_a_page: tuple[TestClient, dict[bytes, bytes]]) -> None:
    client, key = open_to_a_page
    for headers, status in ((key, 422), ({b"X-API-Key": b"wrong"}, 401 if key else 422)):
        refused = client.post("/predict", content=b"{", headers={b"Origin": CRM.encode(), **headers})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (status, CRM)


@pytest.mark.parametrize(
    "origin", ["https://example.org", "http://crm.example.com", f"{CRM}:444", f"{CRM}.org", "null"]
)
def test_a_page_of_another_origin_gets_nothing(
    open_to_a_page: tuple[TestClient, dict[bytes, bytes]], origin: str
) -> None:
    client, key = open_to_a_page
    may = client.options("/predict", headers={"Origin": origin, **ASKS})
    answer = client.post("/predict", content=BODY, headers={b"Origin": origin.encode(), **key})
    assert (may.status_code, answer.status_code) == (400, 200)
    assert "access-control-allow-origin" not in may.headers | answer.headers


def test_without_allowed_origins_a_preflight_is_refused_like_any_other_request(
    client: TestClient, guarded: TestClient
) -> None:
    for each, status in ((client, 405), (guarded, 401)):
        refused = each.options("/predict", headers={"Origin": CRM, **ASKS})
        assert refused.status_code == status
        assert not [name for name in refused.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/metrics/", "/health/", "/docs/", "/predict/", "/docs/files"])
def test_no_path_is_redirected_to_a_host_that_the_request_named(client: TestClient, path: str) -> None:
    for method in ("GET", "POST"):
        answer = client.request(method, path, headers={"Host": "evil.example.com"}, follow_redirects=False)
        assert (answer.status_code, answer.headers.get("location")) == (404, None)


@pytest.mark.parametrize(
    "path",
    [
        "/docs/files/",
        "/docs/files/.",
        "/docs/files//evil.example.com",
        "/docs/files/..",
        "//evil.example.com/..",
        "//docs",
    ],
)
@pytest.mark.parametrize("host", ["evil.example.com", "evil.example.com/x?"])
def test_no_odd_path_is_redirected_to_a_host_that_the_request_named(server: Server, path: str, host: str) -> None:
    with server.connect() as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = reply(connection)
    assert not re.match(rb"HTTP/1.1 3\d\d ", answer)
    assert b"location:" not in answer.lower()


# --- ids, headers and logs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sane", ["a", "noon-17", "b0b5e1d2-0000-4000-8000-000000000000", "A.b_c:d", "x" * 64])
def test_a_sane_request_id_is_echoed(client: TestClient, sane: str) -> None:
    assert client.get("/health", headers={"X-Request-ID": sane}).headers["x-request-id"] == sane


@pytest.mark.parametrize("odd", ["", " ", "a b", "x" * 65, 'a"b', "-a", "a\tb", "{}"])
def test_any_other_request_id_is_replaced(client: TestClient, odd: str) -> None:
    echoed = client.get("/health", headers={"X-Request-ID": odd}).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{16}", echoed)


def test_a_request_is_one_line_of_json(server: Server) -> None:
    httpx.post(f"{server.url}/predict?name=x", content=BODY, headers={"X-Request-ID": "line-1"})
    line = json.loads(server.wait_for('"id":"line-1"'))
    assert line.keys() == {"time", "level", "logger", "message", "id", "method", "route", "status", "ms"}
    assert (line["method"], line["route"], line["status"]) == ("POST", "/predict", 200)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/health", 200), ("GET", "/none", 404), ("PUT", "/predict", 405), ("POST", "/predict", 422)],
)
def test_every_answer_has_safe_headers_and_lets_no_other_site_in(
    client: TestClient, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path, headers={"Origin": "https://example.com"})
    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in answer.headers


def test_an_unforeseen_error_gives_nothing_away(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    assert client.get("/ready").status_code == 200
    caplog.set_level(logging.DEBUG)
    with patch.object(ChurnPredictor, "predict_values", side_effect=RuntimeError(MARK)):
        failed = client.post("/predict", json={**CUSTOMER, "contract_type": MARK})
    assert failed.status_code == 500
    assert failed.json() == {"detail": f"internal error; request id {failed.headers['x-request-id']}"}
    assert "RuntimeError at" in caplog.text
    assert MARK not in caplog.text + "".join(str(vars(record)) for record in caplog.records)
    assert 'churn_exceptions_total{type="RuntimeError"} 1.0' in client.get("/metrics").text


def test_no_customer_reaches_the_log_or_the_metrics(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="churn_mlops")
    for body in ({**CUSTOMER, "contract_type": MARK}, {**CUSTOMER, "tenure": MARK}, {"customers": [{MARK: MARK}]}):
        for path in ("/predict", "/predict/batch", "/explain", f"/customers/{MARK}"):
            client.post(path, json=body, params={"name": MARK})
    ours = [record for record in caplog.records if record.name.startswith("churn_mlops")]
    assert len(ours) >= 12
    assert not [record for record in ours if "Private" in str(vars(record)) + record.getMessage()]
    assert "Private" not in client.get("/metrics").text


@pytest.mark.parametrize(
    ("path", "body", "problems"),
    [
        ("/predict", {**CUSTOMER, "tenure": MARK}, {"tenure": "float_type"}),
        ("/predict/batch", {"customers": [CUSTOMER, {**CUSTOMER, "tenure": MARK}]}, {"tenure": "float_type"}),
        ("/predict/batch", {"customers": [MARK]}, {"customers": "model_type"}),
        ("/predict", [MARK], {"body": "model_type"}),
        (f"/explain?top={MARK}", CUSTOMER, {"top": "int_parsing"}),
    ],
)
def test_the_log_of_a_refusal_names_column_and_kind_of_error_and_no_value(
    client: TestClient, caplog: pytest.LogCaptureFixture, path: str, body: Any, problems: dict[str, str]
) -> None:
    caplog.set_level(logging.INFO, logger="churn_mlops.serving.request_log")
    assert client.post(path, json=body).status_code == 422
    line = JsonLines().format(caplog.records[-1])
    assert json.loads(line)["problems"] == problems
    assert "Private" not in line


# --- what is unusual --------------------------------------------------------------------------------------------------


ODD = {**CUSTOMER, "tenure": 4_000, "contract_type": MARK}


@pytest.mark.parametrize("path", ["/predict", "/explain"])
def test_what_training_never_had_is_noted_by_its_column(client: TestClient, path: str) -> None:
    notes = client.post(path, json=ODD).json()["notes"]
    assert len(notes) == 2
    assert "column 'contract_type' holds a category that training never had" in notes[0]
    assert "column 'tenure' is far out of the range of training" in notes[1]
    assert "Private" not in str(notes)


def test_notes_on_a_batch_say_how_many_and_which_is_the_first(client: TestClient) -> None:
    told = client.post("/predict/batch", json={"customers": [CUSTOMER, ODD, ODD, dict.fromkeys(CUSTOMER)]}).json()
    assert [note.rpartition(" (")[2] for note in told["notes"]] == [
        "2 customers, first: 1)",
        "2 customers, first: 1)",
        "1 customers, first: 3)",
    ]


@pytest.mark.parametrize("nothing", [None, " "])
def test_a_customer_of_nothing_is_noted(client: TestClient, nothing: str | None) -> None:
    customer = {name: nothing if isinstance(value, str) else None for name, value in CUSTOMER.items()}
    assert client.post("/predict", json=customer).json()["notes"] == [
        "no column has a value: this is the answer for a customer of whom nothing is known"
    ]


@pytest.mark.parametrize("beyond", [0.9, 1.1])
@pytest.mark.parametrize("side", [-1, 1])
def test_a_number_is_far_out_from_one_width_beyond_the_range(client: TestClient, beyond: float, side: int) -> None:
    column = client.app.state.model.get().predictor.formula.named_columns["tenure"]  # type: ignore[attr-defined]
    edge = column.maximum if side > 0 else column.minimum
    tenure = edge + side * beyond * (column.maximum - column.minimum)
    assert bool(client.post("/predict", json={**CUSTOMER, "tenure": tenure}).json()["notes"]) is (beyond > 1)


def test_gaps_and_what_training_had_are_no_news(client: TestClient) -> None:
    for column in CUSTOMER:
        assert client.post("/predict", json={**CUSTOMER, column: None}).json()["notes"] == []


def test_one_customer_and_a_batch_agree_on_what_is_unusual(client: TestClient) -> None:
    for customer in (CUSTOMER, ODD, {**CUSTOMER, "total_charges": -1e9}, dict.fromkeys(CUSTOMER), {**ODD, "tenure": 1}):
        one = client.post("/predict", json=customer).json()["notes"]
        many = client.post("/predict/batch", json={"customers": [customer]}).json()["notes"]
        assert [note.rpartition(" (")[0] for note in many] == one


def test_a_date_far_from_training_is_noted(tmp_path: Path) -> None:
    days = pd.date_range("2020-01-01", periods=200)
    table = pd.DataFrame({"joined": days, "x": np.arange(200.0)})
    path = ChurnModel("logistic_regression").fit(table, [0, 1] * 100).save(tmp_path / "dates.safetensors")
    client = TestClient(create_app(path))
    notes = {
        date: client.post("/predict", json={"joined": date, "x": 1}).json()["notes"]
        for date in ("2020-01-31T10:00:00+02:00", "2020-12-01", "2031-12-01")
    }
    assert [len(each) for each in notes.values()] == [0, 0, 1]
    assert notes["2031-12-01"] == ["column 'joined' is far out of the range of training, 2020-01-01 to 2020-07-18"]


def test_rare_categories_and_new_ones_are_told_apart_from_the_known(tmp_path: Path) -> None:
    city = np.repeat(["Rome", "Oslo", "Bonn", "Metz"], [100, 95, 3, 2])
    table = pd.DataFrame({"city": city, "x": np.arange(200.0)})
    engineer = FeatureEngineer(max_categories=3)
    model = ChurnModel("logistic_regression", feature_engineer=engineer).fit(table, [0, 1] * 100)
    path = model.save(tmp_path / "cities.safetensors")
    client = TestClient(create_app(path))
    notes = [client.post("/predict", json={"city": name, "x": 1}).json()["notes"] for name in ("Rome", "Metz", "Lima")]
    assert notes[0] == []
    assert notes[1] == notes[2] == ["column 'city' holds a category that training rarely or never had"]


def test_the_metrics_count_what_is_unusual_by_column_and_tell_no_value(client: TestClient) -> None:
    client.post("/predict", json=ODD)
    client.post("/predict/batch", json={"customers": [ODD, ODD, dict.fromkeys(CUSTOMER)]})
    text = client.get("/metrics").text
    assert 'churn_unusual_values_total{column="contract_type",kind="category"} 3.0' in text
    assert 'churn_unusual_values_total{column="tenure",kind="range"} 3.0' in text
    assert "churn_empty_customers_total 1.0" in text
    assert "Private" not in text


def test_notes_cost_one_customer_no_more_than_microseconds(served: Path) -> None:
    finder = UnusualFinder(load(served).input_columns)
    values = [float(value) if isinstance(value, int) else value for value in CUSTOMER.values()]
    assert min(timeit.repeat(lambda: finder.of_one(values), number=2_000, repeat=10)) / 2_000 < 10e-6


# --- metrics ----------------------------------------------------------------------------------------------------------


def test_the_metrics_count_what_happened(client: TestClient, models: tuple[Path, Path]) -> None:
    for body in (BODY, BODY, b"{"):
        client.post("/predict", content=body)
    client.post("/predict/batch", json={"customers": [CUSTOMER] * 3})
    client.get("/no/such/path")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    lines = answer.text.splitlines()
    for line in (
        'churn_requests_total{method="POST",route="/predict",status="200"} 2.0',
        'churn_requests_total{method="POST",route="/predict",status="422"} 1.0',
        'churn_requests_total{method="GET",route="unmatched",status="404"} 1.0',
        'churn_request_seconds_count{route="/predict"} 3.0',
        "churn_batch_rows_sum 3.0",
        "churn_score_count 5.0",
        f'churn_model_info{{digest="{digest(models[0])}"}} 1.0',
        "churn_model_reload_failed 0.0",
    ):
        assert line in lines


def test_applications_do_not_share_their_numbers(client: TestClient, served: Path) -> None:
    client.post("/predict", content=BODY)
    assert 'route="/predict"' not in TestClient(create_app(served)).get("/metrics").text


def test_the_metrics_name_the_model_that_answers_now(served: Path, models: tuple[Path, Path]) -> None:
    app = create_app(served)
    app.state.model.get()
    replace(served, models[1].read_bytes())
    app.state.model.reload()
    text = TestClient(app).get("/metrics").text
    assert f'churn_model_info{{digest="{digest(models[0])}"}} 0.0' in text
    assert f'churn_model_info{{digest="{digest(models[1])}"}} 1.0' in text
    assert 'churn_model_reloads{result="ok"} 1.0' in text


# --- what the document promises ---------------------------------------------------------------------------------------


# 413 is how the contract refuses a batch that is too long; schemathesis' own list of refusals lacks it.
REFUSALS = """
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 408, 409, 413, 415, 422, 428, 429, "5xx"]
"""


@pytest.mark.parametrize("charges", ["numbers", "text"])
def test_schemathesis_finds_nothing_with_all_its_checks_on(served: Path, tmp_path: Path, charges: str) -> None:
    if charges == "text":
        table = generate_sample_data(400)
        X = table.drop(columns=["customer_id", "churn"]).assign(total_charges=table["total_charges"].map(str))
        ChurnModel("logistic_regression").fit(X, table["churn"]).save(served)
    (tmp_path / "schemathesis.toml").write_text(REFUSALS)
    runner = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(tmp_path / "schemathesis.toml"), "run"]
    options = ["--checks", "all", "--mode", "all", "--max-examples", "20", "--seed", "42", "--no-color"]
    with Server(served, CHURN_API_KEY="open sesame") as running:
        command = [*runner, f"{running.url}/openapi.json", *options, "-H", "X-API-Key: open sesame"]
        told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout[-5_000:] + told.stderr[-2_000:]
    assert not [line for line in running.log if '"status":5' in line]
