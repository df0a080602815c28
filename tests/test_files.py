"""Model files: whole or not there, the same for the same model, and never able to run or crash anything."""

import bz2
import errno
import gzip
import io
import json
import lzma
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import warnings
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from mutants import chain, crafted, forge, mutants, read, tree
from safetensors.numpy import save as save_arrays

from churn_mlops.data import generate_sample_data
from churn_mlops.formula import Formula, ModelFileError, ModelRecord, UnsafeModelError, load
from churn_mlops.formula.encoding import Column
from churn_mlops.formula.file import NewFile, from_bytes, to_bytes, write_files
from churn_mlops.learners.registry import MODEL_TYPES
from churn_mlops.models import ChurnModel, ChurnPredictor

SMALL = {
    "blend": {"max_iter": 6, "cv": 2},
    "random_forest": {"n_estimators": 4, "max_depth": 4},
    "hist_gradient_boosting": {"max_iter": 4},
    "lightgbm": {"max_trees": 6},
}


@pytest.fixture(scope="module")
def table():
    """Make raw customers with every kind of column and gaps, and their labels."""
    rng, customers = np.random.default_rng(0), generate_sample_data(300)
    X = customers.drop(columns=["customer_id", "churn"]).assign(
        joined=pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, 300), unit="D"),
        paperless=rng.random(300) < 0.5,
        city=rng.choice([f"city {i}" for i in range(40)], 300),
    )
    X["tenure"] = X["tenure"].astype(float).mask(rng.random(300) < 0.1)
    X["contract_type"] = X["contract_type"].mask(rng.random(300) < 0.1)
    return X, customers["churn"].to_numpy()


@pytest.fixture(scope="module")
def fitted(table):
    """Fit a model of each type."""
    return {name: ChurnModel(name, **SMALL.get(name, {})).fit(*table) for name in MODEL_TYPES}


@pytest.fixture(scope="module")
def sound(fitted, tmp_path_factory):
    """Write a sound file of each model."""
    folder = tmp_path_factory.mktemp("sound")
    return {name: model.save(folder / f"{name}.safetensors") for name, model in fitted.items()}


def small(value=0.0):
    """Return a formula of one column that says one thing."""
    column = Column("tenure", "numeric", 72, 29.0, (0.0,), mean=32.4, scale=24.6, median=29.0, maximum=72.0)
    return Formula((column,), value)


# --- round trips ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODEL_TYPES)
def test_round_trip_gives_equal_answers(name, fitted, sound, table):
    formula, again = fitted[name].formula_, load(sound[name])
    np.testing.assert_array_equal(again.probabilities(table[0]), formula.probabilities(table[0]))
    shares = again.contributions(table[0]).values
    np.testing.assert_array_equal(shares, formula.contributions(table[0]).values)
    assert (again.columns, again.derived, again.labels) == (formula.columns, formula.derived, formula.labels)
    assert (again.record.model_type, again.record.n_rows) == (name, 300)


@pytest.mark.parametrize("labels", [("No", "Yes"), (False, True), (1, 2)])
def test_round_trip_keeps_the_labels(labels, table, tmp_path):
    model = ChurnModel("random_forest", n_estimators=3).fit(table[0], np.asarray(labels)[table[1]])
    assert load(model.save(tmp_path / "model")).labels == labels


def test_writing_leaves_the_model_in_memory_as_it_was(fitted, tmp_path):
    model = fitted["hist_gradient_boosting"]
    before = dict(vars(model))
    model.save(tmp_path / "model")
    assert vars(model) == before


@pytest.mark.parametrize("name", ["model", "model.pkl", "model.joblib", "deep/er/model.zip"])
def test_any_extension_and_folder_will_do(name, fitted, tmp_path):
    path = fitted["logistic_regression"].save(str(tmp_path / name))
    assert path == tmp_path / name
    assert load(path).digest == fitted["logistic_regression"].formula_.digest


@pytest.mark.parametrize("name", MODEL_TYPES)
def test_a_file_is_what_the_format_says(name, sound):
    whole = sound[name].read_bytes()
    assert forge(*read(whole)) == whole  # the tests' own account of the format


def test_a_file_holds_nothing_of_scikit_learn(sound):
    for path in sound.values():
        assert not re.search(rb"sklearn\.|numpy\.|builtins|__reduce__|__class__", path.read_bytes())


def test_the_record_names_the_versions(sound):
    versions = load(sound["logistic_regression"]).record.versions
    assert set(versions) == {"python", "numpy", "pandas", "scikit-learn", "churn_mlops"}


def test_a_file_holds_no_id_and_no_row(sound):
    whole = b"".join(path.read_bytes() for path in sound.values())
    assert b"CUST" not in whole
    assert not any(customer.encode() in whole for customer in generate_sample_data(300)["customer_id"])


# --- the same model, the same bytes --------------------------------------------------------------

FIT_AND_WRITE = """
import sys
from churn_mlops.data import generate_sample_data
from churn_mlops.models import ChurnModel
customers = generate_sample_data(300)
raw = customers.drop(columns=["customer_id", "churn"])
for name, params in {"random_forest": {"n_estimators": 4}, "logistic_regression": {}, "lightgbm": {"max_trees": 4},
                     "hist_gradient_boosting": {"max_iter": 4}, "blend": {"max_iter": 4, "cv": 2}}.items():
    ChurnModel(name, **params).fit(raw, customers["churn"]).save(f"{sys.argv[1]}/{name}")
"""


def test_models_fitted_in_two_processes_give_the_same_bytes(tmp_path):
    for seed in ("1", "2"):
        (tmp_path / seed).mkdir()
        run = [sys.executable, "-c", FIT_AND_WRITE, str(tmp_path / seed)]
        env = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1", "SOURCE_DATE_EPOCH": "1700000000"}
        subprocess.run(run, check=True, env=env)
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / seed).iterdir()} for seed in ("1", "2"))
    assert first == second
    assert len(first) == 5
    assert load(tmp_path / "1" / "blend").record.trained_at == "2023-11-14T22:13:20+00:00"


@pytest.mark.parametrize("name", MODEL_TYPES)
def test_a_model_that_was_loaded_gives_the_same_bytes(name, sound, tmp_path):
    whole = sound[name].read_bytes()
    assert load(sound[name]).save(tmp_path / "again").read_bytes() == whole
    assert ChurnModel.load(sound[name]).save(tmp_path / "again").read_bytes() == whole


def test_the_digest_names_the_model_and_not_the_hour(fitted):
    formula = fitted["logistic_regression"].formula_
    later = replace(formula, record=replace(formula.record, trained_at="2026-01-01T00:00:00+00:00"))
    assert formula.digest.startswith("sha256:")
    assert later.digest == formula.digest
    assert to_bytes(later) != to_bytes(formula)
    assert from_bytes(to_bytes(later)).digest == formula.digest
    other = replace(formula, record=replace(formula.record, params={"C": 2}))
    assert len({formula.digest, other.digest, formula.updated(threshold=0.4).digest, small().digest}) == 4


# --- files that are no model files ---------------------------------------------------------------


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.model.*churn-train"):
        load(tmp_path / "no.model")


class Bomb:
    """An object whose pickle leaves a mark when it is loaded."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        """Rebuild by making a file."""
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_refused_and_not_run(protocol, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "mark"), protocol=protocol))
    with pytest.raises(UnsafeModelError, match=r"pickle.*load it yourself.*ChurnModel\.save") as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("compress", [0, *((kind, 3) for kind in ("zlib", "gzip", "bz2", "lzma", "xz"))])
def test_a_joblib_file_is_refused_and_not_run(compress, tmp_path):
    joblib.dump({"a": np.ones(3), "b": Bomb(tmp_path / "mark")}, tmp_path / "model.joblib", compress=compress)
    with pytest.raises(UnsafeModelError, match="load it yourself"):
        load(tmp_path / "model.joblib")
    assert not (tmp_path / "mark").exists()


def zipped(**members):
    """Return a zip with members, in their order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), data)
    return buffer.getvalue()


def as_npz():
    """Return numpy's zip of an array."""
    buffer = io.BytesIO()
    np.savez(buffer, np.ones(3))
    return buffer.getvalue()


OTHERS = {
    "empty": (lambda: b"", "is empty"),
    "csv": (lambda: b"customerID,Churn\n1,No\n", "is not a churn_mlops model file"),
    "text that looks like a length": (lambda: b"\x10" + bytes(7) + b"{" + b" " * 40, "header is not JSON"),
    "npz": (as_npz, "is a zip.*train the model again"),
    "keras": (lambda: zipped(metadata_dot_json=b"{}", model_dot_weights_dot_h5=b"?"), "is a zip.*Keras"),
    "torch": (lambda: zipped(archive__data_dot_pkl=pickle.dumps({})), "is a zip.*PyTorch"),
    "the format before": (
        lambda: zipped(manifest_dot_json=b"{}", schema_dot_json=b"{}"),
        "older churn_mlops.*train the model again with churn-train",
    ),
    "skops": (lambda: zipped(schema_dot_json=b"{}"), "is a.* zip"),
    "hdf5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file"),
    "other safetensors": (lambda: save_arrays({"weight": np.ones(3)}), "safetensors file, but not one of churn_mlops"),
    "safetensors with metadata": (
        lambda: save_arrays({"weight": np.ones(3)}, {"format": "pt"}),
        "safetensors file, but not one of churn_mlops",
    ),
    "gzip": (lambda: gzip.compress(to_bytes(small())), "pickle|compressed"),
    "bz2": (lambda: bz2.compress(to_bytes(small())), "pickle|compressed"),
    "zlib": (lambda: zlib.compress(to_bytes(small())), "pickle|compressed"),
    "xz": (lambda: lzma.compress(to_bytes(small())), "pickle|compressed"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_another_kind_of_file_is_named_with_what_to_do(kind, tmp_path):
    make, message = OTHERS[kind]
    path = tmp_path / "model.safetensors"
    path.write_bytes(make())
    for open_ in (load, ChurnModel.load, ChurnPredictor):
        with pytest.raises(ModelFileError, match=message) as caught:
            open_(path)
        assert str(path) in str(caught.value)


def test_an_onnx_file_is_named(fitted, tmp_path):
    path = fitted["hist_gradient_boosting"].export_onnx(tmp_path / "m.onnx")
    with pytest.raises(ModelFileError, match=r"is an ONNX file.*load the model file"):
        load(path)


def test_a_folder_is_named(tmp_path):
    with pytest.raises(ModelFileError, match=re.escape(f"{tmp_path} is a folder")):
        load(tmp_path)


def test_a_file_larger_than_any_model_is_not_read(tmp_path):
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(2**31 + 1)
    with pytest.raises(ModelFileError, match="larger than any model file"):
        load(path)


# --- files that are damaged, or made to do harm --------------------------------------------------


@pytest.mark.parametrize("name", ["logistic_regression", "lightgbm"])
def test_a_file_cut_short_anywhere_is_refused(name, sound):
    whole = sound[name].read_bytes()
    ends = int.from_bytes(whole[:8], "little") + 8
    for length in {*range(0, 40), *range(40, len(whole), 97), ends - 1, ends, ends + 1, len(whole) - 1}:
        with pytest.raises(ModelFileError, match="damaged" if length > 9 else None):
            from_bytes(whole[:length])
    for more in (b"?", bytes(8), whole):
        with pytest.raises(ModelFileError):
            from_bytes(whole + more)


def test_a_byte_changed_anywhere_is_refused_or_changes_nothing(sound):
    whole = sound["lightgbm"].read_bytes()
    good = from_bytes(whole)
    positions = range(0, len(whole), 37)
    n_refused = 0
    for position in positions:
        changed = bytearray(whole)
        changed[position] ^= 0xFF
        try:
            assert to_bytes(from_bytes(bytes(changed))) == to_bytes(good)
        except ModelFileError:
            n_refused += 1
    assert n_refused > 0.9 * len(positions)


def test_a_changed_model_without_its_digest_is_refused(sound):
    arrays, content = read(sound["logistic_regression"].read_bytes())
    fits = read(forge(arrays, content))[1]["digest"]
    text = json.dumps({**content, "threshold": 0.1, "digest": fits}, sort_keys=True, separators=(",", ":"))
    with pytest.raises(ModelFileError, match="does not match its digest"):
        from_bytes(save_arrays(arrays, {"churn_mlops": text}))


@pytest.mark.parametrize("version", [2, 99, "1", None, 1.5])
def test_another_format_version_is_named(version, sound, tmp_path):
    arrays, content = read(sound["logistic_regression"].read_bytes())
    path = tmp_path / "m"
    path.write_bytes(forge(arrays, {**content, "format": version}))
    with pytest.raises(ModelFileError, match=f"format {re.escape(repr(version))}.*reads format 1.*newer churn_mlops"):
        load(path)


def test_json_that_is_too_deep_is_refused():
    text = '{"__metadata__":{"churn_mlops":"' + "[" * 100_000 + '"}}'
    with pytest.raises(ModelFileError):
        from_bytes(len(text).to_bytes(8, "little") + text.encode())


def test_an_array_that_claims_to_be_huge_takes_no_memory(sound):
    whole = sound["logistic_regression"].read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])
    header["curves.starts"]["shape"] = [10**14]
    text = json.dumps(header).encode()
    with pytest.raises(ModelFileError):
        from_bytes(len(text).to_bytes(8, "little") + text + whole[8 + size :])


def test_two_arrays_cannot_share_their_bytes(sound):
    whole = sound["lightgbm"].read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])
    header["trees.0.value"]["data_offsets"] = header["trees.0.cover"]["data_offsets"]
    text = json.dumps(header).encode()
    with pytest.raises(ModelFileError):
        from_bytes(len(text).to_bytes(8, "little") + text + whole[8 + size :])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "no_such_type"}, "of the type 'no_such_type', and this churn_mlops knows blend"),
        ({"model_type": "logistic_regression", "params": {"n_estimators": 3}}, "does not have: n_estimators"),
        ({"params": {"predict_proba": 1}}, "does not have: predict_proba"),
        ({"features": {"fit": 1}}, "does not have: fit"),
    ],
)
def test_a_record_that_does_not_fit_is_no_churn_model(change, message, fitted, tmp_path, table):
    formula = fitted["random_forest"].formula_
    path = replace(formula, record=replace(formula.record, **change)).save(tmp_path / "m")
    with pytest.raises(ModelFileError, match=message) as caught:
        ChurnModel.load(path)
    assert str(path) in str(caught.value)
    assert 0 <= ChurnPredictor(path).predict(table[0].iloc[0].to_dict())["churn_probability"] <= 1


# --- mutants -------------------------------------------------------------------------------------

READ_AND_ANSWER = """
import math, resource, signal, sys, warnings
import numpy as np
from churn_mlops.formula import ModelFileError, load
from churn_mlops.formula.evaluator import Evaluator
from churn_mlops.formula.machine_code import machine_code
warnings.simplefilter("ignore")

def overdue(number, frame):
    raise SystemExit("HUNG")

def customers_of(formula):
    typical = formula.example
    yield typical
    yield dict.fromkeys(typical)
    kinds = {column.name: column.kind for column in formula.input_columns}
    for extreme in (0.0, -1e308, 1e308, 1e9, -5e-324):
        day = {0.0: "1970-01-01", 1e308: "9999-12-31"}.get(extreme, "0001-01-01")
        odd = {"numeric": extreme, "boolean": extreme > 0, "date": day, "categorical": "never seen"}
        yield {name: odd[kind] for name, kind in kinds.items()}

def in_range(p):
    return p.shape[0] and np.isfinite(p).all() and (p >= -1e-9).all() and (p <= 1 + 1e-9).all()

def answer(path):
    formula = load(path)
    customers = list(customers_of(formula))
    columns = {name: [customer[name] for customer in customers] for name in formula.inputs}
    both = [Evaluator(formula, engine) for engine in ("numpy", "numba")]
    one = [[engine.probability(customer) for customer in customers] for engine in both]
    many = [engine.probabilities(columns) for engine in both]
    assert all(in_range(np.array(p)) for p in [*one, *many]), "a probability outside of [0, 1]"
    assert one == [p.tolist() for p in many], "one is not many"
    assert (many[0] == many[1]).all(), "two engines disagree"
    found = formula.contributions(columns)
    assert np.isfinite(found.values).all() and math.isfinite(found.baseline), "contributions that are not finite"
    assert str(formula) and formula._repr_html_() and formula.digest
    threads = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("Threads"))
    assert threads <= 8, f"{threads} threads"
    return "ANSWERED"

def no_code(event, arguments):
    if event in ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "ctypes.dlopen"):
        raise AssertionError(f"code was run: {event}")

machine_code()
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize")) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))
sys.addaudithook(no_code)
signal.signal(signal.SIGPROF, overdue)  # of the process's own time, which a busy machine does not stretch
for path in sys.stdin.read().splitlines():
    signal.setitimer(signal.ITIMER_PROF, 5)
    try:
        print(answer(path), flush=True)
    except ModelFileError as error:
        print("REFUSED", str(error).replace("\\n", " ")[-300:], flush=True)
    except Exception as error:
        print("FAILED", type(error).__name__, str(error).replace("\\n", " ")[:300], flush=True)
    signal.setitimer(signal.ITIMER_PROF, 0)
"""


def answers_of(folder, files):
    """Let a process with 1 GB and 5 seconds for each read and ask files; a crash leaves the rest without an answer."""
    paths = [folder / str(i) for i in range(len(files))]
    for path, (_, data) in zip(paths, files, strict=True):
        path.write_bytes(data)
    run = [sys.executable, "-c", READ_AND_ANSWER]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(run, input="\n".join(map(str, paths)), capture_output=True, text=True, check=False, env=env)
    lines = [*done.stdout.splitlines(), *[f"ENDED with {done.returncode}: {done.stderr[-300:]}"] * len(files)]
    told = [f"{name}: {line}" for (name, _), line in zip(files, lines, strict=False)]
    return told, [each for each in told if ": ANSWERED" not in each and ": REFUSED" not in each]


def alter(sound, n):
    """Return so many mutants of each model type's file."""
    return [
        (f"{kind} {i}: {told}", data)
        for seed, (kind, path) in enumerate(sound.items())
        for i, (told, data) in enumerate(mutants(path.read_bytes(), seed, n))
    ]


needs_limits = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory are Linux's")


@needs_limits
def test_mutants_are_refused_or_answer(sound, tmp_path):
    told, wrong = answers_of(tmp_path, alter(sound, 60))
    assert wrong == []
    assert 0.4 < np.mean([": REFUSED" in each for each in told]) < 0.98  # the mutants are of both kinds


@needs_limits
@pytest.mark.parametrize("kind", ["blend", "random_forest"])
def test_files_made_to_hang_or_crash_are_refused_or_answer(kind, sound, tmp_path):
    told, wrong = answers_of(tmp_path, list(crafted(sound[kind].read_bytes())))
    assert wrong == []
    assert sum(": REFUSED" in each for each in told) > 15


@needs_limits
@pytest.mark.proof
def test_5_000_mutants_are_refused_or_answer(sound, tmp_path):
    told, wrong = answers_of(tmp_path, alter(sound, 5_000 // len(sound) + 1))
    print(f"{len(told):,} files: {sum(': REFUSED' in each for each in told):,} refused, the others answered")
    assert wrong == []
    assert len(told) >= 5_000


def test_a_sound_chain_of_trees_is_read(sound):
    arrays, content = read(sound["blend"].read_bytes())
    formula = from_bytes(forge(tree(chain(500), arrays), {**content, "precisions": ["double"]}))
    assert 0 <= formula.probability(formula.example) <= 1


# --- writing: all or nothing ---------------------------------------------------------------------

WRITE_AND_HANG = """
import os, sys
from churn_mlops.formula import load
formula = load(sys.argv[2])
def hang(*args, **kwargs):
    print("reached", flush=True)
    sys.stdin.read()
setattr(os, sys.argv[1], hang)
formula.updated(threshold=0.9).save(sys.argv[2])
"""


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_run_killed_while_writing_leaves_the_old_file(moment, tmp_path):
    path = small().save(tmp_path / "model")
    before = path.read_bytes()
    run = [sys.executable, "-c", WRITE_AND_HANG, moment, str(path)]
    with subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "reached\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert path.read_bytes() == before
    small().updated(threshold=0.7).save(path)
    assert load(path).threshold == 0.7


def test_readers_see_the_old_model_or_the_new_one(fitted, tmp_path):
    formulas = [fitted["random_forest"].formula_.updated(threshold=each) for each in (0.25, 0.75)]
    path = formulas[0].save(tmp_path / "model")
    done, seen, problems = threading.Event(), set(), []

    def look():
        while not done.is_set():
            try:
                seen.add(load(path).threshold)
            except Exception as error:
                problems.append(error)
                return

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    for turn in range(30):
        formulas[turn % 2].save(path)
    done.set()
    for reader in readers:
        reader.join()
    assert problems == []
    assert seen <= {0.25, 0.75}
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_writers_at_the_same_time_leave_one_whole_file(tmp_path):
    formulas = [small().updated(threshold=each / 10) for each in range(8)]
    path = tmp_path / "model"
    writers = [threading.Thread(target=lambda f=f: [f.save(path) for _ in range(5)]) for f in formulas]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert path.read_bytes() in {to_bytes(formula) for formula in formulas}
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_full_disk_leaves_the_old_file_and_names_the_path(tmp_path, monkeypatch):
    path = small().save(tmp_path / "model")
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=rf"not written: No space left on device: '{path}'") as caught:
        small(1.0).save(path)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "models").write_text("a file")
    path = tmp_path / "models" / "model"
    with pytest.raises(OSError, match=f"model file was not written.*{path}"):
        small().save(path)


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path):
    with pytest.raises(IsADirectoryError, match=f"model file was not written.*{tmp_path}"):
        small().save(tmp_path)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"params": {"random_state": np.random.RandomState(1)}}, "RandomState.*is not JSON"),
        ({"params": {"f": print}}, "built-in function print.*is not JSON"),
        ({"settings": {"set": {1, 2}}}, r"\{1, 2\} is not JSON"),
        ({"metrics": {"roc_auc": float("nan")}}, "not JSON compliant"),
    ],
)
def test_what_has_no_place_in_a_file_is_refused_when_writing(record, message, tmp_path):
    formula = replace(small(), record=ModelRecord("random_forest", **record))
    with pytest.raises(ModelFileError, match=message):
        formula.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_file_can_be_read_by_others(tmp_path):
    umask = os.umask(0o022)
    try:
        path = small().save(tmp_path / "model")
    finally:
        os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o644


def test_numbers_of_numpy_are_plain_in_the_record(tmp_path):
    record = ModelRecord("blend", n_rows=np.int64(3), metrics={"auc": np.float64(0.5)}, params={"s": np.array([4, 8])})
    again = load(replace(small(), record=record).save(tmp_path / "m")).record
    assert (again.n_rows, again.metrics, again.params) == (3, {"auc": 0.5}, {"s": [4, 8]})


def test_a_file_is_written_in_one_step(tmp_path):
    write_files(NewFile(tmp_path / "new" / "file", b"whole"))
    assert {p.name: p.read_bytes() for p in (tmp_path / "new").iterdir()} == {"file": b"whole"}


def together(folder, content):
    return [NewFile(folder / name, content, name) for name in ("list", "report", "model")]


@pytest.mark.parametrize("name", ["list", "report", "model"])
@pytest.mark.parametrize("failing", ["fsync", "chmod"])
def test_files_that_belong_together_are_all_written_or_none(name, failing, tmp_path, monkeypatch):
    write_files(*together(tmp_path, b"old"))
    calls, real = iter(["list", "report", "model"]), getattr(Path, failing, None) or getattr(os, failing)

    def fail_at(*args, **kwargs):
        if next(calls) == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args, **kwargs)

    monkeypatch.setattr(Path if failing == "chmod" else os, failing, fail_at)
    with pytest.raises(OSError, match=f"The {name} was not written: No space left on device: '{tmp_path / name}'"):
        write_files(*together(tmp_path, b"new"))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == dict.fromkeys(["list", "report", "model"], b"old")


@pytest.mark.parametrize("name", ["list", "report", "model"])
def test_a_file_that_cannot_take_its_place_is_named(name, tmp_path, monkeypatch):
    real = Path.replace

    def refuse(temporary, place):
        if place.name == name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(temporary, place)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionError, match=f"The {name} was not written: Permission denied: '{tmp_path / name}'"):
        write_files(*together(tmp_path, b"new"))
    assert [path for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []


def test_a_folder_in_the_place_of_the_last_file_leaves_the_others_as_they_were(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "list").write_bytes(b"old")
    with pytest.raises(IsADirectoryError, match="The model was not written"):
        write_files(*together(tmp_path, b"new"))
    assert (tmp_path / "list").read_bytes() == b"old"
    assert {p.name for p in tmp_path.iterdir()} == {"list", "model"}


def test_a_link_goes_on_pointing_to_its_file(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "current").symlink_to(Path("models") / "may")
    for content in (b"first", b"second"):
        write_files(NewFile(tmp_path / "current", content))
        assert (tmp_path / "current").is_symlink()
        assert (tmp_path / "models" / "may").read_bytes() == content


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_a_file_keeps_its_permissions(mode, tmp_path):
    (tmp_path / "model").touch()
    (tmp_path / "model").chmod(mode)
    write_files(NewFile(tmp_path / "model", b"new"))
    assert (tmp_path / "model").stat().st_mode & 0o7777 == mode


def test_what_only_its_owner_may_read_is_never_readable_by_others(tmp_path, monkeypatch):
    (tmp_path / "model").touch(mode=0o600)
    seen, real = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (seen.append(os.fstat(descriptor).st_mode), real(descriptor)))
    write_files(NewFile(tmp_path / "model", b"new"))
    assert seen[0] & 0o077 == 0


def test_a_pipe_is_written_to_and_stays_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_files(NewFile(tmp_path / "pipe", b"content"))
    reader.join()
    assert got == [b"content"]
    assert (tmp_path / "pipe").is_fifo()


def test_loading_warns_of_nothing(sound):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in sound.values():
            load(path).probability(load(path).example)
