"""Customer tables: made-up samples, files, checks."""
