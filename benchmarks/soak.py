"""Ask a real server without a pause, exchange its model every few seconds, and print errors and memory.

python benchmarks/soak.py                         # a minute, 16 connections, a model trained on sample data
python benchmarks/soak.py models/churn-model.safetensors --seconds 300

Needs Linux (memory is read from /proc). The exit code is 1 after a failed request, or if memory grew by more than 5 %.
"""

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from churn_mlops.data import generate_sample_data
from churn_mlops.formula import load
from churn_mlops.models import ChurnModel


def memory(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024


def ask(url: str, customer: dict, until: float) -> Counter:
    """Send single customers and batches until a moment; count the answers by status."""
    one, many = json.dumps(customer).encode(), json.dumps({"customers": [customer] * 500}).encode()
    answers: Counter = Counter()
    with httpx.Client(base_url=url, timeout=60) as http:
        while time.monotonic() < until:
            for n in range(50):
                path, body = ("/predict/batch", many) if n == 0 else ("/predict", one)
                try:
                    answers[http.post(path, content=body).status_code] += 1
                except httpx.HTTPError as error:
                    answers[type(error).__name__] += 1
    return answers


def load(url: str, customer: dict, seconds: float, connections: int) -> Counter:
    """Drive the server over several connections at once."""
    until = time.monotonic() + seconds
    with ThreadPoolExecutor(connections) as threads:
        return sum(threads.map(lambda _: ask(url, customer, until), range(connections)), Counter())


def exchange(path: Path, process: subprocess.Popen, ended: threading.Event) -> None:
    """Announce the model file anew every five seconds."""
    while not ended.wait(5):
        process.send_signal(signal.SIGHUP)


def soak(path: Path, seconds: float, connections: int) -> bool:
    """Run the soak and print what came of it."""
    command = [sys.executable, "-m", "churn_mlops.serving.command", str(path), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        first = next(line for line in process.stderr if line.startswith("churn-serve:"))
        threading.Thread(target=lambda: [None for _ in process.stderr], daemon=True).start()  # keep the pipe empty
        url, customer = re.search(r"http://\S+", first)[0], load(path).example
        load(url, customer, min(10, seconds / 4), connections)  # caches fill and threads start
        before, ended = memory(process.pid), threading.Event()
        exchanger = threading.Thread(target=exchange, args=(path, process, ended))
        exchanger.start()
        answers = load(url, customer, seconds, connections)
        ended.set()
        exchanger.join()
        after = memory(process.pid)
    finally:
        process.terminate()
        process.wait(60)
    failed = sum(count for status, count in answers.items() if status != 200)
    print(
        f"{answers.total():,} requests over {connections} connections in {seconds:g} s: {failed} failed {dict(answers)}"
    )
    print(f"memory: {before:.1f} MB before, {after:.1f} MB after ({after / before - 1:+.1%})")
    return failed == 0 and after <= 1.05 * before


def main() -> None:
    """Read the options, train a model where none is given, and soak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--connections", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.model is None:
            table = generate_sample_data(2_000)
            model = ChurnModel("logistic_regression").fit(table.drop(columns=["customer_id", "churn"]), table["churn"])
            options.model = model.save(Path(folder) / "churn-model.safetensors")
        sys.exit(0 if soak(options.model, options.seconds, options.connections) else 1)


if __name__ == "__main__":
    main()
