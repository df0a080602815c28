"""JupyterLab as `make lab` starts it: notebooks are saved the way nbdev commits them."""

from nbdev.clean import clean_jupyter

c = get_config()  # type: ignore[name-defined]  # noqa: F821
c.ServerApp.root_dir = "."  # nbdev's hook reads paths relative to the current folder
c.LabApp.default_url = "/lab/tree/nbs/index.ipynb"
c.ContentsManager.pre_save_hook = clean_jupyter
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.handlers.announcements.NeverCheckForUpdate"
