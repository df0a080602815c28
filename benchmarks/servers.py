"""Requests a second, side by side: our server, MLflow's, BentoML's, a plain FastAPI endpoint and an empty one.

    make bench                                                        after accuracy and prediction, the servers
    python benchmarks/servers.py telco.csv --target Churn --id-column customerID
    python benchmarks/servers.py --only empty --only churn-serve --seconds 3

The model is gradient boosting. The others serve it as one would without this package: scikit-learn's
HistGradientBoosting in a Pipeline behind a ColumnTransformer. All servers run on this machine, one after another, with
one worker, and their answer is compared with the model's before they are timed. wrk drives them if it is installed
(Debian: apt-get install wrk), else a client in Python, which needs more of the machine than wrk does.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import httpx
import joblib
import pandas as pd
import typer
from options import DataArgument, JsonFileOption, SampleOption, customers
from prediction import as_rows
from results import machine, save
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from churn_mlops.learners.registry import make_estimator
from churn_mlops.models import ChurnModel, ChurnPredictor
from churn_mlops.models.train import IdOption, PositiveOption, TargetOption

APPS = Path(__file__).resolve().parent / "apps"
KIND = "hist_gradient_boosting"
EMPTY, OURS, MLFLOW = "empty FastAPI endpoint", "churn-serve", "MLflow"
LIBRARIES = ("scikit-learn", "fastapi", "uvicorn", "httptools", "uvloop", "mlflow", "bentoml")
CLIENT = "wrk" if shutil.which("wrk") else "a client in Python"
FAIR = (
    "The FastAPI endpoints run on uvicorn with the parser and the event loop of churn-serve, httptools and uvloop, and "
    "write no log, while churn-serve checks each value, counts, and writes a line for each request. MLflow and BentoML "
    "run as their commands start them. The empty endpoint reads nothing and answers a constant; it is there a second "
    "time on h11 and asyncio, which is what uvicorn uses when nothing else is installed. Every server computes with "
    "one thread (OMP_NUM_THREADS=1): scikit-learn's boosted trees are slower with more when there is one row."
)
WRK = """
wrk.method, wrk.body = "POST", [==[%s]==]
wrk.headers["Content-Type"] = "application/json"
function done(summary, latency)
    local e = summary.errors
    local failed = e.connect + e.read + e.write + e.status + e.timeout
    local told = '{"requests": %%d, "seconds": %%f, "failed": %%d, "p50": %%f, "p99": %%f}\\n'
    io.write(told:format(summary.requests, summary.duration / 1e6, failed,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


@dataclass
class Server:
    """A server to time: how it is started, what it is asked and how its answer is read."""

    command: list[str]
    path: str
    body: bytes
    read: Callable[[Any], float]
    expected: float


def uvicorn(app: str, http: str = "httptools", loop: str = "uvloop") -> list[str]:
    """Start an application of the folder ``apps``."""
    options = ["--http", http, "--loop", loop, "--no-access-log", "--app-dir", str(APPS), "--port", "{port}"]
    return [sys.executable, "-m", "uvicorn", f"{app}:app", *options]


def command(module: str, *arguments: str) -> list[str]:
    """Start a module of a library as its own command does."""
    return [sys.executable, "-m", module, *arguments]


def servers(X: pd.DataFrame, y: pd.Series, folder: Path) -> dict[str, Server]:
    """Train the model on both sides, save it for each server, and say how each is started."""
    ours = ChurnModel(KIND).fit(X, y).save(folder / "churn-model.zip")
    numbers = X.select_dtypes("number").columns
    pipeline = make_pipeline(
        make_column_transformer(
            (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), list(numbers)),
            (OneHotEncoder(handle_unknown="ignore", sparse_output=False), list(X.columns.drop(numbers))),
        ),
        make_estimator(KIND),
    ).fit(X, y)
    joblib.dump({"pipeline": pipeline, "dtypes": X.dtypes.to_dict()}, folder / "pipeline.joblib")
    os.environ["BENCH_PIPELINE"] = str(folder / "pipeline.joblib")
    customer = as_rows(X)[0]
    body = json.dumps(customer).encode()
    theirs = float(pipeline.predict_proba(X[:1])[0, 1])
    our_answer = ChurnPredictor(ours).predict(customer)["churn_probability"]

    def simple(answer: Any) -> float:
        return float(answer["churn_probability"])

    found = {
        EMPTY: Server(uvicorn("empty"), "/predict", body, simple, 0.5),
        f"{EMPTY}, h11 and asyncio": Server(uvicorn("empty", "h11", "asyncio"), "/predict", body, simple, 0.5),
        OURS: Server(
            command("churn_mlops.serving.command", str(ours), "--port", "{port}"), "/predict", body, simple, our_answer
        ),
        "FastAPI + scikit-learn": Server(uvicorn("plain"), "/predict", body, simple, theirs),
    }
    if find_spec("mlflow"):
        import mlflow.sklearn

        model = folder / "mlflow"
        mlflow.sklearn.save_model(
            pipeline, str(model), serialization_format="cloudpickle", pyfunc_predict_fn="predict_proba"
        )
        start = ["models", "serve", "-m", str(model), "--env-manager", "local", "--workers", "1", "--port", "{port}"]
        asked = json.dumps({"dataframe_split": {"columns": list(X), "data": [list(customer.values())]}}).encode()
        found[MLFLOW] = Server(
            command("mlflow", *start), "/invocations", asked, lambda answer: answer["predictions"][0][1], theirs
        )
    if find_spec("bentoml"):
        start = ["serve", "bento:Churn", "--working-dir", str(APPS), "--host", "127.0.0.1", "--port", "{port}"]
        asked = json.dumps({"customer": customer}).encode()
        found["BentoML"] = Server(command("bentoml", *start), "/predict", asked, simple, theirs)
    for library in ("mlflow", "bentoml"):
        if not find_spec(library):
            print(f"{library} is not installed: left out", file=sys.stderr)
    return found


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def ask(url: str, server: Server, process: subprocess.Popen[bytes], log: Path, patience: float = 120) -> Any:
    """Ask until the server answers, and return the answer."""
    until = time.monotonic() + patience
    while time.monotonic() < until and process.poll() is None:
        try:
            answer = httpx.post(url, content=server.body, headers={"Content-Type": "application/json"}, timeout=10)
        except httpx.TransportError:
            time.sleep(0.1)
            continue
        if answer.status_code == 200:
            return answer.json()
        raise RuntimeError(f"{server.path} answered {answer.status_code}: {answer.text[:500]}")
    raise RuntimeError(f"the server did not start:\n{log.read_text()[-2_000:]}")


@contextmanager
def running(server: Server, folder: Path) -> Iterator[tuple[str, int]]:
    """Start a server, check its answer, give its address and its number, and end it with all that it started."""
    port, log = free_port(), folder / "server.log"
    with log.open("wb") as output:
        started = [part.format(port=port) for part in server.command]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where MLflow looks for uvicorn
        environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            started, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            url = f"http://127.0.0.1:{port}{server.path}"
            answer = server.read(ask(url, server, process, log))
            if abs(answer - server.expected) > 1e-9:
                raise RuntimeError(f"the server answers {answer}, the model {server.expected}")
            yield url, process.pid
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it started, gently at first."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(15)
    for last in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, last)
        except ProcessLookupError:
            break
        time.sleep(0.5)
    process.wait()


def drive_with_wrk(url: str, body: bytes, connections: int, seconds: float, folder: Path) -> dict[str, float]:
    """Send requests with wrk for some seconds."""
    script = folder / "wrk.lua"
    script.write_text(WRK % body.decode())
    options = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s", "-s", str(script)]
    told = subprocess.run(["wrk", *options, url], capture_output=True, text=True, check=True).stdout
    return dict(json.loads(re.sub(r"-?nan", "0", told.splitlines()[-1])))


async def one_connection(url: httpx.URL, body: bytes, until: float, times: list[float]) -> int:
    """Send requests over one connection, one after another; note the times and count what failed."""
    reader, writer = await asyncio.open_connection(url.host, url.port)
    head = f"POST {url.path} HTTP/1.1\r\nHost: {url.host}\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    failed = 0
    while (start := time.perf_counter()) < until:
        writer.write(request)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.partition(b"content-length:")[2].split(b"\r\n")[0])
        await reader.readexactly(length)
        times.append(time.perf_counter() - start)
        failed += b" 200 " not in answer[:16]
    writer.close()
    return failed


async def over_all(url: str, body: bytes, connections: int, seconds: float) -> dict[str, float]:
    """Send requests over several connections at once."""
    times: list[float] = []
    start = time.perf_counter()
    work = [one_connection(httpx.URL(url), body, start + seconds, times) for _ in range(connections)]
    failed = sum(await asyncio.gather(*work))
    hundredths = statistics.quantiles(times, n=100)
    taken = time.perf_counter() - start
    figures = {"requests": len(times), "seconds": taken, "failed": failed}
    return figures | {"p50": 1e3 * hundredths[49], "p99": 1e3 * hundredths[98]}


def processor_seconds(pid: int) -> float:
    """Add up what a process and those that it started have used; 0 where the system does not tell."""
    parents, ticks = {}, {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # one that ended meanwhile
            number, fields = int(file.parent.name), file.read_text().rpartition(")")[2].split()
            parents[number], ticks[number] = int(fields[1]), int(fields[11]) + int(fields[12])
    family, found = set(), {pid}
    while found:
        family |= found
        found = {child for child, parent in parents.items() if parent in found}
    return sum(ticks.get(each, 0) for each in family) / os.sysconf("SC_CLK_TCK")


def drive(url: str, body: bytes, connections: int, seconds: float, folder: Path, pid: int) -> dict[str, float]:
    """Send requests for some seconds; return those answered in a second, and waiting and processor time in ms."""
    before = processor_seconds(pid)
    if shutil.which("wrk"):
        figures = drive_with_wrk(url, body, connections, seconds, folder)
    else:
        figures = asyncio.run(over_all(url, body, connections, seconds))
    if figures["failed"]:
        raise RuntimeError(f"{figures['failed']:.0f} of {figures['requests']:.0f} requests failed")
    used = 1e3 * (processor_seconds(pid) - before) / figures["requests"]
    return {"rate": figures["requests"] / figures["seconds"], "p50": figures["p50"], "p99": figures["p99"], "cpu": used}


def as_table(figures: dict[str, dict[int, dict[str, float]]]) -> tuple[list[str], list[list[str]]]:
    """Return the names of the columns and the rows of the table; ratios are of requests a second."""
    beside = [name for name in (MLFLOW, EMPTY) if name in figures]
    columns = ["", "connections", "requests/s", "p50 ms", "p99 ms", "CPU ms", *[f"x {name}" for name in beside]]
    rows = []
    for n in next(iter(figures.values())):
        for name, each in figures.items():
            rate = each[n]["rate"]
            ratios = [rate / figures[other][n]["rate"] for other in beside]
            told = [f"{each[n][key]:.2f}" for key in ("p50", "p99", "cpu")]
            rows.append([name, str(n), f"{rate:,.0f}", *told, *[f"{r:.2f}" if r < 10 else f"{r:.0f}" for r in ratios]])
    return columns, rows


def main(
    data: DataArgument = None,
    target: TargetOption = None,
    id_column: IdOption = None,
    positive: PositiveOption = None,
    sample_size: SampleOption = None,
    only: Annotated[list[str] | None, typer.Option(help="Only servers with this in their name; repeatable.")] = None,
    seconds: Annotated[float, typer.Option(help="How long each server is driven, for each number.")] = 8,
    connections: Annotated[list[int] | None, typer.Option(help="Connections at once; repeatable: 1 and 16.")] = None,
    json_file: JsonFileOption = None,
) -> None:
    """Start each server in turn, drive it, and print one table."""
    X, y, described = customers(data, sample_size, target=target, id_column=id_column, positive=positive)
    warnings.simplefilter("ignore")
    figures: dict[str, dict[int, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, server in servers(X, y, folder).items():
            if only and not any(each.lower() in title.lower() for each in only):
                continue
            with running(server, folder) as (url, pid):
                drive(url, server.body, 4, min(2, seconds), folder, pid)  # caches fill, threads start
                figures[title] = {n: drive(url, server.body, n, seconds, folder, pid) for n in connections or (1, 16)}
            rates = ", ".join(f"{each['rate']:,.0f}/s over {n}" for n, each in figures[title].items())
            print(f"{title}: {rates}", file=sys.stderr)
    names, rows = as_table(figures)
    known = [name for name in LIBRARIES if find_spec(name.replace("scikit-learn", "sklearn"))]
    libraries = [f"{name} {version(name)}" for name in known] + [CLIENT]
    about = (
        f"{described}. A request asks for one customer and gets a probability of gradient boosting; one worker each, "
        f"{seconds:g} s, driven by {CLIENT} on the same machine. CPU ms: processor time of the server for a request."
    )
    print(f"\n{about}\n{machine(libraries)}\n")
    for row in (names, ["---", *["---:"] * (len(names) - 1)], *rows):
        print(f"| {' | '.join(row)} |")
    if json_file is not None:
        options = {"command": "make bench", "columns": names, "rows": rows, "notes": [FAIR], "libraries": libraries}
        save(json_file, title="Servers", about=about, **options)


if __name__ == "__main__":
    typer.run(main)
