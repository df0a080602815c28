"""Make model files that are altered in every way and whose digest fits, as somebody would who means harm."""

import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

Arrays = dict[str, np.ndarray]
KEY = "churn_mlops"
WHOLE = [-(2**31), -7, -1, 0, 1, 2, 3, 100, 65_535, 65_536, 10**9, 2**31 - 1]
REAL = [np.nan, np.inf, -np.inf, 1e308, -1e308, 1e200, -1e200, 1e100, 1e38, 1e-300, 5e-324, 0.0, -0.0, 1.0, -1.0, 0.5]
JSON = [
    *(None, True, False, -1, 0, 1, 2, 100_000, 10**9, 2**63, 10**25, 0.5, -0.5, 1e308, -1e308, 1e-320, float("nan")),
    *(float("inf"), "", "x", "numeric", "categorical", "date", "boolean", "single", "double", "identity", "logit"),
    *("tenure", "\u0000", "x" * 5_000, [], {}, [[]], [1, 2, 3], ["a", "a"], {"n_jobs": 100_000}, {"x": {"x": {}}}),
]


def read(data: bytes) -> tuple[Arrays, dict[str, Any]]:
    """Return the arrays of a model file, and its description."""
    size = int.from_bytes(data[:8], "little")
    return load_arrays(data), json.loads(json.loads(data[8 : 8 + size])["__metadata__"][KEY])


def canonical(content: Any) -> str:
    """Write JSON in the one form of model files."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def forge(arrays: Arrays, content: dict[str, Any]) -> bytes:
    """Write a model file whose digest fits, whatever it holds: this is the format, told a second time."""
    record = content.get("record")
    dated = {**record, "trained_at": ""} if isinstance(record, dict) else record
    digest = hashlib.sha256(canonical({**content, "record": dated, "digest": ""}).encode())
    for name in sorted(arrays):
        digest.update(f"\n{name} {arrays[name].dtype.str} {arrays[name].shape}\n".encode())
        digest.update(arrays[name].tobytes())
    text = canonical({**content, "digest": f"sha256:{digest.hexdigest()}"})
    return save_arrays({name: np.ascontiguousarray(array) for name, array in arrays.items()}, {KEY: text})


def places(content: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to each value in JSON."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*way, key)
        yield from places(value, (*way, key))


def parent_of(content: Any, way: tuple[Any, ...]) -> Any:
    """Return the dict or list that holds a value."""
    for key in way[:-1]:
        content = content[key]
    return content


def change_json(rng: np.random.Generator, content: dict[str, Any]) -> str:
    """Change something in the description; say what."""
    ways = [way for way in places(content) if way != ("digest",)]
    way = ways[rng.integers(len(ways))]
    holder, key, other = parent_of(content, way), way[-1], ways[rng.integers(len(ways))]
    kind = ["nasty", "nasty", "nasty", "other", "gone", "twice", "turned", "added"][rng.integers(8)]
    if kind == "nasty":
        holder[key] = copy.deepcopy(JSON[rng.integers(len(JSON))])
    elif kind == "other":
        holder[key] = copy.deepcopy(parent_of(content, other)[other[-1]])
    elif kind == "gone":
        del holder[key]
    elif kind == "twice" and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    elif kind == "turned" and isinstance(holder[key], list):
        holder[key].reverse()
    elif isinstance(holder, dict):
        holder[f"{key}2"] = copy.deepcopy(holder[key])
    else:
        holder[key] = copy.deepcopy(JSON[rng.integers(len(JSON))])
    return f"{kind} at {'/'.join(map(str, way))}"


def change_element(rng: np.random.Generator, array: np.ndarray) -> np.ndarray:
    """Change one element or several to something nasty, or to its neighbour."""
    array = array.copy()
    if not array.size:
        return array
    at = rng.integers(array.size, size=1 if rng.random() < 0.7 else min(array.size, 5))
    near = array.flat[at] + rng.integers(-2, 3, len(at)).astype(array.dtype)
    nasty = np.array([(REAL if array.dtype.kind == "f" else [*WHOLE, array.size, array.size - 1])[rng.integers(12)]])
    with np.errstate(all="ignore"):
        array.flat[at] = near if rng.random() < 0.3 else nasty.astype(array.dtype)
    return array


SHAPES: list[Callable[[np.ndarray], np.ndarray]] = [
    lambda a: a[:-1],
    lambda a: a[1:],
    lambda a: a[:0],
    lambda a: a[..., None],
    lambda a: a[None],
    lambda a: np.concatenate([a, a]),
    lambda a: np.concatenate([a, a[-1:]]),
    lambda a: a[::-1],
    lambda a: np.roll(a, 1),
    lambda a: np.zeros_like(a),
    lambda a: np.float64(a.sum()).reshape(()),
    lambda a: np.full_like(a, a.flat[0] if a.size else 0),
]
TYPES = [np.int64, np.int32, np.int16, np.uint8, np.uint32, np.float64, np.float32, np.float16, np.bool_]


def change_array(rng: np.random.Generator, arrays: Arrays) -> str:
    """Change something in the arrays; say what."""
    names = sorted(arrays)
    name, other = names[rng.integers(len(names))], names[rng.integers(len(names))]
    kind = ["element"] * 6 + ["shape", "shape", "type", "gone", "swapped", "shuffled", "added"]
    kind = kind[rng.integers(len(kind))]
    with np.errstate(all="ignore"):
        if kind == "element":
            arrays[name] = change_element(rng, arrays[name])
        elif kind == "shape":
            arrays[name] = SHAPES[rng.integers(len(SHAPES))](arrays[name])
        elif kind == "type":
            arrays[name] = arrays[name].astype(TYPES[rng.integers(len(TYPES))])
        elif kind == "gone":
            del arrays[name]
        elif kind == "swapped":
            arrays[name], arrays[other] = arrays[other], arrays[name]
        elif kind == "shuffled":
            arrays[name] = rng.permutation(arrays[name])
        else:
            arrays[f"{name}2"] = arrays[name]
    return f"{kind}: {name}"


def mutants(whole: bytes, seed: int, n: int) -> Iterator[tuple[str, bytes]]:
    """Yield what was changed in a sound file, once or twice, and the file."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        arrays, content = read(whole)
        told = []
        for _ in range(1 + (rng.random() < 0.2)):
            try:
                told.append(change_json(rng, content) if rng.random() < 0.5 else change_array(rng, arrays))
            except (ValueError, IndexError, KeyError, TypeError):
                continue  # the second change found nothing to change where the first had been
        yield "; ".join(told), forge(arrays, content)


def tree(right: Any, arrays: Arrays, prefix: str = "trees.0", **more: Any) -> Arrays:
    """Return a file's arrays with other trees: one tree whose distances to right children are given."""
    right = np.asarray(right, dtype=np.int32)
    n = len(right)
    made = {
        "right": right,
        "roots": np.zeros(1, np.int32),
        "feature": np.zeros(n, np.int32),
        "threshold": np.zeros(n),
        "value": np.where(right == 0, 0.25, 0.0),
        "cover": np.where(right == 0, 1.0, np.cumsum(right[::-1] == 0)[::-1]),
    }
    kept = {name: array for name, array in arrays.items() if not name.startswith("trees.")}
    return {**kept, **{f"{prefix}.{name}": np.asarray(array) for name, array in {**made, **more}.items()}}


def chain(n_inner: int) -> np.ndarray:
    """Return a tree whose every left child is a leaf."""
    return np.array([2, 0] * n_inner + [0], dtype=np.int32)


def crafted(whole: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield files that are made to hang, to crash or to fill the memory, from a sound file that has trees."""
    arrays, content = read(whole)
    columns, content = content["columns"], {**content, "precisions": ["double"]}

    def with_column(**changed: Any) -> dict[str, Any]:
        at = next(i for i, column in enumerate(columns) if column["kind"] == "categorical")
        return {**content, "columns": [*columns[:at], {**columns[at], **changed}, *columns[at + 1 :]]}

    def with_record(name: str, value: Any) -> bytes:
        return forge(arrays, {**content, "record": {**content["record"], name: value}})

    for name, right in {
        "a node that is its own right child": [0, 0, 0],
        "a right child before its parent": [2, 0, -2],
        "two parents share a child": [3, 1, 0, 0],
        "a child far outside": [10**9, 0, 0],
        "a left child behind the end": [1],
        "a right child that is the left one": [1, 0],
        "nodes that nobody leads to": [2, 0, 0, 0, 0],
        "a chain of 100,000 nodes": chain(50_000),
        "a chain of 1,100 steps": chain(1_100),
        "a chain of 900 steps": chain(900),
    }.items():
        yield name, forge(tree(right, arrays), content)
    yield "leaves alone", forge(tree([0] * 5, arrays, roots=np.arange(5, dtype=np.int32)), content)
    yield "roots out of order", forge(tree([0] * 3, arrays, roots=np.array([0, 2, 1], np.int32)), content)
    yield "one root twice", forge(tree([0] * 2, arrays, roots=np.array([0, 0, 1], np.int32)), content)
    yield "covers that grow downward", forge(tree(chain(900), arrays, cover=np.linspace(1e-90, 1e90, 1_801)), content)
    yield "a million sets of trees", forge(arrays, {**content, "precisions": ["single"] * 1_000_000})
    many = [f"c{i}" for i in range(30_000)]
    yield "30,000 categories", forge(arrays, with_column(categories=many, averages=[0.0] * len(many)))
    few = [*many, *(f"d{i}" for i in range(90_000))]
    yield "120,000 categories", forge(arrays, with_column(categories=few, averages=[0.0] * len(few)))
    yield "10**9 categories by their number", forge(arrays, with_column(categories=10**9))
    yield "10**9 different values", forge(arrays, with_column(n_values=10**9))
    yield "10**9 marks of rare categories", forge(arrays, with_column(marks_infrequent=10**9))
    more = [{**columns[0], "name": f"c{i}"} for i in range(100_000)]
    yield "100,000 columns", forge(arrays, {**content, "columns": more})
    yield "one column 1,000 times", forge(arrays, {**content, "columns": [columns[0]] * 1_000})
    yield "100,000 threads", with_record("params", {"n_jobs": 100_000})
    yield "100,000 trees of an estimator", with_record("params", {"n_estimators": 10**9})
    yield "a method for a parameter", with_record("params", {"predict_proba": 1})
    derived = [{"name": f"d{i}", "operation": "product", "inputs": [f"d{i - 1}"] * 2} for i in range(1, 20_000)]
    first = {"name": "d0", "operation": "difference", "inputs": ["never_asked_for"] * 2}
    yield "20,000 derived columns", forge(arrays, {**content, "derived": [first, *derived]})
    loop = [{"name": a, "operation": "logarithm", "inputs": [b]} for a, b in ("xy", "yx")]
    yield "derived columns that need each other", forge(arrays, {**content, "derived": loop})
    deep: Any = []
    for _ in range(700):
        deep = [deep]
    yield "settings 700 levels deep", with_record("settings", {"x": deep})
    n = 200_000
    pieces = {"n_pieces": np.full(1, 2**31 - 1, np.int32), "starts": np.zeros(n), "coefficients": np.zeros((4, n))}
    yield "a curve of 2**31 pieces", forge({**arrays, **{f"curves.{k}": v for k, v in pieces.items()}}, content)
    steep = {name: array for name, array in arrays.items()}
    for name in ("curves.coefficients", "curves.starts", "curves.maximum"):
        steep[name] = np.full_like(steep[name], 1e100)
    yield "curves that are too steep", forge(steep, content)
