"""From a raw customer table to a numeric matrix."""
