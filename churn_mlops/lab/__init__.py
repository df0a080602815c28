"""Notebooks that become a package: JupyterLab that exports on save, and outputs that are true."""
