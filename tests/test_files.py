"""Model files: whole or not there, the same for the same model, and never able to run or crash anything."""

import errno
import gzip
import io
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import joblib
import numpy as np
import pytest
import skops.io
from churn_mlops.models.description import TRUSTED_TYPES, refused_types
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from churn_mlops.data import generate_sample_data
from churn_mlops.features import FeatureEngineer
from churn_mlops.formula.file import ModelFileError, UnsafeModelError, read_model_file, write_model_file
from churn_mlops.learners.blend import BlendedClassifier
from churn_mlops.learners.lightgbm import LightGBMClassifier
from churn_mlops.models import persistence

ESTIMATORS = {
    "forest": lambda: RandomForestClassifier(n_estimators=4, max_depth=4, random_state=42),
    "logistic": lambda: LogisticRegression(max_iter=1_000),
    "lightgbm": lambda: LightGBMClassifier(max_trees=6),
    "blend": lambda: BlendedClassifier(max_iter=6, cv=2, random_state=42),
    "boosting": lambda: HistGradientBoostingClassifier(max_iter=4, random_state=42),
    "boosting that stops early": lambda: HistGradientBoostingClassifier(
        max_iter=4, early_stopping=True, scoring="roc_auc", random_state=42
    ),
}
MANIFEST = {"model_type": "example", "params": {}, "created": "2025-03-14T09:26:53Z"}


@pytest.fixture(scope="module")
def table():
    """Make raw customers and their labels."""
    customers = generate_sample_data(300)
    return customers.drop(columns=["customer_id", "churn"]), customers["churn"].to_numpy()


@pytest.fixture(scope="module")
def fitted(table):
    """Fit a feature engineer and every estimator."""
    raw, churn = table
    engineer = FeatureEngineer().fit(raw)
    features = engineer.transform(raw)
    return engineer, {name: make().fit(features, churn) for name, make in ESTIMATORS.items()}


@pytest.fixture(scope="module")
def sound(fitted, tmp_path_factory):
    """Write a sound file of each estimator."""
    engineer, estimators = fitted
    folder = tmp_path_factory.mktemp("sound")
    return {
        name: write_model_file(folder / f"{name}.zip", {"feature_engineer": engineer, "estimator": e}, MANIFEST)
        for name, e in estimators.items()
    }


def unpack(path):
    """Return members, description and manifest of a model file."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members.pop("manifest.json"))
    return members, json.loads(members["schema.json"]), manifest


def forge(path, members, schema, manifest):
    """Write a model file as an enemy would: whatever it holds, its digest fits."""
    members = {**members, "schema.json": json.dumps(schema).encode()}
    manifest = {**manifest, "digest": persistence._digest(members, manifest)}
    path.write_bytes(persistence._pack(members, manifest))
    return path


def node_at(schema, names):
    """Return the node at a path of attributes and positions in lists."""
    place = schema
    for name in names:
        while place["__loader__"] in ("ObjectNode", "TreeNode"):
            place = place["content"]
        place = place["content"][name]
    return place


def put(place, key, described):
    """Put a node into the description of a dict or a list."""
    if isinstance(place["content"], dict) and key not in place["content"]:
        place["key_types"]["content"].append(place["key_types"]["content"][0])
    place["content"][key] = described


def number(value):
    """Describe a number, or anything else that JSON holds."""
    return {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "content": json.dumps(value)}


# --- round trips ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ESTIMATORS)
def test_round_trip_gives_equal_probabilities(name, fitted, sound, table):
    engineer, estimators = fitted
    objects, manifest = read_model_file(sound[name])
    loaded = objects["estimator"].predict_proba(objects["feature_engineer"].transform(table[0]))
    np.testing.assert_array_equal(loaded, estimators[name].predict_proba(engineer.transform(table[0])))
    assert manifest | MANIFEST == manifest


@pytest.mark.parametrize("labels", [("No", "Yes"), (False, True)])
def test_round_trip_keeps_the_labels(labels, fitted, table, tmp_path):
    model = RandomForestClassifier(3, max_depth=2).fit(fitted[0].transform(table[0]), np.asarray(labels)[table[1]])
    objects, _ = read_model_file(write_model_file(tmp_path / "model.zip", {"estimator": model}, {}))
    assert objects["estimator"].classes_.tolist() == list(labels)


def test_writing_leaves_the_model_in_memory_as_it_was(fitted, tmp_path):
    model = fitted[1]["boosting that stops early"]
    before = dict(vars(model))
    write_model_file(tmp_path / "model.zip", {"estimator": model}, {})
    assert vars(model) == before


def test_an_object_held_twice_is_one_object_after_loading(fitted, tmp_path):
    model = fitted[1]["logistic"]
    objects, _ = read_model_file(write_model_file(tmp_path / "m.zip", {"a": model, "b": [model, model.coef_]}, {}))
    assert objects["a"] is objects["b"][0]
    assert objects["a"].coef_ is objects["b"][1]


@pytest.mark.parametrize("name", ["model", "model.pkl", "model.joblib", "deep/er/model.zip"])
def test_any_extension_and_folder_will_do(name, fitted, tmp_path):
    path = write_model_file(str(tmp_path / name), {"estimator": fitted[1]["logistic"]}, {})
    assert path == tmp_path / name
    assert zipfile.is_zipfile(path)
    read_model_file(path)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_file_holds_only_types_of_the_list(name, sound):
    assert refused_types(unpack(sound[name])[1]) == []


def test_every_sklearn_type_of_the_list_is_needed(sound):
    named = {n for path in sound.values() for n in re.findall(r'"__class__":"(\w+)"', unpack_text(path))}
    spare = {t for t in TRUSTED_TYPES if t.startswith("sklearn") and t.rsplit(".", 1)[1] not in named}
    assert spare == set()


def unpack_text(path):
    """Return the description in a model file as text."""
    return unpack(path)[0]["schema.json"].decode()


def test_the_manifest_names_the_environment(sound):
    environment = read_model_file(sound["logistic"])[1]["environment"]
    assert set(environment) == {"python", "numpy", "scikit-learn", "skops", "churn_mlops"}


def test_another_scikit_learn_is_logged(sound, tmp_path, caplog):
    members, schema, manifest = unpack(sound["forest"])
    manifest["environment"]["scikit-learn"] = "1.7.0"
    read_model_file(forge(tmp_path / "old.zip", members, schema, manifest))
    assert "was written with scikit-learn 1.7.0" in caplog.text


# --- the same model, the same bytes --------------------------------------------------------------

FIT_AND_WRITE = """
import sys
from churn_mlops.data import generate_sample_data
from churn_mlops.features import FeatureEngineer
from churn_mlops.formula.file import write_model_file
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
customers = generate_sample_data(300)
raw = customers.drop(columns=["customer_id", "churn"])
engineer = FeatureEngineer().fit(raw)
models = {
    "forest": RandomForestClassifier(4, random_state=1),
    "logistic": LogisticRegression(max_iter=1000),
    "boosting": HistGradientBoostingClassifier(max_iter=4, random_state=1),
}
for model in models.values():
    model.fit(engineer.transform(raw), customers["churn"])
write_model_file(sys.argv[1], {"feature_engineer": engineer, **models}, {"created": "2025-03-14T09:26:53Z"})
"""


def test_models_fitted_in_two_processes_give_the_same_bytes(tmp_path):
    for seed in ("1", "2"):
        run = [sys.executable, "-c", FIT_AND_WRITE, str(tmp_path / seed)]
        subprocess.run(run, check=True, env={**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_model_that_was_loaded_gives_the_same_bytes(name, sound, tmp_path):
    again = write_model_file(tmp_path / "again.zip", *read_model_file(sound[name]))
    assert again.read_bytes() == sound[name].read_bytes()


def test_the_digest_names_the_model_and_not_the_hour(fitted, tmp_path):
    def digest(name, **told):
        path = write_model_file(tmp_path / "m.zip", {"estimator": fitted[1][name]}, {**MANIFEST, **told})
        return read_model_file(path)[1]["digest"]

    first = digest("logistic")
    assert first.startswith("sha256:")
    assert digest("logistic", created="2026-01-01T00:00:00Z") == first
    assert digest("forest") != first
    assert digest("logistic", params={"C": 2}) != first


def test_no_memory_leaks_into_a_file_through_gaps_in_a_table(sound):
    gaps = []
    for data in unpack(sound["forest"])[0].values():
        table = np.load(io.BytesIO(data)) if data.startswith(b"\x93NUMPY") else np.empty(0)
        if table.dtype.names and "left_child" in table.dtype.names:
            rows = np.frombuffer(data[-table.nbytes :], np.uint8).reshape(len(table), -1)
            gaps.append(rows[:, table.dtype.fields["missing_go_to_left"][1] + 1 :])
    assert len(gaps) == 4
    assert gaps[0].size > 0
    assert not any(gap.any() for gap in gaps)


# --- files that are no model files ---------------------------------------------------------------


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.zip.*churn-train"):
        read_model_file(tmp_path / "no.zip")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"customerID,Churn\n1,No\n", "is not a churn_mlops model file"), (None, "is a folder")],
)
def test_something_else_is_named(content, message, tmp_path):
    path = tmp_path / "model.zip"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(ModelFileError, match=message) as caught:
        read_model_file(path)
    assert not isinstance(caught.value, UnsafeModelError)
    assert str(path) in str(caught.value)


class Bomb:
    """An object whose pickle leaves a mark when it is loaded."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        """Rebuild by making a file."""
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_refused_and_not_run(protocol, tmp_path):
    path = tmp_path / "model.zip"
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "mark"), protocol=protocol))
    with pytest.raises(UnsafeModelError, match=r"pickle.*load it yourself.*ChurnModel\.save"):
        read_model_file(path)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("compress", [0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3)])
def test_a_joblib_file_is_refused_and_not_run(compress, tmp_path):
    joblib.dump({"a": np.ones(3), "b": Bomb(tmp_path / "mark")}, tmp_path / "model.joblib", compress=compress)
    with pytest.raises(UnsafeModelError, match="load it yourself"):
        read_model_file(tmp_path / "model.joblib")
    assert not (tmp_path / "mark").exists()


def test_a_zipped_pickle_is_no_model_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(Bomb(tmp_path / "mark")))
    with pytest.raises(ModelFileError, match=r"no manifest\.json"):
        read_model_file(tmp_path / "model.pt")
    assert not (tmp_path / "mark").exists()


# --- files that are damaged, or made to do harm --------------------------------------------------


def test_a_file_cut_short_anywhere_is_refused(sound, tmp_path):
    whole = sound["logistic"].read_bytes()
    path = tmp_path / "cut.zip"
    for length in [*range(1, len(whole), 997), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ModelFileError):
            read_model_file(path)


def test_a_byte_changed_anywhere_is_refused_or_changes_nothing(sound, tmp_path):
    whole = sound["logistic"].read_bytes()
    good, manifest = read_model_file(sound["logistic"])
    path = tmp_path / "changed.zip"
    refused = 0
    for position in range(0, len(whole), 61):
        changed = bytearray(whole)
        changed[position] ^= 0xFF
        path.write_bytes(changed)
        try:
            objects, told = read_model_file(path)
        except ModelFileError:
            refused += 1
        else:
            np.testing.assert_array_equal(objects["estimator"].coef_, good["estimator"].coef_)
            assert told == manifest
    assert refused > 0.9 * len(whole) / 61


def test_a_changed_model_with_sound_checksums_is_refused_by_its_digest(sound, tmp_path):
    members, schema, manifest = unpack(sound["logistic"])
    node_at(schema, ("estimator", "C"))["content"] = "7.0"
    (tmp_path / "m.zip").write_bytes(
        persistence._pack({**members, "schema.json": json.dumps(schema).encode()}, manifest)
    )
    with pytest.raises(ModelFileError, match="does not match its digest"):
        read_model_file(tmp_path / "m.zip")


@pytest.mark.parametrize("version", [2, 99, "1", None, 1.5])
def test_another_format_version_is_named(version, sound, tmp_path):
    members, schema, manifest = unpack(sound["logistic"])
    path = forge(tmp_path / "m.zip", members, schema, {**manifest, "format_version": version})
    with pytest.raises(ModelFileError, match=f"format version {re.escape(repr(version))}.*reads version 1"):
        read_model_file(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda members: members.pop("0.npy"), "lacks members"),
        (lambda members: members.pop("schema.json"), "schema.json"),
        (lambda members: members.update({"extra.txt": b"?"}), "do not belong"),
        (lambda members: members.update({"../../evil.npy": b"?"}), "do not belong"),
        (lambda members: members.update({"0.npy": members["0.npy"][:-1]}), "not as long as it says"),
        (lambda members: members.update({"0.npy": as_npy(np.array([{}], dtype=object))}), "not as long as it says"),
        (lambda members: members.update({"0.npy": as_npz(np.ones(3))}), "magic"),
        (lambda members: members.update({"schema.json": b"[" * 100_000}), "recursion"),
        (lambda members: members.update({"schema.json": b"{}"}), "damaged"),
    ],
)
def test_members_that_are_not_as_they_should_be_are_refused(change, message, sound, tmp_path):
    members, _, manifest = unpack(sound["logistic"])
    change(members)
    path = tmp_path / "m.zip"
    path.write_bytes(persistence._pack(members, {**manifest, "digest": persistence._digest(members, manifest)}))
    with pytest.raises(ModelFileError, match=message):
        read_model_file(path)


def as_npy(array):
    """Return an array in numpy's format, objects as a pickle."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def as_npz(array):
    """Return an array in numpy's zip."""
    buffer = io.BytesIO()
    np.savez(buffer, array)
    return buffer.getvalue()


def test_an_array_that_claims_to_be_huge_takes_no_memory(sound, tmp_path):
    members, schema, manifest = unpack(sound["logistic"])
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**14,)})
    members["0.npy"] = buffer.getvalue()
    with pytest.raises(ModelFileError, match="not as long as it says"):
        read_model_file(forge(tmp_path / "m.zip", members, schema, manifest))


def test_one_array_cannot_be_read_many_times(sound, tmp_path):
    members, schema, manifest = unpack(sound["logistic"])
    array = {**node_at(schema, ("estimator", "coef_")), "__id__": 10_000}
    put(schema, "more", sequence("list", *[array] * 9))
    with pytest.raises(ModelFileError, match="do not belong"):
        read_model_file(forge(tmp_path / "m.zip", members, schema, manifest))


def test_two_members_of_one_name_are_refused(sound, tmp_path):
    path = tmp_path / "m.zip"
    path.write_bytes(sound["logistic"].read_bytes())
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("0.npy", b"?")
    with pytest.raises(ModelFileError, match="two members have one name"):
        read_model_file(path)


def test_a_zip_bomb_is_refused_before_it_unpacks(sound, tmp_path):
    *_, manifest = unpack(sound["logistic"])
    with zipfile.ZipFile(tmp_path / "m.zip", "w", compression=zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", json.dumps(manifest))
        archive.writestr("schema.json", bytes(10**8))
    assert (tmp_path / "m.zip").stat().st_size < 200_000
    with pytest.raises(ModelFileError, match="unpack to more than the file"):
        read_model_file(tmp_path / "m.zip")


def node(kind, name, **more):
    """Describe an object of a type."""
    module, _, cls = name.rpartition(".")
    return {"__loader__": kind, "__module__": module, "__class__": cls, "__id__": 5_000, **more}


def sequence(kind, *items):
    """Describe a list or a tuple."""
    return node("ListNode" if kind == "list" else "TupleNode", f"builtins.{kind}", content=list(items))


NO_ATTRIBUTES = node("DictNode", "builtins.dict", content={}, key_types=sequence("list"))
SMUGGLED = {
    "a function": node("FunctionNode", "os.system"),
    "a function as a type": node("TypeNode", "os.system"),
    "eval as a type": node("TypeNode", "builtins.eval"),
    "a harmless type out of place": node("TypeNode", "builtins.str"),
    "a function called as a constructor": node(
        "ConstructorFromReduceNode", "os.system", content=sequence("tuple", number("true"))
    ),
    "a function that numpy and skops trust": node("FunctionNode", "numpy.add"),
    "a partial": node(
        "PartialNode",
        "functools.partial",
        content={
            "func": node("FunctionNode", "os.system"),
            "args": sequence("tuple", number("true")),
            "kwds": NO_ATTRIBUTES,
            "namespace": NO_ATTRIBUTES,
        },
    ),
    "a method": node("MethodNode", "builtins.str", content={"func": "format", "obj": number("")}),
    "a caller of methods": node("OperatorFuncNode", "operator.methodcaller", attrs=sequence("tuple", number("x"))),
    "a reader of data sets": node("FunctionNode", "sklearn.datasets._base.load_files"),
    "numpy.load": node("FunctionNode", "numpy.load"),
    "an estimator that skops trusts": node(
        "ObjectNode", "sklearn.preprocessing._function_transformer.FunctionTransformer", content=NO_ATTRIBUTES
    ),
    "a type of the list in another form": node(
        "ConstructorFromReduceNode", "sklearn.tree._tree.Tree", content=sequence("tuple")
    ),
    "a type of the list as itself": node("TypeNode", "sklearn.tree._tree.Tree"),
    "a dict whose keys come from a function": node(
        "DictNode",
        "builtins.dict",
        content={"true": number(1)},
        key_types=sequence("list", node("TypeNode", "os.system")),
    ),
    "a dict whose list of keys is something else": node(
        "DictNode", "builtins.dict", content={}, key_types=node("FunctionNode", "os.system")
    ),
    "a random generator": node("RandomGeneratorNode", "numpy.random._generator.Generator", content={}),
    "bytes": node("BytesNode", "builtins.bytes", file="0.npy"),
    "a sparse matrix": node("SparseMatrixNode", "scipy.sparse._csr.csr_matrix", type="scipy", file="0.npy"),
    "a cached node": node("CachedNode", "builtins.str"),
}


@pytest.mark.parametrize("where", ["objects", "attribute"])
@pytest.mark.parametrize("what", SMUGGLED)
def test_a_smuggled_type_is_refused_by_name(what, where, sound, tmp_path):
    members, schema, manifest = unpack(sound["logistic"])
    place = schema if where == "objects" else schema["content"]["estimator"]["content"]
    put(place, "random_state", SMUGGLED[what])
    path = forge(tmp_path / "m.zip", members, schema, manifest)
    with pytest.raises(UnsafeModelError, match="names types that churn_mlops does not load") as caught:
        read_model_file(path)
    assert "load it yourself" in str(caught.value)


def test_a_node_that_refers_to_nothing_is_refused(sound, tmp_path):
    members, schema, manifest = unpack(sound["logistic"])
    put(schema, "more", {"__id__": 123_456})
    with pytest.raises(ModelFileError, match="damaged"):
        read_model_file(forge(tmp_path / "m.zip", members, schema, manifest))


def test_a_node_that_holds_itself_is_refused(sound, tmp_path):
    members, schema, manifest = unpack(sound["logistic"])
    put(schema, "more", {"__id__": schema["__id__"]})
    with pytest.raises(ModelFileError, match="damaged"):
        read_model_file(forge(tmp_path / "m.zip", members, schema, manifest))


def test_a_plain_skops_file_is_no_model_file(fitted, tmp_path):
    skops.io.dump(fitted[1]["logistic"], tmp_path / "m.skops")
    with pytest.raises(ModelFileError, match=r"no manifest\.json"):
        read_model_file(tmp_path / "m.skops")


# --- models that would end the process -----------------------------------------------------------


def change_array(*names):
    """Make a change of the array at a path of attributes."""

    def decorate(change):
        def apply(members, schema):
            place = node_at(schema, names)
            array = np.load(io.BytesIO(members[place["file"]]))
            members[place["file"]] = as_npy(change(array))

        return apply

    return decorate


def field(column, row, value):
    """Make a change of one value in a table of nodes."""

    def change(table):
        table = table.copy()
        table[column][row] = value
        return table

    return change


def said(value, *names):
    """Make a change of one attribute."""

    def apply(members, schema):
        *way, last = names
        place = node_at(schema, way)
        while place["__loader__"] in ("ObjectNode", "TreeNode"):
            place = place["content"]
        put(place, last, number(value))

    return apply


FOREST = ("estimator", "estimators_", 1)
NODES = (*FOREST, "tree_", "nodes")
BOOST = ("estimator", "_predictors", 1, 0, "nodes")
CRASHES = {
    "forest: child far outside": ("forest", change_array(*NODES)(field("left_child", 0, 10**9))),
    "forest: child just outside": ("forest", change_array(*NODES)(lambda t: field("right_child", 0, len(t))(t))),
    "forest: negative child": ("forest", change_array(*NODES)(field("left_child", 0, -(10**9)))),
    "forest: only one child": ("forest", change_array(*NODES)(field("right_child", 0, -1))),
    "forest: child is its parent": ("forest", change_array(*NODES)(field("left_child", 1, 0))),
    "forest: child of two parents": ("forest", change_array(*NODES)(field("right_child", 0, 1))),
    "forest: column far outside": ("forest", change_array(*NODES)(field("feature", 0, 10**9))),
    "forest: negative column": ("forest", change_array(*NODES)(field("feature", 0, -5))),
    "forest: table cut short": ("forest", change_array(*NODES)(lambda t: t[:-1])),
    "forest: table of another make": ("forest", change_array(*NODES)(lambda t: np.zeros(len(t)))),
    "forest: values of another shape": ("forest", change_array(*FOREST, "tree_", "values")(lambda v: v[:, :, :1])),
    "forest: values that are not numbers": ("forest", change_array(*FOREST, "tree_", "values")(lambda v: v * np.nan)),
    "forest: fewer nodes than it leads to": ("forest", said(1, *FOREST, "tree_", "node_count")),
    "forest: no nodes": ("forest", said(0, *FOREST, "tree_", "node_count")),
    "forest: deeper than it says": ("forest", said(0, *FOREST, "tree_", "max_depth")),
    "forest: a tree wider than the forest": ("forest", said(1_000, *FOREST, "n_features_in_")),
    "forest: wider than its trees": ("forest", said(1_000, "estimator", "n_features_in_")),
    "forest: no width": ("forest", said(None, "estimator", "n_features_in_")),
    "forest: too many labels": ("forest", said(10**9, "estimator", "n_classes_")),
    "forest: a number for a tree": ("forest", said(1, *FOREST[:2], 1)),
    "forest: its check of the table replaced": ("forest", said(1, "estimator", "_validate_X_predict")),
    "boosting: child far outside": ("boosting", change_array(*BOOST)(field("left", 0, 2**32 - 1))),
    "boosting: child is its parent": ("boosting", change_array(*BOOST)(field("right", 0, 0))),
    "boosting: last leaf has children": ("boosting", change_array(*BOOST)(field("is_leaf", -1, 0))),
    "boosting: column far outside": ("boosting", change_array(*BOOST)(field("feature_idx", 0, 10**9))),
    "boosting: negative column": ("boosting", change_array(*BOOST)(field("feature_idx", 0, -(10**9)))),
    "boosting: split by category": ("boosting", change_array(*BOOST)(field("is_categorical", 0, 1))),
    "boosting: table cut short": ("boosting", change_array(*BOOST)(lambda t: t[:-1])),
    "boosting: no nodes": ("boosting", change_array(*BOOST)(lambda t: t[:0])),
    "boosting: table of two dimensions": ("boosting", change_array(*BOOST)(lambda t: t[:, None])),
    "boosting: wider than its trees": ("boosting", said("x", "estimator", "n_features_in_")),
    "boosting: as if inside fit": ("boosting", said(True, "estimator", "_in_fit")),
    "boosting: a step before the table": ("boosting", said(1, "estimator", "_preprocessor")),
    "boosting: a number for a tree": ("boosting", said(1, "estimator", "_predictors", 1, 0)),
    "logistic: too few coefficients": ("logistic", change_array("estimator", "coef_")(lambda c: c[:, :-1])),
    "logistic: one dimension": ("logistic", change_array("estimator", "coef_")(lambda c: c[0])),
    "logistic: no intercept": ("logistic", said(None, "estimator", "intercept_")),
    "logistic: infinite": ("logistic", change_array("estimator", "coef_")(lambda c: c + np.inf)),
    "logistic: words": ("logistic", change_array("estimator", "coef_")(lambda c: c.astype(str))),
}

READ_AND_PREDICT = """
import sys
import numpy as np
from churn_mlops.formula.file import ModelFileError, read_model_file
for path in sys.stdin.read().splitlines():
    try:
        objects, _ = read_model_file(path)
        objects["estimator"].predict_proba(np.zeros((50, objects["estimator"].n_features_in_)))
        print("READ", flush=True)
    except ModelFileError as error:
        print("REFUSED", error, flush=True)
"""


@pytest.fixture(scope="module")
def answers(sound, tmp_path_factory):
    """Read every crafted file in a process of its own; a crash leaves the rest without an answer."""
    folder = tmp_path_factory.mktemp("crafted")
    paths = []
    for position, (name, change) in enumerate(CRASHES.values()):
        members, schema, manifest = unpack(sound[name])
        change(members, schema)
        named = json.dumps(schema)
        members = {member: data for member, data in members.items() if f'"{member}"' in named}
        paths.append(str(forge(folder / f"{position}.zip", members, schema, manifest)))
    run = subprocess.run(
        [sys.executable, "-c", READ_AND_PREDICT], input="\n".join(paths), capture_output=True, text=True, check=False
    )
    lines = [*run.stdout.splitlines(), *[f"CRASHED with {run.returncode}: {run.stderr}"] * len(CRASHES)]
    return dict(zip(CRASHES, lines, strict=False))


@pytest.mark.parametrize("case", CRASHES)
def test_a_model_that_would_crash_is_refused(case, answers):
    assert answers[case].startswith("REFUSED")


# --- writing: all or nothing ---------------------------------------------------------------------

WRITE_AND_HANG = """
import os, sys
import numpy as np
from churn_mlops.formula.file import write_model_file
def hang(*args, **kwargs):
    print("reached", flush=True)
    sys.stdin.read()
setattr(os, sys.argv[1], hang)
write_model_file(sys.argv[2], {"new": np.ones(1000)}, {})
"""


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_run_killed_while_writing_leaves_the_old_file(moment, tmp_path):
    path = write_model_file(tmp_path / "model.zip", {"old": np.zeros(3)}, {})
    before = path.read_bytes()
    run = [sys.executable, "-c", WRITE_AND_HANG, moment, str(path)]
    with subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "reached\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert path.read_bytes() == before
    write_model_file(path, {"newest": np.zeros(1)}, {})
    assert list(read_model_file(path)[0]) == ["newest"]


def test_readers_see_the_old_model_or_the_new_one(tmp_path):
    models = [{"value": np.full(50_000, k)} for k in (1, 2)]
    path = write_model_file(tmp_path / "model.zip", models[0], {})
    done, seen, problems = threading.Event(), set(), []

    def read():
        while not done.is_set():
            try:
                values = set(read_model_file(path)[0]["value"].tolist())
                assert len(values) == 1
                seen.update(values)
            except Exception as error:
                problems.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for turn in range(30):
        write_model_file(path, models[turn % 2], {})
    done.set()
    for reader in readers:
        reader.join()
    assert problems == []
    assert seen <= {1, 2}
    assert [p.name for p in tmp_path.iterdir()] == ["model.zip"]


def test_a_full_disk_leaves_the_old_file_and_names_the_path(tmp_path, monkeypatch):
    path = write_model_file(tmp_path / "model.zip", {"old": np.zeros(3)}, {})

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=rf"not written: No space left on device: '{path}'") as caught:
        write_model_file(path, {"new": np.zeros(3)}, {})
    assert caught.value.errno == errno.ENOSPC
    assert list(read_model_file(path)[0]) == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["model.zip"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "models").write_text("a file")
    path = tmp_path / "models" / "model.zip"
    with pytest.raises(OSError, match=f"model file was not written.*{path}"):
        write_model_file(path, {}, {})


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path):
    with pytest.raises(IsADirectoryError, match=f"model file was not written.*{tmp_path}"):
        write_model_file(tmp_path, {}, {})


@pytest.mark.parametrize(
    ("objects", "manifest", "message"),
    [
        ({"estimator": RandomForestClassifier(random_state=np.random.RandomState(1))}, {}, "RandomState"),
        ({"function": print}, {}, "builtins.print"),
        ({"set": {1, 2}}, {}, "builtins.set"),
        ({}, {"params": {"f": print}}, "which is not JSON"),
        ({}, {"metrics": {"roc_auc": float("nan")}}, "not JSON compliant"),
    ],
)
def test_what_has_no_place_in_a_file_is_refused_when_writing(objects, manifest, message, tmp_path):
    with pytest.raises(ModelFileError, match=message):
        write_model_file(tmp_path / "model.zip", objects, manifest)
    assert list(tmp_path.iterdir()) == []


def test_a_file_can_be_read_by_others(tmp_path):
    umask = os.umask(0o022)
    try:
        path = write_model_file(tmp_path / "model.zip", {}, {})
    finally:
        os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o644


def test_numbers_of_numpy_are_plain_in_the_manifest(tmp_path):
    path = write_model_file(tmp_path / "m.zip", {}, {"n_rows": np.int64(3), "auc": np.float64(0.5)})
    manifest = read_model_file(path)[1]
    assert (manifest["n_rows"], manifest["auc"]) == (3, 0.5)


def test_gzip_of_a_model_file_is_not_read(sound, tmp_path):
    path = tmp_path / "model.zip.gz"
    path.write_bytes(gzip.compress(sound["logistic"].read_bytes()))
    with pytest.raises(ModelFileError):
        read_model_file(path)
