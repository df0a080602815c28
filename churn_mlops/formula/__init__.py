"""A fitted model as plain numbers: one artefact for predictions, reasons, files and exports."""

from .encoding import Column as Column
from .encoding import Derived as Derived
from .file import ModelFileError as ModelFileError
from .file import UnsafeModelError as UnsafeModelError
from .file import load as load
from .formula import Formula as Formula
from .formula import ModelRecord as ModelRecord

__all__ = ["Column", "Derived", "Formula", "ModelFileError", "ModelRecord", "UnsafeModelError", "load"]
