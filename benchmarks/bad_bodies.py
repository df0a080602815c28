"""What bad bodies cost a server: CPU a request, the size of the answer, and how long /health waits meanwhile.

    python benchmarks/bad_bodies.py

Starts a server on 127.0.0.1 with a model of 8 columns and one with a model of 5,000, and sends each shape in turn.
"""

import http.client
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from churn_mlops import formula
from churn_mlops.data import generate_sample_data
from churn_mlops.models import ChurnModel

MEGABYTE = 1_000_000


def bodies(customer: Mapping[str, Any]) -> dict[str, tuple[str, bytes]]:
    """Return twenty shapes of bad bodies, each with its path, made from a good customer."""
    batch, one = "/predict/batch", "/predict"
    names = list(customer)
    good = json.dumps(customer).encode()

    def many(*customers: bytes) -> bytes:
        return b'{"customers": [' + b", ".join(customers) + b"]}"

    def each(value: Any) -> bytes:
        return json.dumps(dict.fromkeys(names, value)).encode()

    return {
        "10,000 empty customers": (batch, many(*[b"{}"] * 10_000)),
        "one empty customer": (one, b"{}"),
        "deep brackets": (one, b"[" * MEGABYTE),
        "deep objects in a batch": (batch, many(b'{"a": ' * 100_000)),
        "huge whole numbers": (one, each(0).replace(b" 0", b" 1" + b"0" * 400)),
        "a number of a million digits": (one, b'{"%s": 1%s}' % (names[0].encode(), b"0" * MEGABYTE)),
        "huge exponents": (one, each(0).replace(b" 0", b" 1e999999999")),
        "a string of a megabyte": (one, each(0).replace(b" 0", b' "' + b"x" * MEGABYTE + b'"', 1)),
        "long strings everywhere": (one, each("x" * min(2_000, 16_000 // len(names)))),
        "wrong types everywhere": (batch, many(*[each([])] * min(1_000, 8_000 // len(names)))),
        "10,000 keys nobody asked for": (one, json.dumps({f"key {i}": i for i in range(10_000)}).encode()),
        "the same key 100,000 times": (one, b"{" + b'"a": 1, ' * 100_000 + b'"a": 1}'),
        "invalid UTF-8": (one, good[:-1] + b', "x": "' + b"\xff\xfe" * 1_000 + b'"}'),
        "lone surrogates": (one, each(0).replace(b" 0", rb' "\ud800\udfff\ud800"')),
        "NaN and Infinity": (
            batch,
            many(*[each(0).replace(b" 0", b" NaN")] * 10, each(0).replace(b" 0", b" -Infinity")),
        ),
        "a batch of lists": (batch, many(*[b"[]"] * 10_000)),
        "a batch in a batch": (batch, many(*[many(good)] * 10)),
        "null everywhere": (batch, many(*[b"null"] * 10_000)),
        "16 MB of spaces": (one, b" " * 16 * MEGABYTE),
        "four million small objects": (batch, many(*[b"{}"] * 4 * MEGABYTE).replace(b" ", b"")),
    }


def save_models(folder: Path) -> dict[str, Path]:
    """Fit and save a model of usual width and one of 5,000 columns."""
    usual = generate_sample_data(400)
    rng = np.random.default_rng(42)
    wide = pd.DataFrame(rng.random((60, 5_000)), columns=[f"column {i}" for i in range(5_000)])
    tables = {
        "8 columns": (usual.drop(columns=["customer_id", "churn"]), usual["churn"]),
        "5,000 columns": (wide, [0, 1] * 30),
    }
    return {
        name: ChurnModel("logistic_regression").fit(X, y).save(folder / f"{i}.safetensors")
        for i, (name, (X, y)) in enumerate(tables.items())
    }


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


class Health(threading.Thread):
    """Ask for /health without a pause, and keep how long each answer took."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.waits: list[float] = []
        self.ended = threading.Event()
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def run(self) -> None:
        """Ask about 500 times a second until told to end."""
        while not self.ended.wait(0.002):
            began = time.perf_counter()
            self._connection.request("GET", "/health")
            self._connection.getresponse().read()
            self.waits.append(time.perf_counter() - began)


def measure(port: int, pid: int, path: str, body: bytes, times: int) -> tuple[int, int, float, float]:
    """Send a body several times; return status, size of the answer, CPU ms a request and the p99 of /health in ms.

    The CPU that /health takes meanwhile is in it.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    health = Health(port)
    health.start()
    before = cpu_seconds(pid)
    for _ in range(times):
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        size = len(answer.read())
    cpu = (cpu_seconds(pid) - before) / times
    health.ended.set()
    health.join()
    return answer.status, size, cpu * 1_000, float(np.quantile(health.waits or [0], 0.99)) * 1_000


def run(name: str, path: Path, times: int) -> None:
    """Start a server, send each shape and print what it costs."""
    command = [sys.executable, "-m", "churn_mlops.serving.command", str(path), "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        port = int(re.search(r"http://127.0.0.1:(\d+)", server.stderr.readline())[1])
        threading.Thread(target=server.stderr.read, daemon=True).start()
        example = {column: 0 if value is None else value for column, value in formula.load(path).example.items()}
        print(f"\n{name}\n{'shape':32}{'bytes':>12}{'status':>8}{'answer':>9}{'CPU ms':>9}{'/health p99 ms':>16}")
        for shape, (where, body) in bodies(example).items():
            status, size, cpu, p99 = measure(port, server.pid, where, body, times)
            print(f"{shape:32}{len(body):12,}{status:8}{size:9,}{cpu:9.1f}{p99:16.1f}", flush=True)
    finally:
        server.terminate()
        server.wait(60)


def main() -> None:
    """Measure both models."""
    with tempfile.TemporaryDirectory() as folder:
        for name, path in save_models(Path(folder)).items():
            run(name, path, times=20)


if __name__ == "__main__":
    main()
