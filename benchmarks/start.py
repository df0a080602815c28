"""From start to the first answer, and the memory: churn-serve, and FastAPI around a scikit-learn Pipeline.

    python benchmarks/start.py                                        Telco if it is there, else sample data
    python benchmarks/start.py --json benchmarks/results/start.json

Each server is started several times, in turn, and asked every few milliseconds until it answers. Memory is that of its
process after 1,000 answers, as Linux tells it. churn-serve runs with NumPy and, where it is installed, with numba.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from options import DataArgument, JsonFileOption, SampleOption, customers
from results import publish
from servers import OURS, Server, end, free_port, servers

from churn_mlops.models.train import IdOption, PositiveOption, TargetOption

RIVAL = "FastAPI + scikit-learn"
NO_NUMBA = "import sys; sys.modules['numba'] = None; from churn_mlops.serving.command import main; main()"
HEAVY = ("pandas", "sklearn", "scipy")


def memory(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def start(server: Server, folder: Path) -> tuple[float, float]:
    """Start a server, ask until it answers, ask 1,000 times more; return the seconds and the memory in MB."""
    port = free_port()
    with (folder / "server.log").open("wb") as log:
        began = time.perf_counter()
        command = [part.format(port=port) for part in server.command]
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
                while True:
                    try:
                        answer = http.post(
                            server.path, content=server.body, headers={"Content-Type": "application/json"}
                        )
                        break
                    except httpx.TransportError:
                        if process.poll() is not None or time.perf_counter() - began > 60:
                            raise RuntimeError((folder / "server.log").read_text()[-2_000:]) from None
                        time.sleep(0.005)
                first = time.perf_counter() - began
                if abs(server.read(answer.raise_for_status().json()) - server.expected) > 1e-9:
                    raise RuntimeError(f"the server answers {answer.text}, the model {server.expected}")
                for _ in range(1_000):
                    http.post(server.path, content=server.body, headers={"Content-Type": "application/json"})
            return first, memory(process.pid)
        finally:
            end(process)


def modules(server: Server) -> list[str]:
    """Name the heavy libraries that churn-serve has loaded once it can answer."""
    first = "import sys; sys.modules['numba'] = None" if "-c" in server.command else "import sys"
    code = f"""{first}
import churn_mlops.serving.command, churn_mlops.serving.protocol
from churn_mlops.serving.app import create_app
create_app(sys.argv[1]).state.model.get()
print(*[name for name in {HEAVY} if sys.modules.get(name)])"""
    model = next(part for part in server.command if part.endswith(".safetensors"))
    command = [sys.executable, "-c", code, model]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()


def main(
    data: DataArgument = None,
    target: TargetOption = None,
    id_column: IdOption = None,
    positive: PositiveOption = None,
    sample_size: SampleOption = None,
    rounds: Annotated[int, typer.Option(help="How often each server is started.")] = 5,
    json_file: JsonFileOption = None,
) -> None:
    """Start each server in turn, and print one table."""
    X, y, described = customers(data, sample_size, target=target, id_column=id_column, positive=positive)
    warnings.simplefilter("ignore")
    taken: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        known = servers(X, y, folder)
        ours = known[OURS]
        plain = Server([sys.executable, "-c", NO_NUMBA, *ours.command[3:]], *list(vars(ours).values())[1:])
        chosen = {f"{OURS}, NumPy": plain, RIVAL: known[RIVAL]}
        if find_spec("numba"):
            chosen = {f"{OURS}, numba": ours, **chosen}
        for _ in range(rounds):
            for title, server in chosen.items():
                taken.setdefault(title, []).append(start(server, folder))
        loaded = {title: modules(server) for title, server in chosen.items() if title != RIVAL}
    loaded[RIVAL] = list(HEAVY)
    columns = ["", "first answer s", "memory MB", "of pandas, scikit-learn, scipy"]
    rows: list[list[Any]] = []
    for title, each in taken.items():
        seconds, megabytes = (statistics.median(values) for values in zip(*each, strict=True))
        rows.append([title, f"{seconds:.2f}", f"{megabytes:.0f}", ", ".join(loaded[title]) or "none"])
    about = f"{described}. Gradient boosting; the median of {rounds} starts. Memory: after 1,000 answers."
    publish(json_file, title="Start", about=about, columns=columns, rows=rows)


if __name__ == "__main__":
    typer.run(main)
