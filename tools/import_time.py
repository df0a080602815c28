"""Show what `import churn_mlops` costs over bare Python, and that it loads none of the heavy libraries."""

import subprocess
import sys
import time

HEAVY = ("numpy", "pandas", "scipy", "sklearn", "skops", "pydantic", "typer", "rich", "fastapi")


def seconds(code: str, repeats: int = 20) -> float:
    """Time the fastest of several fresh interpreters that run a line of code."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        times.append(time.perf_counter() - start)
    return min(times)


def loaded(code: str) -> list[str]:
    """Name the heavy libraries that a fresh interpreter has loaded after a line of code."""
    code += f"; import sys; print(*[name for name in {HEAVY} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()


if __name__ == "__main__":
    cost = 1000 * (seconds("import churn_mlops") - seconds("pass"))
    print(f"import churn_mlops: {cost:.0f} ms over bare Python, heavy libraries loaded: {loaded('import churn_mlops')}")
