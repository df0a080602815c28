"""Settings: every key from every source, in the right order, and a plain word for every mistake."""

import ast
import configparser
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from churn_mlops.settings import Settings, SettingsError, load_settings

ROOT = Path(__file__).parents[1]
SECTIONS = {name: field.annotation for name, field in Settings.model_fields.items()}
FIELDS = [(section, key) for section, model in SECTIONS.items() for key in model.model_fields]
KEYS = {section: ", ".join(model.model_fields) for section, model in SECTIONS.items()}
IDS = [f"{section}.{key}" for section, key in FIELDS]

# For each field three values that differ from each other and from the default (a switch has but one such value): for
# the file, the environment, a flag.
EXAMPLES: dict[tuple[str, str], tuple[Any, Any, Any]] = {
    ("data", "path"): ("/a.csv", "/b.csv", "/c.csv"),
    ("data", "target"): ("a", "b", "c"),
    ("data", "id_column"): ("a", "b", "c"),
    ("data", "positive"): ("a", "b", "c"),
    ("data", "drop_unlabelled"): (True, True, True),
    ("data", "max_unpacked_mb"): (500, 2000, 64),
    ("data", "sample_size"): (10, 20, 30),
    ("split", "test_size"): (0.1, 0.3, 0.4),
    ("split", "seed"): (1, 2, 3),
    ("split", "time_column"): ("a", "b", "c"),
    ("split", "group_column"): ("a", "b", "c"),
    ("features", "function"): ("a:f", "a.b:g", "c:h"),
    ("model", "type"): ("a", "b", "c"),
    ("model", "params"): ({"a": 1}, {"b": [2]}, {"c": None}),
    ("model", "seed"): (1, 2, 3),
    ("model", "derive"): (True, True, True),
    ("model", "cv_folds"): (2, 3, 0),
    ("model", "threshold"): (0.1, "profit", 0.9),
    ("economics", "customer_value"): (100.0, "value", 300.0),
    ("economics", "incentive_cost"): (1.0, 2.0, 3.0),
    ("economics", "contact_cost"): (0.0, 2.0, 3.0),
    ("economics", "acceptance"): (0.3, (3.0, 7.0), 0.1),
    ("economics", "budget"): (10.0, 20.0, 30.0),
    ("output", "model_path"): ("/a.safetensors", "/b.safetensors", "/c.safetensors"),
    ("output", "report"): ("/a", "/b", "/c"),
    ("output", "retention_list"): ("/a.csv", "/b.csv", "/c.csv"),
    ("output", "mlflow_experiment"): ("a", "b", "c"),
    ("serving", "model_path"): ("/a.safetensors", "/b.safetensors", "/c.safetensors"),
    ("serving", "public_key"): ("/a.pub", "/b.pub", "/c.pub"),
    ("serving", "host"): ("a", "b", "c"),
    ("serving", "port"): (1, 2, 3),
    ("serving", "workers"): (2, 3, 4),
    ("serving", "watch"): (True, True, True),
    ("serving", "allow_new_columns"): (True, True, True),
    ("serving", "max_batch_rows"): (1, 2, 3),
    ("serving", "max_body_bytes"): (1, 2, 3),
    ("serving", "head_timeout"): (0.5, 2.0, 3.0),
    ("serving", "body_timeout"): (0.5, 2.0, 3.0),
    ("serving", "write_timeout"): (0.5, 2.0, 3.0),
    ("serving", "allowed_origins"): (("http://a",), ("https://b:1", "http://[::1]:2"), ("app://c",)),
}
BAD = {
    ("data", "target"): "",
    ("data", "drop_unlabelled"): "perhaps",
    ("data", "max_unpacked_mb"): "0",
    ("data", "sample_size"): "0",
    ("split", "test_size"): "1",
    ("split", "seed"): "-1",
    ("features", "function"): "add_features",
    ("model", "type"): "",
    ("model", "params"): "[1]",
    ("model", "seed"): "4294967296",
    ("model", "derive"): "perhaps",
    ("model", "cv_folds"): "1",
    ("model", "threshold"): "1",
    ("economics", "incentive_cost"): "ten",
    ("economics", "contact_cost"): "free",
    ("economics", "acceptance"): "1, 2, 3",
    ("economics", "budget"): "-1",
    ("output", "model_path"): "",
    ("serving", "host"): "",
    ("serving", "port"): "65536",
    ("serving", "workers"): "0",
    ("serving", "watch"): "sometimes",
    ("serving", "allow_new_columns"): "sometimes",
    ("serving", "max_batch_rows"): "0",
    ("serving", "max_body_bytes"): "10 MB",
    ("serving", "head_timeout"): "0",
    ("serving", "body_timeout"): "inf",
    ("serving", "write_timeout"): "0",
    ("serving", "allowed_origins"): "https://a/",
}


@pytest.fixture(autouse=True, scope="module")
def clean_environment() -> Iterator[None]:
    """Keep the settings of the machine that runs the tests out of them."""
    ours = [name for name in os.environ if re.fullmatch(r"(?i)churn_.*|model_path", name)]
    with patch.dict(os.environ):
        for name in ours:
            del os.environ[name]
        yield


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Name a settings file in a folder of its own."""
    return tmp_path / "settings.ini"


def text(value: Any) -> str:
    """Write a value the way a user writes it in the file or in the environment."""
    if isinstance(value, tuple):
        return ", ".join(map(text, value))
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return json.dumps(value) if isinstance(value, dict | bool) else "" if value is None else str(value)


def write(path: Path, section: str, key: str, value: Any) -> Path:
    """Write a settings file with one key."""
    path.write_text(f"[{section}]\n{key} = {text(value)}\n", encoding="utf-8")
    return path


def variable(section: str, key: str) -> str:
    """Name the environment variable of a key."""
    return f"CHURN_{section}__{key}".upper()


def get(settings: Settings, section: str, key: str) -> Any:
    """Look one value up, paths as text."""
    value = getattr(getattr(settings, section), key)
    return str(value) if isinstance(value, Path) else value


def message(*args: Any, **kwargs: Any) -> str:
    """Load settings that must be refused, and hand back what the user is told."""
    with pytest.raises(SettingsError) as refused:
        load_settings(*args, **kwargs)
    return str(refused.value)


# --- precedence -------------------------------------------------------------------------------------------------------


def test_every_field_has_examples() -> None:
    assert set(EXAMPLES) == set(FIELDS)


@pytest.mark.parametrize(("section", "key"), FIELDS, ids=IDS)
def test_precedence_is_flag_environment_file_default(file: Path, section: str, key: str) -> None:
    in_file, in_environment, as_flag = EXAMPLES[section, key]
    default = get(load_settings(write(file, "data", "sample_size", 5000)), section, key)
    write(file, section, key, in_file)
    from_file = get(load_settings(file), section, key)
    with patch.dict(os.environ, {variable(section, key): text(in_environment)}):
        from_environment = get(load_settings(file), section, key)
        from_flag = get(load_settings(file, **{section: {key: as_flag}}), section, key)
    assert (from_file, from_environment, from_flag) == (in_file, in_environment, as_flag)
    assert default not in (in_file, in_environment, as_flag)


@pytest.mark.parametrize(("section", "key"), FIELDS, ids=IDS)
def test_a_flag_that_is_none_was_not_given(file: Path, section: str, key: str) -> None:
    write(file, section, key, EXAMPLES[section, key][0])
    assert load_settings(file, **{section: {key: None}}) == load_settings(file)


def test_a_key_from_one_source_leaves_its_neighbours_to_the_others(file: Path) -> None:
    file.write_text("[split]\nseed = 1\ntest_size = 0.1\n")
    with patch.dict(os.environ, CHURN_SPLIT__SEED="2"):
        split = load_settings(file).split
    assert (split.seed, split.test_size) == (2, 0.1)


def test_params_of_a_flag_replace_those_of_the_file(file: Path) -> None:
    write(file, "model", "params", {"max_depth": 3})
    assert load_settings(file, model={"params": {"C": 1.0}}).model.params == {"C": 1.0}


def test_params_of_the_defaults_are_not_shared() -> None:
    Settings().model.params["C"] = 1.0
    assert Settings().model.params == {}


def test_environment_names_may_be_lower_case(file: Path) -> None:
    with patch.dict(os.environ, churn_split__seed="2"):
        assert load_settings(write(file, "split", "seed", 1)).split.seed == 2


# --- the model that is served -----------------------------------------------------------------------------------------


def test_model_path_variable_names_the_served_model_only(file: Path) -> None:
    write(file, "serving", "model_path", "file.safetensors")
    with patch.dict(os.environ, MODEL_PATH="short.safetensors"):
        settings = load_settings(file)
    assert settings.serving.model_path == Path("short.safetensors")
    assert settings.output.model_path == file.parent / "models/churn-model.safetensors"


def test_the_long_name_comes_before_model_path(file: Path) -> None:
    with patch.dict(os.environ, MODEL_PATH="short.safetensors", CHURN_SERVING__MODEL_PATH="long.safetensors"):
        assert load_settings(write(file, "split", "seed", 1)).serving.model_path == Path("long.safetensors")


@pytest.mark.parametrize("empty", [{"MODEL_PATH": ""}, {"CHURN_SERVING__MODEL_PATH": ""}, {}])
def test_without_its_own_path_the_server_takes_the_trained_model(file: Path, empty: dict[str, str]) -> None:
    write(file, "output", "model_path", "/trained.safetensors")
    with patch.dict(os.environ, empty):
        assert load_settings(file).serving.model_path == Path("/trained.safetensors")


# --- paths ------------------------------------------------------------------------------------------------------------


def test_paths_in_the_file_start_at_its_folder(file: Path, tmp_path: Path) -> None:
    write(file, "data", "path", "exports/customers.csv")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with chdir(elsewhere):
        settings = load_settings(Path("../settings.ini"))
    assert settings.data.path is not None
    assert settings.data.path.resolve() == (tmp_path / "exports/customers.csv").resolve()


def test_a_default_path_starts_at_the_folder_of_the_file(file: Path) -> None:
    write(file, "split", "seed", 1)
    assert load_settings(file).output.model_path == file.parent / "models/churn-model.safetensors"


def test_paths_of_flags_and_variables_start_at_the_current_folder(file: Path) -> None:
    write(file, "data", "path", "from-file.csv")
    with patch.dict(os.environ, CHURN_OUTPUT__MODEL_PATH="out/model.safetensors"):
        settings = load_settings(file, data={"path": "here.csv"})
    assert settings.data.path == Path("here.csv")
    assert settings.output.model_path == Path("out/model.safetensors")


# --- any value comes back as it was written -------------------------------------------------------------------------

# What an INI file can hold on one line: no control characters, no blanks at the ends.
words = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1).filter(lambda word: word == word.strip())
awkward = st.builds("{}{}{}".format, words, st.sampled_from(["%", "%(seed)s", "${x}", " ; ", " # ", "=", ": "]), words)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
objects = st.dictionaries(st.text(), st.recursive(scalars, lambda inner: st.lists(inner), max_leaves=4), max_size=4)
STRATEGIES: dict[tuple[str, str], st.SearchStrategy[Any]] = {
    ("data", "target"): words | awkward,
    ("data", "id_column"): st.none() | words | awkward,
    ("data", "positive"): st.none() | words | awkward,
    ("data", "max_unpacked_mb"): st.integers(1, 10**9),
    ("data", "sample_size"): st.integers(1, 10**9),
    ("split", "test_size"): st.floats(0, 1, exclude_min=True, exclude_max=True),
    ("split", "seed"): st.integers(0, 2**32 - 1),
    ("model", "type"): words | awkward,
    ("model", "params"): objects,
    ("model", "seed"): st.integers(0, 2**32 - 1),
    ("model", "derive"): st.booleans(),
    ("model", "cv_folds"): st.just(0) | st.integers(2, 100),
    ("model", "threshold"): st.just("profit") | st.floats(0, 1, exclude_min=True, exclude_max=True),
    ("economics", "acceptance"): st.floats(0, 1) | st.tuples(st.floats(0.1, 100), st.floats(0.1, 100)),
    ("serving", "host"): words | awkward,
    ("serving", "port"): st.integers(0, 65535),
    ("serving", "workers"): st.integers(1, 256),
    ("serving", "watch"): st.booleans(),
    ("serving", "allow_new_columns"): st.booleans(),
    ("serving", "max_batch_rows"): st.integers(1, 10**9),
    ("serving", "max_body_bytes"): st.integers(1, 10**12),
    ("serving", "head_timeout"): st.floats(0, 1e9, exclude_min=True),
    ("serving", "body_timeout"): st.floats(0, 1e9, exclude_min=True),
    ("serving", "write_timeout"): st.floats(0, 1e9, exclude_min=True),
}
reuse_folder = hypothesis_settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize(("section", "key"), STRATEGIES, ids=lambda name: name)
@given(data=st.data())
@reuse_folder
def test_any_valid_value_comes_back_from_the_file(file: Path, section: str, key: str, data: st.DataObject) -> None:
    value = data.draw(STRATEGIES[section, key])
    assert get(load_settings(write(file, section, key, value)), section, key) == value


@pytest.mark.parametrize(("section", "key"), STRATEGIES, ids=lambda name: name)
@given(data=st.data())
@reuse_folder
def test_any_valid_value_comes_back_from_the_environment(
    file: Path, section: str, key: str, data: st.DataObject
) -> None:
    value = data.draw(STRATEGIES[section, key])
    write(file, "split", "seed", 1)
    with patch.dict(os.environ, {variable(section, key): text(value)}):
        assert get(load_settings(file), section, key) == value


@pytest.mark.parametrize(("section", "key"), STRATEGIES, ids=lambda name: name)
@given(data=st.data())
@reuse_folder
def test_any_valid_value_comes_back_from_a_flag(file: Path, section: str, key: str, data: st.DataObject) -> None:
    value = data.draw(STRATEGIES[section, key].filter(lambda value: value is not None))
    write(file, "split", "seed", 1)
    assert get(load_settings(file, **{section: {key: value}}), section, key) == value


@given(name=words | awkward)
@reuse_folder
def test_any_path_in_the_file_is_kept_to_the_letter(file: Path, name: str) -> None:
    assert load_settings(write(file, "data", "path", name)).data.path == file.parent / name


def test_params_may_run_over_several_lines(file: Path) -> None:
    file.write_text('[model]\nparams = {\n    "n_estimators": 500,\n    "max_depth": 6\n    }\nseed = 1\n')
    model = load_settings(file).model
    assert (model.params, model.seed) == ({"n_estimators": 500, "max_depth": 6}, 1)


def test_a_byte_order_mark_and_windows_line_ends_are_no_obstacle(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf[data]\r\ntarget = K\xc3\xbcndigung\r\n")
    assert load_settings(file).data.target == "Kündigung"


def test_origins_stand_with_commas_between_them(file: Path) -> None:
    file.write_text("[serving]\nallowed_origins = https://crm.example.com , http://localhost:3000,\n")
    assert load_settings(file).serving.allowed_origins == ("https://crm.example.com", "http://localhost:3000")


@pytest.mark.parametrize(
    "wrong",
    ["crm.example.com", "https://crm.example.com/", "https://CRM.example.com", "https://a:443", "http://a:80", "null"],
)
def test_what_no_browser_sends_as_an_origin_is_refused(file: Path, wrong: str) -> None:
    said = message(write(file, "serving", "allowed_origins", f"https://fine.example.com, {wrong}"))
    assert "[serving] allowed_origins" in said
    assert "such as https://crm.example.com" in said


def test_every_origin_at_once_is_refused_with_the_reason(file: Path) -> None:
    assert "should name each origin; * would let every page" in message(write(file, "serving", "allowed_origins", "*"))


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_every_field_that_has_a_limit_is_tested_beyond_it() -> None:
    unlimited = {("data", "path"), ("data", "id_column"), ("data", "positive"), ("serving", "model_path")}
    unlimited |= {
        ("split", "time_column"),
        ("split", "group_column"),
        ("output", "report"),
        ("output", "retention_list"),
    }
    unlimited |= {("economics", "customer_value")}  # what is no amount is the name of a column
    assert set(BAD) == set(FIELDS) - unlimited


@pytest.mark.parametrize(("section", "key"), BAD, ids=lambda name: name)
def test_a_bad_value_in_the_file_names_file_section_key_and_what_is_allowed(file: Path, section: str, key: str) -> None:
    told = message(write(file, section, key, BAD[section, key]))
    assert told.startswith(f"{file}: [{section}] {key} = ")
    assert told.endswith(SECTIONS[section].model_fields[key].description)


@pytest.mark.parametrize(("section", "key"), BAD, ids=lambda name: name)
def test_a_bad_value_in_the_environment_names_the_variable(file: Path, section: str, key: str) -> None:
    write(file, section, key, EXAMPLES[section, key][0])
    with patch.dict(os.environ, {variable(section, key): BAD[section, key]}):
        told = message(file)
    assert told.startswith(f"environment variable {variable(section, key)}: [{section}] {key} = ")


@pytest.mark.parametrize(("section", "key"), BAD, ids=lambda name: name)
def test_a_bad_flag_is_called_an_option(file: Path, section: str, key: str) -> None:
    write(file, section, key, EXAMPLES[section, key][0])
    told = message(file, **{section: {key: BAD[section, key]}})
    assert told.startswith(f"option {key}: [{section}] {key} = ")


@pytest.mark.parametrize("share", ["nan", "inf", "0", "1.0", "20%", "0.2 ; a fifth", ""])
def test_a_test_size_that_is_no_share_is_refused(file: Path, share: str) -> None:
    assert f"[split] test_size = {share!r}: Input should be" in message(write(file, "split", "test_size", share))


def test_params_that_are_no_json_say_where_they_break(file: Path) -> None:
    told = message(write(file, "model", "params", "{'C': 1}"))
    assert "Input should be JSON: Expecting property name enclosed in double quotes: line 1 column 2" in told


def test_an_unknown_key_in_the_file_is_answered_with_the_keys(file: Path) -> None:
    told = message(write(file, "split", "tset_size", 0.2))
    assert told == f"{file}: [split] has no key 'tset_size'; its keys are {KEYS['split']}"


def test_an_unknown_section_in_the_file_is_answered_with_the_sections(file: Path) -> None:
    file.write_text("[split]\nseed = 1\n[splitt]\nseed = 1\n")
    told = message(file)
    assert told == f"{file}: there is no section [splitt]; the sections are {', '.join(SECTIONS)}"


def test_the_default_section_is_refused(file: Path) -> None:
    file.write_text("[DEFAULT]\nseed = 1\n[split]\ntest_size = 0.3\n")
    assert "there is no section [DEFAULT]" in message(file)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("CHURN_SPLITT__SEED", f"there is no section [splitt]; the sections are {', '.join(SECTIONS)}"),
        ("CHURN_SPLIT__SEEDS", f"[split] has no key 'seeds'; its keys are {KEYS['split']}"),
        ("CHURN_MODEL__PARAMS__C", f"[model] has no key 'params__c'; its keys are {KEYS['model']}"),
        ("CHURN_SPLIT", f"[split] is a section, not a value; its keys are {KEYS['split']}"),
        ("churn_Split__Seeds", f"[split] has no key 'seeds'; its keys are {KEYS['split']}"),
    ],
)
def test_an_unknown_variable_is_named(file: Path, name: str, told: str) -> None:
    write(file, "split", "seed", 1)
    with patch.dict(os.environ, {name: "1"}):
        assert message(file) == f"environment variable {name}: {told}"


def test_variables_of_other_shape_are_left_alone(file: Path) -> None:
    with patch.dict(os.environ, CHURN_TELCO_CSV="telco.csv", CHURNING__SEED="1", CHURN_="1", CHURN___="1"):
        assert load_settings(write(file, "split", "seed", 3)).split.seed == 3


def test_an_unknown_option_is_named(file: Path) -> None:
    write(file, "split", "seed", 1)
    assert message(file, split={"seeds": 1}).startswith("option seeds: [split] has no key 'seeds'")
    assert message(file, splits={"seed": 1}).startswith("option splits: there is no section [splits]")


def test_every_mistake_has_a_line_of_its_own_without_clutter(file: Path) -> None:
    file.write_text("[split]\nseed = x\ntest_size = 2\nsede = 1\n[x]\n")
    with patch.dict(os.environ, CHURN_SERVING__PORT="http"):
        told = message(file, model={"cv_folds": -1})
    assert len(told.splitlines()) == 6
    assert "pydantic" not in told


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[split]\nseed = 1\nseed = 2\n", "line +3.*'seed' in section 'split' already exists"),
        ("[split]\nseed = 1\n[split]\n", "line +3.*section 'split' already exists"),
        ("seed = 1\n[split]\n", "no section headers"),
        ("[split]\nseed\n", "parsing errors.*line +2.*seed"),
        ("[data]\npath = a.csv\n  target = Churn\n", r"\[data\] path runs over several lines"),
    ],
)
def test_a_file_that_cannot_be_parsed_says_where_in_one_line(file: Path, content: str, told: str) -> None:
    file.write_text(content)
    problem = message(file)
    assert re.search(told, problem)
    assert str(file) in problem
    assert "\n" not in problem


def test_indented_keys_after_an_empty_line_are_keys(file: Path) -> None:
    file.write_text("[data]\npath = a.csv\n\n  target = Churn\n")
    assert load_settings(file).data.target == "Churn"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_a_file_that_is_found_and_cannot_be_read_is_not_passed_over(
    encoding: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_bytes("[data]\ntarget = Churn\n".encode(encoding))
    monkeypatch.chdir(file.parent)
    assert message() == f"settings file {file}: not UTF-8 text; save it with the encoding UTF-8"


@pytest.mark.parametrize("deep", ["[" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000])
def test_json_of_a_hundred_thousand_brackets_is_refused_in_a_short_line(deep: str) -> None:
    told = message(model={"params": deep})
    assert "Input should be JSON" in told
    assert len(told) < 500


def test_variables_may_be_in_small_letters() -> None:
    with patch.dict(os.environ, {"model_path": "small.safetensors", "churn_split__seed": "7"}):
        settings = load_settings()
    assert (str(settings.serving.model_path), settings.split.seed) == ("small.safetensors", 7)


def test_a_file_in_another_encoding_is_named(file: Path) -> None:
    file.write_bytes("[data]\ntarget = Kündigung\n".encode("latin-1"))
    assert message(file) == f"settings file {file}: not UTF-8 text; save it with the encoding UTF-8"


def test_a_given_file_that_is_missing_is_an_error(file: Path) -> None:
    assert message(file) == f"settings file {file}: No such file or directory"


def test_a_given_folder_is_an_error(tmp_path: Path) -> None:
    assert message(str(tmp_path)) == f"settings file {tmp_path}: Is a directory"


def test_a_given_file_of_something_else_is_an_error(file: Path) -> None:
    file.write_text("[DEFAULT]\nlib_name = other\n")
    assert message(file).startswith(f"settings file {file}: has none of the sections data, split")


def test_settings_are_read_only(file: Path) -> None:
    settings = load_settings(write(file, "split", "seed", 1))
    with pytest.raises(ValidationError, match="frozen"):
        settings.split.seed = 2  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        settings.split = settings.split  # type: ignore[misc]


# --- which file -------------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a project with a sub-folder, inside of a folder that has settings of its own."""
    write(tmp_path / "settings.ini", "split", "seed", 1)
    project = tmp_path / "project"
    (project / "nbs/data").mkdir(parents=True)
    (project / "pyproject.toml").touch()
    return project


def seed_from(folder: Path) -> int:
    """Load settings from a folder without naming a file."""
    with chdir(folder):
        return load_settings().split.seed


def test_the_search_goes_up_to_the_top_of_the_project(project: Path) -> None:
    write(project / "settings.ini", "split", "seed", 2)
    assert seed_from(project / "nbs/data") == 2


def test_the_nearest_file_counts(project: Path) -> None:
    write(project / "settings.ini", "split", "seed", 2)
    write(project / "nbs/settings.ini", "split", "seed", 3)
    assert seed_from(project / "nbs/data") == 3


def test_the_search_does_not_leave_the_project(project: Path) -> None:
    assert seed_from(project / "nbs/data") == 42


def test_outside_of_a_project_only_the_current_folder_counts(tmp_path: Path) -> None:
    write(tmp_path / "settings.ini", "split", "seed", 1)
    (tmp_path / "inner").mkdir()
    assert (seed_from(tmp_path), seed_from(tmp_path / "inner")) == (1, 42)


@pytest.mark.parametrize(
    "content",
    [b"[DEFAULT]\nlib_name = other\n", b"lib_name: other\n", b"[other]\n[other]\n", b"[\xfcber]\na = b\n", b""],
)
def test_a_file_of_something_else_is_left_alone_with_a_line_in_the_log(
    project: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    write(project / "settings.ini", "split", "seed", 2)
    (project / "nbs/settings.ini").write_bytes(content)
    with caplog.at_level(logging.INFO, logger="churn_mlops.settings"):
        assert seed_from(project / "nbs") == 2
    left_alone, used = caplog.messages
    assert left_alone == f"{project / 'nbs/settings.ini'} has none of the sections {', '.join(SECTIONS)}: left alone"
    assert used == f"settings file: {project / 'settings.ini'}"


def test_a_file_of_ours_with_a_syntax_error_is_not_passed_over(project: Path) -> None:
    (project / "settings.ini").write_text("[split]\nseed\n")
    with chdir(project):
        assert "parsing errors" in message()


def test_the_log_says_that_no_file_was_found(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="churn_mlops.settings"):
        seed_from(project)
    assert caplog.messages == ["settings file: none"]


# --- the file in the repository ---------------------------------------------------------------------------------------


def repository_file() -> list[tuple[str, str, str]]:
    """List section, key and comment of each key in the repository's settings.ini."""
    entries, section, comment = [], "", ""
    for line in (ROOT / "settings.ini").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            comment += line.removeprefix("#")
            continue
        if line.startswith("["):
            section = line.strip("[]")
        elif line:
            entries.append((section, line.partition("=")[0].strip(), comment.strip()))
        comment = ""
    return entries


def test_the_repository_file_comments_every_key_with_its_description() -> None:
    described = [(section, key, SECTIONS[section].model_fields[key].description) for section, key in FIELDS]
    assert repository_file() == described


def test_the_repository_file_holds_the_defaults() -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    defaults = {name: {key: text(f.default) for key, f in m.model_fields.items()} for name, m in SECTIONS.items()}
    assert {name: dict(parser[name]) for name in parser.sections()} == defaults


def test_the_repository_file_loads() -> None:
    assert load_settings(ROOT / "settings.ini").output.model_path == ROOT / "models/churn-model.safetensors"


def test_importing_settings_loads_neither_pandas_nor_scikit_learn() -> None:
    code = "import sys, churn_mlops.settings; print(sorted({'pandas', 'sklearn', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_field_is_read() -> None:
    read = set()
    for module in (ROOT / "churn_mlops").rglob("*.py"):
        if module.name not in ("settings.py", "_modidx.py"):
            for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute | ast.Name):
                    section = node.value.attr if isinstance(node.value, ast.Attribute) else node.value.id
                    read.add((section, node.attr))
    assert set(FIELDS) <= read
