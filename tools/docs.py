"""Build the documentation site into _docs/ with nbdev and smalldocs, for machines without Quarto."""

import os
import re
import shutil
import sys
from pathlib import Path

from chapters import ROOT
from check_site import findings
from finish_site import finish_site
from nbdev.config import get_config
from nbdev.doclinks import _build_modidx
from nbdev.quarto import nbdev_sidebar, refresh_quarto_yml
from nbdev.serve import proc_nbs
from rich.console import Console
from smalldocs.site import build

from churn_mlops.lab.outputs import project_notebooks


def without_address(cache: Path) -> None:
    """Leave out what needs the address of the site: the sitemap and the cards that other sites show."""
    nbdev, quarto = cache / "nbdev.yml", cache / "_quarto.yml"
    nbdev.write_text(re.sub(r"^  site-url:.*\n", "", nbdev.read_text(encoding="utf-8"), flags=re.M), encoding="utf-8")
    cards = r"^  (?:image|open-graph|twitter-card):.*\n"
    quarto.write_text(re.sub(cards, "", quarto.read_text(encoding="utf-8"), flags=re.M), encoding="utf-8")


def main() -> None:
    """Build the site from the outputs in the notebooks; keep the previous one when a check finds something."""
    os.chdir(ROOT)
    config = get_config()
    n_notebooks = len(project_notebooks())
    with Console(stderr=True).status(f"1 of 4: reading {n_notebooks} notebooks") as status:  # silent in a pipe
        refresh_quarto_yml()
        _build_modidx()
        nbdev_sidebar.__wrapped__()
        cache = proc_nbs(config.nbs_path, force=True, n_workers=0)
        if not config.doc_host:
            without_address(cache)
        status.update("2 of 4: writing the reference from the source, and rendering every page")
        made = build(cache, quiet=True)
        status.update(f"3 of 4: finishing {len(made.pages)} pages and the search index")
        finish_site(made.out, config.nbs_path)
        status.update(f"4 of 4: following every link of {len(made.pages)} pages")
        wrong = [note for note in made.warnings if "broken link" in note] + findings(made.out, config.lib_path)
    if wrong:
        sys.exit("\n".join(wrong))
    shutil.rmtree(config.doc_path, ignore_errors=True)
    shutil.move(made.out, config.doc_path)
    print(f"{len(made.pages)} pages in {config.doc_path.relative_to(ROOT)}/")


if __name__ == "__main__":
    main()
