"""Customer tables: made-up samples, files, checks, guards, splits."""

from .guards import Finding as Finding
from .guards import check_table as check_table
from .loading import load_csv as load_csv
from .loading import load_table as load_table
from .sample import generate_sample_data as generate_sample_data
from .splitting import Split as Split
from .splitting import fold_indices as fold_indices
from .splitting import split_data as split_data
from .validation import encode_target as encode_target
from .validation import validate_data as validate_data

__all__ = [
    "Finding",
    "Split",
    "check_table",
    "encode_target",
    "fold_indices",
    "generate_sample_data",
    "load_csv",
    "load_table",
    "split_data",
    "validate_data",
]
