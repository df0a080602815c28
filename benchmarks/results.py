"""Keep what a benchmark measured as JSON, with its machine: the page Benchmarks of the site is made from it."""

import json
import os
import platform
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path


def machine(libraries: Iterable[str] = ()) -> str:
    """Describe this machine in one line: processor, memory, system, Python and libraries."""
    cpuinfo = Path("/proc/cpuinfo")
    known = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.is_file() else None
    processor = known[1] if known else platform.processor() or platform.machine()
    parts = [processor, f"{os.cpu_count()} cores", platform.system(), f"Python {platform.python_version()}"]
    return ", ".join([*parts, *libraries])


def save(
    path: Path,
    *,
    title: str,
    about: str,
    command: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    notes: Sequence[str] = (),
    libraries: Iterable[str] = (),
) -> None:
    """Write one table as JSON: its cells as they are to be read, what it is about, and where it was measured."""
    told = {
        "title": title,
        "about": about,
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(libraries),
        "columns": list(columns),
        "rows": [list(row) for row in rows],
        "notes": list(notes),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def publish(
    json_file: Path | None, *, about: str, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str
) -> None:
    """Print one table of `make bench`, and keep it where a file is named."""
    print(f"{about}\n{machine()}\n{json.dumps([columns, *rows], indent=1)}")
    if json_file is not None:
        save(json_file, title=title, about=about, command="make bench", columns=columns, rows=rows)
