"""The data layer: sample customers, files as they come, checks, splits."""

import contextlib
import csv
import gzip
import importlib.util
import io
import re
import time
import warnings
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from churn_mlops.data import (
    Split,
    encode_target,
    generate_sample_data,
    load_csv,
    load_table,
    split_data,
    validate_data,
)
from churn_mlops.data.reading import read_columns, read_text
from churn_mlops.data.validation import drop_unlabelled
from churn_mlops.utils import spreadsheet_csv

COLUMNS = [
    "customer_id",
    "tenure",
    "monthly_charges",
    "total_charges",
    "contract_type",
    "payment_method",
    "internet_service",
    "tech_support",
    "online_security",
    "churn",
]
NUMERIC = ["tenure", "monthly_charges", "total_charges"]


@pytest.fixture(scope="module")
def sample() -> tuple[pd.DataFrame, pd.Series]:
    """Make customers with their true churn probability."""
    return generate_sample_data(20_000, return_probability=True)


class TestSampleData:
    """`generate_sample_data`."""

    def test_columns_are_those_of_the_design(self, sample):
        assert list(sample[0].columns) == COLUMNS

    def test_default_is_a_thousand_rows(self):
        assert len(generate_sample_data()) == 1000

    def test_only_tenure_and_charges_are_numeric_inputs(self, sample):
        inputs = sample[0].drop(columns="churn")
        assert list(inputs.select_dtypes("number").columns) == NUMERIC

    def test_two_calls_give_the_same_frame(self):
        pd.testing.assert_frame_equal(generate_sample_data(300), generate_sample_data(300))

    def test_another_seed_gives_other_customers(self):
        assert not generate_sample_data(300).equals(generate_sample_data(300, seed=7))

    def test_asking_for_the_probability_does_not_change_the_customers(self):
        pd.testing.assert_frame_equal(generate_sample_data(300), generate_sample_data(300, return_probability=True)[0])

    def test_nothing_is_missing_and_ids_are_unique_text(self, sample):
        customers = sample[0]
        assert not customers.isna().any(axis=None)
        assert customers["customer_id"].is_unique
        assert customers["customer_id"].map(type).eq(str).all()

    def test_about_27_percent_leave(self, sample):
        assert abs(sample[0]["churn"].mean() - 0.27) < 0.015

    def test_churn_falls_with_tenure(self, sample):
        rates = sample[0].groupby(pd.cut(sample[0]["tenure"], 4), observed=True)["churn"].mean()
        assert rates.is_monotonic_decreasing

    def test_churn_falls_with_longer_contracts(self, sample):
        rates = sample[0].groupby("contract_type")["churn"].mean()
        assert rates["Month-to-month"] > rates["One year"] > rates["Two year"]

    def test_churn_rises_with_charges(self, sample):
        rates = sample[0].groupby(pd.qcut(sample[0]["monthly_charges"], 4), observed=True)["churn"].mean()
        assert rates.iloc[-1] > rates.iloc[0] + 0.1

    def test_total_is_tenure_times_charges_with_noise(self, sample):
        ratio = sample[0]["total_charges"] / (sample[0]["tenure"] * sample[0]["monthly_charges"])
        assert ratio.between(0.89, 1.11).all()
        assert 0.01 < ratio.std() < 0.06

    @pytest.mark.parametrize("column", ["tech_support", "online_security"])
    def test_add_ons_agree_with_the_internet_line(self, sample, column):
        without_line = sample[0]["internet_service"] == "No"
        assert (sample[0][column] == "No internet service").equals(without_line)
        assert set(sample[0][column]) == {"Yes", "No", "No internet service"}

    def test_best_possible_auc_is_realistic(self, sample):
        assert 0.83 < roc_auc_score(sample[0]["churn"], sample[1]) < 0.87

    def test_probability_is_named_aligned_and_calibrated(self, sample):
        customers, probability = sample
        assert probability.name == "churn_probability"
        assert probability.index.equals(customers.index)
        bins = pd.qcut(probability, 10)
        gap = customers["churn"].groupby(bins, observed=True).mean() - probability.groupby(bins, observed=True).mean()
        assert gap.abs().max() < 0.05

    @pytest.mark.parametrize("n_samples", [0, -5, 2.5, "10", True, None])
    def test_bad_number_of_rows_is_refused(self, n_samples):
        with pytest.raises(ValueError, match="n_samples"):
            generate_sample_data(n_samples)

    def test_one_row_and_numpy_numbers_work(self):
        assert len(generate_sample_data(np.int64(1))) == 1

    def test_half_a_million_rows_take_seconds(self):
        start = time.perf_counter()
        generate_sample_data(400_000)
        assert time.perf_counter() - start < 10


def write(path: Path, content: str | bytes, encoding: str = "utf-8") -> Path:
    """Write a file exactly as given."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


class TestLoadCsvRefuses:
    """What `load_csv` does not read."""

    def test_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"gone\.csv"):
            load_csv(tmp_path / "gone.csv")

    def test_folder(self, tmp_path):
        with pytest.raises(ValueError, match="is a folder"):
            load_csv(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"\n \r\n", b"\xef\xbb\xbf", b"\xff\xfe", b"\xef\xbb\xbf\n"])
    def test_empty_file(self, tmp_path, content):
        with pytest.raises(ValueError, match="is empty"):
            load_csv(write(tmp_path / "a.csv", content))

    @pytest.mark.parametrize("content", ["a,b", "a,b\n", "a;b\n\n", "single\n"])
    def test_header_without_rows(self, tmp_path, content):
        with pytest.raises(ValueError, match="header but no rows"):
            load_csv(write(tmp_path / "a.csv", content))

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("a,b\n1,2\n1,2,3\n", "line 3: expected 2 fields as in the header, found 3"),
            ("a,b,c\n1,2,3\n\n1,2\n", "line 4: expected 3 fields as in the header, found 2"),
            ('a,b\n"x\ny",2\n1\n', "line 4: expected 2 fields as in the header, found 1"),
            ("a,b\n1,2,3\n4,5,6\n", "line 1: the header has 2 names and each row 3 fields: the first field"),
            ("a,b\n1,2,3\n4,5\n", "line 2: expected 2 fields as in the header, found 3"),
            ("a,b\n1,2,\n3,4,\n", "line 2: expected 2 fields as in the header, found 3"),
            ('a,b\n1,2\n3,"x\n5,6\n', "line 3: a quote that starts in this row is never closed"),
        ],
    )
    def test_row_that_does_not_fit(self, tmp_path, content, message):
        with pytest.raises(ValueError, match=message):
            load_csv(write(tmp_path / "a.csv", content))

    def test_binary_file(self, tmp_path):
        with pytest.raises(ValueError, match="not a text file"):
            load_csv(write(tmp_path / "a.csv", b"PK\x03\x04\x00\x00a,b\n1,2\n"))

    def test_damaged_utf16(self, tmp_path):
        with pytest.raises(ValueError, match="damaged"):
            load_csv(write(tmp_path / "a.csv", "\ufeffa,b\n1,2\n".encode("utf-16-le")[:-1]))

    def test_truncated_gzip(self, tmp_path):
        with pytest.raises(ValueError, match="damaged gzip"):
            load_csv(write(tmp_path / "a.csv.gz", gzip.compress(b"a,b\n1,2\n" * 100)[:-12]))

    def test_repeated_target(self, tmp_path):
        path = write(tmp_path / "a.csv", "a,churn,churn\n1,0,1\n")
        with pytest.raises(ValueError, match="2 columns named 'churn'"):
            load_csv(path, target="churn")


class TestLoadCsvReads:
    """What `load_csv` makes of files as they come."""

    @pytest.mark.parametrize("delimiter", list(",;\t|"))
    def test_delimiters(self, tmp_path, delimiter):
        text = 'id,note,n\nx,"a, b; c\td|e",1\ny,plain,2\n'
        rows = csv.reader(io.StringIO(text))
        out = io.StringIO()
        csv.writer(out, delimiter=delimiter).writerows(rows)
        table = load_csv(write(tmp_path / "a.csv", out.getvalue()))
        assert table.to_dict("list") == {"id": ["x", "y"], "note": ["a, b; c\td|e", "plain"], "n": [1, 2]}

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "latin-1"])
    def test_encodings(self, tmp_path, encoding):
        table = load_csv(write(tmp_path / "a.csv", "città,n\nKöln,1\n", encoding))
        assert table.to_dict("list") == {"città": ["Köln"], "n": [1]}

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    def test_line_ends_and_blank_lines(self, tmp_path, end):
        table = load_csv(write(tmp_path / "a.csv", end.join(["", "a,b", "1,x", "", "  ", "2,y", ""])))
        assert table.to_dict("list") == {"a": [1, 2], "b": ["x", "y"]}

    @pytest.mark.parametrize("word", ["", " ", "   ", "?", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL"])
    def test_words_for_missing(self, tmp_path, word):
        table = load_csv(write(tmp_path / "a.csv", f"n,text\n1.5,x\n{word},{word}\n2,y\n"))
        assert table["n"].dtype == float
        assert table.isna().sum().tolist() == [1, 1]

    def test_none_is_a_category(self, tmp_path):
        table = load_csv(write(tmp_path / "a.csv", "addon,n\nNone,1\nTV,2\n"))
        assert table["addon"].tolist() == ["None", "TV"]

    def test_leading_zeros_stay_text_even_if_late_and_beside_blanks(self, tmp_path):
        rows = "".join(f"{10_000 + i},{i}\n" for i in range(1000))
        table = load_csv(write(tmp_path / "a.csv", f"zip,n\n{rows}00123,0\n,0.5\n"))
        assert table["zip"].iloc[[0, 1000]].tolist() == ["10000", "00123"]
        assert table["zip"].isna().sum() == 1
        assert table["n"].dtype == float

    def test_decimal_comma(self, tmp_path):
        table = load_csv(write(tmp_path / "a.csv", "date;price;n\n01.02.2024;29,85;1\n03.02.2024;-1,5;2\n"))
        assert table["price"].tolist() == [29.85, -1.5]
        assert table["date"].tolist() == ["01.02.2024", "03.02.2024"]

    def test_decimal_point_between_semicolons(self, tmp_path):
        table = load_csv(write(tmp_path / "a.csv", "size;price\nS,M;29.85\nL;1.5\n"))
        assert table["price"].tolist() == [29.85, 1.5]

    def test_one_column(self, tmp_path):
        assert load_csv(write(tmp_path / "a.csv", "n\n1\n2\n"))["n"].tolist() == [1, 2]

    def test_first_column_never_becomes_the_index(self, tmp_path):
        table = load_csv(write(tmp_path / "a.csv", ",a\n5,1\n6,2\n"))
        assert list(table.columns) == ["Unnamed: 0", "a"]
        assert table.index.tolist() == [0, 1]

    def test_names_are_stripped(self, tmp_path):
        assert list(load_csv(write(tmp_path / "a.csv", " a , b\n1, x\n")).columns) == ["a", "b"]

    def test_repeated_columns_are_named_and_the_first_is_kept(self, tmp_path):
        path = write(tmp_path / "a.csv", "a,b,a,c,b\n1,2,3,4,5\n")
        with pytest.warns(UserWarning, match="'a', 'b'"):
            table = load_csv(path, target="c")
        assert table.to_dict("list") == {"a": [1], "b": [2], "c": [4]}

    def test_a_path_may_be_text(self, tmp_path):
        assert load_csv(str(write(tmp_path / "a.csv", "a,b\n1,2\n"))).shape == (1, 2)

    def test_sample_data_round_trip(self, tmp_path):
        customers = generate_sample_data(500)
        customers.to_csv(tmp_path / "a.csv", index=False)
        pd.testing.assert_frame_equal(load_csv(tmp_path / "a.csv"), customers)


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16"]
WORDS = st.text(
    st.characters(codec="utf-8", categories=["L", "P", "S"], include_characters=' ,;\t|"\n\r'), max_size=12
).map(lambda word: f"x{word}")


@st.composite
def text_tables(draw) -> pd.DataFrame:
    """Draw tables of text: any letters, delimiters, quotes and line ends inside the fields."""
    n_columns = draw(st.integers(2, 4))
    rows = draw(st.lists(st.tuples(*[WORDS] * n_columns), min_size=1, max_size=8))
    return pd.DataFrame(rows, columns=[f"column {i}" for i in range(n_columns)])


@given(table=text_tables(), delimiter=st.sampled_from(",;\t|"), encoding=st.sampled_from(ENCODINGS))
def test_any_text_survives_a_csv_file(tmp_path_factory, table, delimiter, encoding):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([table.columns, *table.to_numpy()])
    assert load_csv(path).to_dict("list") == table.to_dict("list")


FORMULAS = st.from_regex(r"'{0,2}[=+\-@\t\r][=+@'x1-]{0,4}x", fullmatch=True)


@given(cells=st.lists(FORMULAS, min_size=1, max_size=8), name=FORMULAS.map(str.strip))
def test_cells_that_a_spreadsheet_would_run_are_read_back_as_they_were(tmp_path_factory, cells, name):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    table = pd.DataFrame({"id": range(len(cells)), name: cells})
    path.write_bytes(spreadsheet_csv(table, index=False).encode())
    assert not re.search(r"(^|,|\n)\"?[=+@\t\r-]", path.read_bytes().decode())
    assert load_csv(path).to_dict("list") == table.to_dict("list")


@given(
    numbers=st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6).map(lambda x: round(x, 2))), min_size=1, max_size=20),
    delimiter=st.sampled_from(",;\t|"),
    decimal=st.sampled_from(".,"),
    missing=st.sampled_from(["", " ", "?", "NA"]),
)
def test_numbers_with_blanks_survive_a_csv_file(tmp_path_factory, numbers, delimiter, decimal, missing):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    table = pd.DataFrame({"n": pd.Series(numbers, dtype=float), "plan": "basic"})
    table.to_csv(path, index=False, sep=delimiter, decimal="." if delimiter == "," else decimal, na_rep=missing)
    np.testing.assert_allclose(load_csv(path)["n"].astype(float), table["n"], rtol=1e-12)


class TestReadText:
    """`read_text` and `read_columns`."""

    @pytest.mark.parametrize(
        ("values", "numbers"),
        [
            (["$1,234.50", "-$0.99", "$ 7"], [1234.5, -0.99, 7]),
            (["1.234,50", "12,00"], [1234.5, 12]),
            (["1\u202f234,50 €", "12,50\u00a0€"], [1234.5, 12.5]),
            (["CHF 1'234.50", "CHF 1\u2019000"], [1234.5, 1000]),
            (["1,234,567", "1,234"], [1_234_567, 1234]),
            (["1,234.5", "999"], [1234.5, 999]),
            (["0,123", "1,234"], [0.123, 1.234]),
            (["12.5%", "100 %"], [12.5, 100]),
        ],
    )
    def test_numbers(self, values, numbers):
        reading = read_text(pd.Series(values))
        assert (reading.values.tolist(), reading.doubt) == (numbers, "")
        assert reading.what

    @pytest.mark.parametrize(
        ("values", "first"),
        [
            (["31/03/2024", "1/4/2024"], "2024-03-31"),
            (["03/31/2024", "4/1/2024"], "2024-03-31"),
            (["31.03.2024 17:05", "01.04.2024 00:00"], "2024-03-31 17:05"),
            (["3/31/2024 5:05:09 PM"], "2024-03-31 17:05:09"),
            (["2024/03/31"], "2024-03-31"),
            (["3/31/24"], "2024-03-31"),
            (["31-MAR-24"], "2024-03-31"),
            (["31 March 2024", "April 1st, 2024"], "2024-03-31"),
            (["Mar 31, 2024 17:05", "Apr 1, 2024"], "2024-03-31 17:05"),
            (["5/5/2024", "6/6/2024"], "2024-05-05"),
        ],
    )
    def test_dates(self, values, first):
        reading = read_text(pd.Series(values))
        assert (reading.values[0], reading.what[:5], reading.doubt) == (pd.Timestamp(first), "dates", "")

    @pytest.mark.parametrize(
        ("values", "doubt"),
        [
            (["03/04/2024", "12/11/2024"], "day/month/year or month/day/year"),
            (["31/12/24"], "day/month/year or year/month/day"),
            (["1,234", "999"], "1,234"),
            (["€1.234"], "1,234"),
            (["$5", "€5"], "several units"),
            (["5%", "7"], "percentages beside plain numbers"),
        ],
    )
    def test_doubt_leaves_the_text_and_says_why(self, values, doubt):
        reading = read_text(pd.Series(values))
        assert reading.values.tolist() == values
        assert doubt in reading.doubt

    @pytest.mark.parametrize(
        "values",
        [
            ["basic", "5G"],
            ["$5", "none"],
            ["00123", "1,234.5"],
            ["12,34,567"],
            ["31/02/2024"],
            ["3/2024"],
            ["May 2024"],
            ["10-20", "20-30"],
            ["May", "Mark 2024 is 10"],
            ["+44 20 7946 0958"],
            ["1" * 400 + "/1/2024"],
        ],
    )
    def test_other_text_is_text(self, values):
        reading = read_text(pd.Series(values))
        assert (reading.values.tolist(), reading.what, reading.doubt) == (values, "", "")

    @settings(deadline=None)
    @given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip), min_size=1, max_size=4))
    def test_no_text_stops_it(self, values):
        reading = read_text(pd.Series([value.strip() for value in values]))
        assert len(reading.values) == len(values)

    @settings(deadline=None)
    @given(st.lists(st.dates(min_value=date(1800, 1, 1), max_value=date(2200, 1, 1)), min_size=1, max_size=9))
    def test_a_date_that_is_read_is_the_date_that_was_written(self, days):
        reading = read_text(pd.Series([f"{day:%d/%m/%Y}" for day in days]))
        assert reading.doubt or reading.values.dt.date.tolist() == days

    def test_gaps_and_blanks_are_gaps_and_other_columns_are_left_alone(self):
        table = pd.DataFrame(
            {"price": ["$1.50", None, " "], "id": ["1,000,000", "2,000,000", "3,000,000"], "n": ["1", "2", "3"]},
            index=[7, 8, 9],
        )
        with pytest.warns(UserWarning, match=r"'price' \(amounts of money\); give a model numbers") as caught:
            read = read_columns(table, as_text=["id"])
        assert len(caught) == 1
        pd.testing.assert_frame_equal(read, table.assign(price=[1.5, np.nan, np.nan]))

    def test_a_file_is_read_without_touching_its_labels(self, tmp_path):
        path = write(tmp_path / "a.csv", 'joined,left\n31/12/2024,"1,000,000"\n1/1/2024,"2,000,000"\n')
        with pytest.warns(UserWarning, match=r"'joined' \(dates, day/month/year\)"):
            table = load_csv(path, target="left")
        assert table["joined"].tolist() == [pd.Timestamp("2024-12-31"), pd.Timestamp("2024-01-01")]
        assert table["left"].tolist() == ["1,000,000", "2,000,000"]

    def test_what_is_read_is_logged(self, tmp_path, caplog):
        caplog.set_level("INFO", logger="churn_mlops.data.reading")
        with pytest.warns(UserWarning, match="read as"):
            load_csv(write(tmp_path / "a.csv", "price,n\n$1.50,1\n"))
        assert "'price' (amounts of money)" in caplog.text


class TestLoadTable:
    """`load_table`."""

    @pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.TXT", "a.csv.gz"])
    def test_text_files(self, tmp_path, name):
        pd.DataFrame({"a": [1], "b": ["x"]}).to_csv(tmp_path / name, index=False, sep="\t")
        assert load_table(tmp_path / name).to_dict("list") == {"a": [1], "b": ["x"]}

    @pytest.mark.parametrize("name", ["a.parquet", "a.pq", "a.csv", "no_extension"])
    def test_parquet_is_known_by_its_content(self, tmp_path, name):
        customers = generate_sample_data(50)
        customers.to_parquet(tmp_path / name)
        pd.testing.assert_frame_equal(load_table(tmp_path / name), customers)

    def test_named_index_of_parquet_becomes_a_column(self, tmp_path):
        customers = generate_sample_data(50)
        customers.set_index("customer_id").to_parquet(tmp_path / "a.parquet")
        pd.testing.assert_frame_equal(load_table(tmp_path / "a.parquet"), customers)

    def test_filtered_parquet_has_rows_numbered_from_0(self, tmp_path):
        generate_sample_data(50).iloc[10:].to_parquet(tmp_path / "a.parquet")
        assert load_table(tmp_path / "a.parquet").index.tolist() == list(range(40))

    def test_parquet_without_pyarrow_names_the_extra(self, tmp_path, monkeypatch):
        generate_sample_data(5).to_parquet(tmp_path / "a.parquet")
        find_spec = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyarrow" else find_spec(name))
        with pytest.raises(ImportError, match=r'pip install "churn_mlops\[parquet\]"'):
            load_table(tmp_path / "a.parquet")

    @pytest.mark.parametrize(
        ("content", "message"), [(b"a,b\n1,2\n", "not a Parquet file"), (b"PAR1 broken", "cannot be read as Parquet")]
    )
    def test_damaged_parquet(self, tmp_path, content, message):
        with pytest.raises(ValueError, match=message):
            load_table(write(tmp_path / "a.parquet", content))

    @pytest.mark.parametrize(
        "values", [[[1, 2]] * 3, [{"k": 1}] * 3, pa.array([[("k", 1)]] * 3, pa.map_(pa.string(), pa.int64()))]
    )
    def test_parquet_with_more_than_one_value_in_a_cell_names_the_column(self, values, tmp_path):
        pq.write_table(pa.table({"a": [1, 2, 3], "odd": values}), tmp_path / "a.parquet")
        with pytest.raises(ValueError, match=r"column 'odd' holds (list|struct|map)<.*one value a column"):
            load_table(tmp_path / "a.parquet")

    @given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4))
    @settings(max_examples=100, deadline=None)
    def test_damaged_parquet_is_read_or_refused_by_name(self, tmp_path_factory, damage):
        folder = tmp_path_factory.mktemp("parquet")
        generate_sample_data(20).to_parquet(folder / "whole")
        content = bytearray((folder / "whole").read_bytes())
        for place, change in damage:
            content[4 + int(place * (len(content) - 8))] ^= change
        (folder / "a.parquet").write_bytes(content)
        with contextlib.suppress(ValueError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load_table(folder / "a.parquet")

    def test_parquet_with_broken_metadata_of_pandas_is_refused_by_name(self, tmp_path):
        table = pa.table({"a": [1, 2]}).replace_schema_metadata({"pandas": "{broken"})
        pq.write_table(table, tmp_path / "a.parquet")
        with pytest.raises(ValueError, match=r"a\.parquet cannot be read as Parquet"):
            load_table(tmp_path / "a.parquet")

    def test_parquet_without_rows(self, tmp_path):
        generate_sample_data(5).head(0).to_parquet(tmp_path / "a.parquet")
        with pytest.raises(ValueError, match="no rows"):
            load_table(tmp_path / "a.parquet")

    def test_unknown_kind_of_file_lists_the_known_ones(self, tmp_path):
        with pytest.raises(ValueError, match=r"\.csv.*\.parquet.*\.xlsx"):
            load_table(write(tmp_path / "a.numbers", b"PK"))

    def test_a_workbook_gives_the_customers_of_the_csv_file(self, tmp_path):
        customers = generate_sample_data(100)
        customers.loc[3, ["total_charges", "tech_support"]] = None
        customers["signed_up"] = pd.date_range("2024-01-31", periods=100)
        customers.to_excel(tmp_path / "a.XLSX", index=False, engine="xlsxwriter")
        pd.testing.assert_frame_equal(load_table(tmp_path / "a.XLSX"), customers, check_dtype=False)
        assert load_table(tmp_path / "a.XLSX").dtypes.map(lambda dtype: dtype.kind).tolist() == [
            dtype.kind for dtype in customers.dtypes
        ]

    def test_text_of_a_workbook_stays_text_where_it_has_leading_zeros(self, tmp_path):
        path = tmp_path / "a.xlsx"
        pd.DataFrame({"zip": ["00123", "10000", "NA"], " n ": [1, 2, 3]}).to_excel(path, index=False)
        table = load_table(path)
        assert table["zip"].tolist()[:2] == ["00123", "10000"]
        assert table["zip"].isna().tolist() == [False, False, True]
        assert table["n"].tolist() == [1, 2, 3]

    def test_of_several_sheets_the_first_is_read_and_named(self, tmp_path):
        with pd.ExcelWriter(tmp_path / "a.xlsx") as book:
            for number, sheet in enumerate(["customers", "notes"]):
                pd.DataFrame({"n": [number]}).to_excel(book, sheet_name=sheet, index=False)
        with pytest.warns(UserWarning, match="the first of 2 sheets was read, 'customers'"):
            assert load_table(tmp_path / "a.xlsx")["n"].tolist() == [0]

    def test_blank_rows_and_columns_of_a_workbook_are_passed_over(self, tmp_path):
        pd.DataFrame({"n": [1, None, 2]}).to_excel(tmp_path / "a.xlsx", index=False, startrow=2, startcol=1)
        assert load_table(tmp_path / "a.xlsx")["n"].tolist() == [1, 2]

    @pytest.mark.parametrize("content", [b"PK", b"not a workbook"])
    def test_damaged_workbook(self, tmp_path, content):
        with pytest.raises(ValueError, match=r"a\.xlsx cannot be read as an Excel workbook"):
            load_table(write(tmp_path / "a.xlsx", content))

    def test_workbook_without_rows(self, tmp_path):
        pd.DataFrame({"n": []}).to_excel(tmp_path / "a.xlsx", index=False)
        with pytest.raises(ValueError, match="no rows"):
            load_table(tmp_path / "a.xlsx")

    def test_a_workbook_without_calamine_names_the_extra(self, tmp_path, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(ImportError, match=r'pip install "churn_mlops\[excel\]"'):
            load_table(write(tmp_path / "a.xlsx", b"PK"))

    @pytest.mark.parametrize("name", ["gone.csv", "gone.parquet", "gone.xlsx"])
    def test_missing_file(self, tmp_path, name):
        with pytest.raises(FileNotFoundError):
            load_table(tmp_path / name)

    def test_folder(self, tmp_path):
        with pytest.raises(ValueError, match="is a folder"):
            load_table(tmp_path)

    def test_a_gzip_file_that_unpacks_to_more_than_the_limit_is_refused(self, tmp_path):
        path = write(tmp_path / "a.csv.gz", gzip.compress(b"a,b\n" + b"1,x\n" * 400_000))
        assert path.stat().st_size < 10_000
        with pytest.raises(ValueError, match=r"unpacks to more than 1 MB.*\[data\] max_unpacked_mb"):
            load_csv(path, max_unpacked_mb=1)
        assert len(load_table(path, max_unpacked_mb=2)) == 400_000

    def test_repeated_target(self, tmp_path):
        with pytest.raises(ValueError, match="2 columns named 'churn'"):
            load_table(write(tmp_path / "a.csv", "a,churn,churn\n1,0,1\n"), target="churn")


class TestTelco:
    """The public Telco table, as its owner publishes it."""

    def test_blank_total_charges_are_missing_numbers(self, telco):
        totals = load_table(telco)["TotalCharges"]
        assert totals.dtype == float
        assert totals.isna().sum() == 11

    def test_shape(self, telco):
        assert load_table(telco).shape == (7043, 21)

    def test_target(self, telco):
        assert encode_target(load_table(telco)["Churn"]).mean() == pytest.approx(0.265, abs=0.0005)


class TestValidateData:
    """`validate_data`."""

    @pytest.mark.parametrize("required", [None, [], ["tenure"], "tenure", pd.Index(["tenure", "churn"])])
    def test_good_table(self, required):
        assert validate_data(generate_sample_data(5), required) is True

    @pytest.mark.parametrize("table", [pd.DataFrame(), pd.DataFrame({"a": []}), pd.DataFrame(index=[0, 1])])
    def test_empty_table(self, table):
        with pytest.raises(ValueError, match="empty"):
            validate_data(table)

    def test_missing_columns_are_listed_in_the_order_asked_for(self):
        with pytest.raises(ValueError, match=r"^Missing required columns: b, a\b"):
            validate_data(pd.DataFrame({"c": [1]}), ["b", "c", "a"])

    @pytest.mark.parametrize("table", [None, {"a": [1]}, [[1]], pd.Series([1])])
    def test_other_types(self, table):
        with pytest.raises(TypeError, match="DataFrame"):
            validate_data(table)


PAIRS = [(0, 1), (0.0, 1.0), (False, True), ("No", "Yes"), ("n", "Y"), ("0", "1"), ("Retained", "Churned"), (-1, 1)]


class TestEncodeTarget:
    """`encode_target`."""

    @pytest.mark.parametrize(("stayed", "left"), PAIRS)
    @pytest.mark.parametrize("dtype", [None, "object", "category"])
    def test_known_pairs(self, stayed, left, dtype):
        y = pd.Series([left, stayed, stayed, left], index=list("abcd"), name="churn", dtype=dtype)
        expected = pd.Series([1, 0, 0, 1], index=list("abcd"), name="churn", dtype="int64")
        pd.testing.assert_series_equal(encode_target(y), expected)

    @given(st.sampled_from(PAIRS), st.lists(st.booleans(), min_size=2).filter(lambda flags: len(set(flags)) == 2))
    def test_either_label_can_be_positive(self, pair, flags):
        y = pd.Series([pair[flag] for flag in flags])
        assert encode_target(y, positive=pair[1]).tolist() == [int(flag) for flag in flags]
        assert encode_target(y, positive=pair[0]).tolist() == [int(not flag) for flag in flags]

    @given(
        st.tuples(st.text(min_size=1), st.text(min_size=1)).filter(
            lambda p: len({x.strip().casefold() for x in p}) == 2
        ),
        st.lists(st.booleans(), min_size=2).filter(lambda flags: len(set(flags)) == 2),
    )
    def test_any_two_words_with_positive(self, words, flags):
        y = pd.Series([words[flag] for flag in flags], dtype=object)
        if any(not word.strip() for word in words):
            with pytest.raises(ValueError, match="no label"):
                encode_target(y, positive=words[1])
        elif {word.strip() for word in words} not in ({"0", "0.0"}, {"1", "1.0"}):
            assert encode_target(y, positive=words[1]).tolist() == [int(flag) for flag in flags]

    @pytest.mark.parametrize("positive", ["1", 1, 1.0, np.int64(1), " 1 "])
    def test_positive_from_a_command_line_is_text(self, positive):
        assert encode_target(pd.Series([2, 1, 2]), positive=positive).tolist() == [0, 1, 0]

    def test_unknown_pair_asks_for_positive(self):
        with pytest.raises(ValueError, match=r"'plan'.*basic and premium.*--positive"):
            encode_target(pd.Series(["premium", "basic"], name="plan"))

    def test_positive_that_is_no_label(self):
        with pytest.raises(ValueError, match=r"no label 'Ja'.*No and Yes.*--positive"):
            encode_target(pd.Series(["Yes", "No"], name="churn"), positive="Ja")

    @pytest.mark.parametrize("missing", [None, np.nan, " ", pd.NA])
    def test_missing_labels_are_counted(self, missing):
        with pytest.raises(ValueError, match=r"'churn' has no label in 2 of 5 rows.*No, Yes.*--target"):
            encode_target(pd.Series(["Yes", "No", missing, "Yes", missing], name="churn"))

    def test_one_class(self):
        with pytest.raises(ValueError, match=r"'churn' has only one class: Yes.*--target"):
            encode_target(pd.Series(["Yes", "yes"], name="churn"))

    def test_many_labels_are_listed_up_to_five(self):
        with pytest.raises(ValueError, match=r"'n' has 1,000 labels: (\d+, ){4}\d+ and 995 more;.*--target"):
            encode_target(pd.Series(range(1000), name="n"))

    def test_three_labels_ask_which_one_is_churn(self):
        with pytest.raises(ValueError, match=r"3 labels: a, b, c;.*--positive"):
            encode_target(pd.Series(["a", "b", "c"]))

    def test_positive_makes_one_label_against_the_rest(self):
        assert encode_target(pd.Series(["a", "b", "C", "c "]), positive="c").tolist() == [0, 0, 1, 1]

    def test_positive_that_is_none_of_many_labels_lists_five(self):
        with pytest.raises(ValueError, match=r"no label 'x': it has 0, 1, 10, 11, 12 and 15 more;"):
            encode_target(pd.Series(range(20)), positive="x")

    def test_the_first_row_without_a_label_is_named_with_the_remedy(self):
        with pytest.raises(ValueError, match=r"in 1 of 3 rows \(first: row 2;.*--drop-unlabelled"):
            encode_target(pd.Series(["Yes", "No", None], name="churn"))

    def test_no_rows(self):
        with pytest.raises(ValueError, match="empty"):
            encode_target(pd.Series([], dtype=float))

    def test_repeated_target_column(self):
        table = pd.DataFrame([[0, 1], [1, 1]], columns=["churn", "churn"])
        with pytest.raises(ValueError, match="'churn' is there 2 times"):
            encode_target(table["churn"])

    def test_other_types(self):
        with pytest.raises(TypeError, match="Series"):
            encode_target([0, 1])

    def test_input_is_not_changed(self):
        y = pd.Series(["Yes", "No"])
        encode_target(y)
        assert y.tolist() == ["Yes", "No"]


class TestSplitData:
    """`split_data`."""

    @pytest.fixture
    def customers(self) -> pd.DataFrame:
        """Make customers sorted by target, with an index of its own."""
        customers = generate_sample_data(500).sort_values("churn")
        return customers.set_index("customer_id")

    def test_stratified_shuffled_and_disjoint(self, customers):
        split = split_data(customers.drop(columns="churn"), customers["churn"])
        assert isinstance(split, Split)
        assert len(split.X_test) == 100
        assert abs(split.y_test.mean() - customers["churn"].mean()) < 0.01
        assert not split.y_train.is_monotonic_increasing
        assert set(split.X_train.index) | set(split.X_test.index) == set(customers.index)
        assert not set(split.X_train.index) & set(split.X_test.index)

    def test_rows_keep_their_target(self, customers):
        split = split_data(customers, customers["churn"])
        assert split.X_train["churn"].equals(split.y_train)
        assert split.X_test["churn"].equals(split.y_test)

    def test_seed_decides(self, customers):
        y = customers["churn"]
        assert split_data(customers, y).X_test.equals(split_data(customers, y, seed=42).X_test)
        assert not split_data(customers, y).X_test.equals(split_data(customers, y, seed=1).X_test)

    @pytest.mark.parametrize("labels", [[1, 0, 0, 0, 0], [1, 1, *[0] * 98], [0] * 10, [0, 1], []])
    def test_too_few_customers_of_a_class(self, labels):
        y = pd.Series(labels, dtype="int64")
        with pytest.raises(ValueError, match="too few customers"):
            split_data(pd.DataFrame({"a": range(len(y))}), y, test_size=0.1)

    @pytest.mark.parametrize("test_size", [0, 1, -0.2, 20, float("nan")])
    def test_bad_share(self, customers, test_size):
        with pytest.raises(ValueError, match="test_size"):
            split_data(customers, customers["churn"], test_size=test_size)

    def test_tables_that_do_not_belong_together(self, customers):
        with pytest.raises(ValueError, match="same index"):
            split_data(customers, customers["churn"].sample(frac=1, random_state=0))

    def test_a_split_cannot_be_changed(self, customers):
        split = split_data(customers, customers["churn"])
        with pytest.raises(AttributeError):
            split.y_test = split.y_train


class TestDropUnlabelled:
    """`drop_unlabelled`."""

    @pytest.mark.parametrize("missing", [None, np.nan, " ", pd.NA])
    def test_rows_without_a_label_go_and_are_counted(self, missing):
        table = pd.DataFrame({"churn": ["Yes", missing, "No", missing], "n": range(4)})
        with pytest.warns(UserWarning, match=r"2 of 4 rows have no label in 'churn' and were dropped \(first: row 1\)"):
            assert drop_unlabelled(table, "churn")["n"].tolist() == [0, 2]

    def test_a_table_with_all_labels_is_silent(self):
        table = pd.DataFrame({"churn": [1, 0]})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert drop_unlabelled(table, "churn").equals(table)
