"""JupyterLab as `make lab` starts it: a save leaves the notebook as it is committed, and writes its module."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

c = get_config()  # type: ignore[name-defined]  # noqa: F821
c.ServerApp.contents_manager_class = "lab_hooks.Notebooks"
c.LabApp.default_url = "/lab/tree/nbs/start_here.ipynb"
c.LabApp.extra_labextensions_path = ["tools/jupyter/labextensions"]  # shows why a module was not written
c.KernelSpecManager.allowed_kernelspecs = {"python3"}  # that of this environment, where the package is installed
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.handlers.announcements.NeverCheckForUpdate"
