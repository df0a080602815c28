"""Jobs over many customers."""
