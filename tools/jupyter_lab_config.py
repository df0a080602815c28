"""JupyterLab as `make lab` starts it: a save leaves the notebook as it is committed, and writes its module."""

import ast
import json
import re
import warnings
from pathlib import Path
from typing import Any

from nbdev.clean import clean_jupyter
from nbdev.config import get_config as nbdev_config
from nbdev.doclinks import nbdev_export

WIDGET = "application/vnd.jupyter.widget-view+json"


def clean_before_save(path: str, model: dict[str, Any], **kwargs: Any) -> None:
    """Leave in a notebook what nbdev commits, and of a widget what it shows where no kernel runs."""
    if model["type"] != "notebook":
        return
    content = model["content"]
    content["metadata"].pop("widgets", None)
    trusted = [cell for cell in content["cells"] if cell["metadata"].get("trusted")]
    for cell in content["cells"]:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET, None)
    if Path(path).is_file():  # nbdev reads what was there before
        clean_jupyter(path=path, model=model)
    for cell in trusted:
        cell["metadata"]["trusted"] = True  # Jupyter takes it out again when it signs the notebook


def check_exports(notebook: Path) -> None:
    """Raise SyntaxError if a cell that is exported is no Python; nbdev would write a broken module."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and re.search(r"^#\s*\|\s*export", source, re.MULTILINE):
            compile(source, f"cell {cell['id']}", "exec", ast.PyCF_ONLY_AST)


def export_after_save(os_path: str, model: dict[str, Any], contents_manager: Any) -> None:
    """Write the module of a saved notebook; if that cannot be done, say why in the log."""
    notebook = Path(os_path).resolve()
    if model["type"] != "notebook" or nbdev_config().nbs_path not in notebook.parents:
        return
    try:
        check_exports(notebook)
        nbdev_export.__wrapped__(str(notebook))
    except Exception as error:
        contents_manager.log.error(
            f"{notebook.name} is saved, but its module is as it was before: {type(error).__name__}: {error}"
        )


warnings.filterwarnings("ignore", "Overriding existing (pre|post)_save_hook", UserWarning)  # Jupyter sets each twice
c = get_config()  # type: ignore[name-defined]  # noqa: F821
c.ServerApp.root_dir = "."  # nbdev's hook reads paths relative to the current folder
c.LabApp.default_url = "/lab/tree/nbs/start_here.ipynb"
c.ContentsManager.pre_save_hook = clean_before_save
c.ContentsManager.post_save_hook = export_after_save
c.KernelSpecManager.allowed_kernelspecs = {"python3"}  # that of this environment, where the package is installed
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.handlers.announcements.NeverCheckForUpdate"
