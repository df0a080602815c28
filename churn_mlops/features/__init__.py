"""From a raw customer table to a numeric matrix."""

from .derived import create_derived_features, handle_missing_values
from .engineer import FeatureEngineer

__all__ = ["FeatureEngineer", "create_derived_features", "handle_missing_values"]
