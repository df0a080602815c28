"""Utilities: the timer changes nothing but the log, and names that packages hand on behave like ordinary ones."""

import asyncio
import importlib
import inspect
import io
import logging
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pandas as pd
import pytest

from churn_mlops.utils import spreadsheet_csv, timing

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def info_log(caplog: pytest.LogCaptureFixture) -> None:
    """Capture this module's log from INFO on."""
    caplog.set_level(logging.INFO, logger=__name__)


@timing
def double(x: int, *, times: int = 2) -> int:
    """Multiply a number."""
    return x * times


@timing
def fail() -> None:
    """Raise an error."""
    raise KeyError("customer 7")


@timing
async def async_double(x: int) -> int:
    """Multiply a number, after a turn of the event loop."""
    await asyncio.sleep(0)
    return x * 2


@timing
async def async_fail() -> None:
    """Raise an error, after a turn of the event loop."""
    await asyncio.sleep(0)
    raise KeyError("customer 7")


class Scaler:
    """A class with each kind of method."""

    factor = 3

    @timing
    def scale(self, x: int) -> int:
        """Scale in the instance."""
        return x * self.factor

    @timing
    async def async_scale(self, x: int) -> int:
        """Scale in a coroutine."""
        return x * self.factor

    @classmethod
    @timing
    def of_class(cls, x: int) -> int:
        """Scale in the class."""
        return x * cls.factor

    @staticmethod
    @timing
    def of_nobody(x: int) -> int:
        """Scale by itself."""
        return x * 3


def only_line(caplog: pytest.LogCaptureFixture) -> logging.LogRecord:
    """Hand back the one record that was logged."""
    (record,) = caplog.records
    return record


# --- timing -----------------------------------------------------------------------------------------------------------


def test_timing_logs_name_and_seconds_at_info(caplog: pytest.LogCaptureFixture) -> None:
    assert double(4, times=3) == 12
    record = only_line(caplog)
    assert re.fullmatch(r"double took \d+\.\d{3} s", record.getMessage())
    assert record.levelno == logging.INFO


def test_timing_logs_to_the_logger_of_the_functions_module(caplog: pytest.LogCaptureFixture) -> None:
    double(4)
    assert only_line(caplog).name == double.__module__ == __name__


def test_timing_keeps_name_docstring_signature_and_annotations() -> None:
    assert (double.__name__, double.__doc__) == ("double", "Multiply a number.")
    assert str(inspect.signature(double)) == "(x: int, *, times: int = 2) -> int"
    assert inspect.get_annotations(double) == {"x": int, "times": int, "return": int}


@pytest.mark.parametrize("call", [Scaler().scale, Scaler.of_class, Scaler.of_nobody])
def test_timing_works_on_methods(call: object, caplog: pytest.LogCaptureFixture) -> None:
    assert callable(call)
    assert call(5) == 15
    assert only_line(caplog).getMessage().startswith(f"Scaler.{call.__name__} took ")


def test_timing_keeps_a_coroutine_function_one() -> None:
    assert inspect.iscoroutinefunction(async_double)
    assert inspect.iscoroutinefunction(Scaler().async_scale)


def test_timing_logs_a_coroutine_once_its_result_is_there(caplog: pytest.LogCaptureFixture) -> None:
    coroutine = async_double(4)
    assert caplog.records == []
    assert asyncio.run(coroutine) == 8
    assert only_line(caplog).getMessage().startswith("async_double took ")


def test_timing_works_on_async_methods(caplog: pytest.LogCaptureFixture) -> None:
    assert asyncio.run(Scaler().async_scale(5)) == 15
    assert only_line(caplog).getMessage().startswith("Scaler.async_scale took ")


def test_timing_passes_an_error_on_and_logs_the_call(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(KeyError, match="customer 7"):
        fail()
    assert only_line(caplog).getMessage().startswith("fail took ")


def test_timing_passes_the_error_of_a_coroutine_on_and_logs_the_call(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(KeyError, match="customer 7"):
        asyncio.run(async_fail())
    assert only_line(caplog).getMessage().startswith("async_fail took ")


@pytest.mark.parametrize("value", ["7590-VHVEG", 70.35])
def test_timing_never_logs_arguments(value: object, caplog: pytest.LogCaptureFixture) -> None:
    timing(lambda customer: customer)(value)
    assert str(value) not in only_line(caplog).getMessage()


def test_timing_hands_a_generator_on_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    @timing
    def batches() -> Iterator[int]:
        yield from (1, 2)

    generator = batches()
    assert inspect.isgenerator(generator)
    assert list(generator) == [1, 2]
    assert len(caplog.records) == 1


def test_timing_hands_an_async_generator_on_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    @timing
    async def batches() -> AsyncIterator[int]:
        yield 1
        yield 2

    async def collect() -> list[int]:
        return [batch async for batch in batches()]

    assert asyncio.run(collect()) == [1, 2]
    assert len(caplog.records) == 1


# --- names that packages hand on --------------------------------------------------------------------------------------

HANDED_ON = {
    "churn_mlops": ["ChurnModel", "ChurnPredictor"],
    "churn_mlops.models": ["ChurnModel", "ChurnPredictor", "compare_models", "train_model"],
    "churn_mlops.report": ["evaluate_report", "threshold_slider", "what_if"],
}
EACH = [(package, name) for package, names in HANDED_ON.items() for name in names]


def fresh(code: str) -> str:
    """Run code in a new process, and give what it printed."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("package", HANDED_ON)
def test_all_lists_the_names_that_are_handed_on(package: str) -> None:
    assert importlib.import_module(package).__all__ == HANDED_ON[package]


@pytest.mark.parametrize(("package", "name"), EACH)
def test_a_name_that_is_handed_on_is_that_of_its_module(package: str, name: str) -> None:
    value = getattr(importlib.import_module(package), name)
    assert value is getattr(sys.modules[value.__module__], name)
    assert vars(sys.modules[package])[name] is value, "an ordinary attribute after its first use"


@pytest.mark.parametrize("package", HANDED_ON)
def test_a_name_is_imported_when_it_is_first_used(package: str) -> None:
    name, heavy = HANDED_ON[package][0], "'sklearn' in sys.modules"
    code = f"import sys, {package} as p; dir(p); print({heavy}); from {package} import {name}; print({heavy})"
    assert fresh(code).split() == ["False", "True"]


@pytest.mark.parametrize("package", HANDED_ON)
def test_dir_lists_the_names_without_importing_them(package: str) -> None:
    listed = fresh(f"import sys, {package} as p; print('pandas' in sys.modules, *dir(p))").split()
    assert listed[0] == "False"
    assert {*HANDED_ON[package], "__name__"} <= set(listed)


@pytest.mark.parametrize("package", HANDED_ON)
def test_an_unknown_name_is_an_attribute_error_like_any_other(package: str) -> None:
    module = importlib.import_module(package)
    with pytest.raises(AttributeError, match=rf"^module '{package}' has no attribute 'anwser'$"):
        _ = module.anwser
    assert not hasattr(module, "anwser")


def test_importing_the_package_loads_only_the_standard_library() -> None:
    code = "import sys, churn_mlops as p; print(*{n.partition('.')[0] for n in sys.modules} - sys.stdlib_module_names)"
    assert set(fresh(code).split()) - {"__main__", "sitecustomize", "usercustomize"} <= set(
        fresh("import sys; print(*{n.partition('.')[0] for n in sys.modules})").split()
    ) | {"churn_mlops"}


def test_importing_the_package_loads_neither_pandas_nor_scikit_learn() -> None:
    code = "import sys, churn_mlops; print(sorted({'pandas', 'sklearn', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
@pytest.mark.parametrize("dtype", ["object", "str", "category"])
def test_text_that_begins_like_a_formula_is_text_in_a_spreadsheet(start: str, dtype: str) -> None:
    table = pd.DataFrame({f"{start}name": pd.Series([f"{start}1+1", "plain", None], dtype=dtype)})
    table.index = pd.Index([f"{start}a", "b", "c"], name=f"{start}id")
    read = pd.read_csv(io.StringIO(spreadsheet_csv(table), newline=""), lineterminator="\n")
    assert list(read.columns) == [f"'{start}id", f"'{start}name"]
    assert read.iloc[:, 0].tolist() == [f"'{start}a", "b", "c"]
    assert read.iloc[:2, 1].tolist() == [f"'{start}1+1", "plain"]


def test_numbers_and_dates_are_written_as_pandas_writes_them() -> None:
    table = pd.DataFrame({"profit": [-1.5, None], "day": pd.to_datetime(["2025-01-31", None]), "n": [-1, 2]})
    assert spreadsheet_csv(table, index=False) == table.to_csv(index=False)
