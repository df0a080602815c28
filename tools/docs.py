"""Build the documentation site into _docs/ with nbdev and smalldocs, for machines without Quarto."""

import hashlib
import os
import re
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

from check_site import broken_links, findings
from finish_site import finish_site
from nbdev.config import get_config
from nbdev.doclinks import _build_modidx
from nbdev.quarto import nbdev_sidebar, refresh_quarto_yml
from nbdev.serve import proc_nbs
from notebooks import executed
from smalldocs.site import build

__all__ = ["broken_links", "inputs", "main"]
ROOT = Path(__file__).resolve().parent.parent
READ = (
    "nbs",
    "churn_mlops",
    "tools",
    "benchmarks/results",
    "_quarto.yml",
    "pyproject.toml",
    "settings.ini",
    "CHANGELOG.md",
)
MADE = {"__pycache__", "_modidx.py", ".ipynb_checkpoints", ".last_checked", "nbdev.yml", "sidebar.yml"}


def inputs() -> str:
    """Digest everything that the site is made from: when it is the same, so is the site."""
    digest = hashlib.sha256(f"{sys.version} {version('smalldocs')} {version('nbdev')}".encode())
    for name in READ:
        top = ROOT / name
        for file in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if file.is_file() and MADE.isdisjoint(file.parts):
                digest.update(f"{file.relative_to(ROOT)}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def without_address(cache: Path) -> None:
    """Leave out what needs the address of the site: the sitemap and the cards that other sites show."""
    nbdev, quarto = cache / "nbdev.yml", cache / "_quarto.yml"
    nbdev.write_text(re.sub(r"^  site-url:.*\n", "", nbdev.read_text(encoding="utf-8"), flags=re.M), encoding="utf-8")
    cards = r"^  (?:image|open-graph|twitter-card):.*\n"
    quarto.write_text(re.sub(cards, "", quarto.read_text(encoding="utf-8"), flags=re.M), encoding="utf-8")


def main() -> None:
    """Build the site when something changed; leave the previous one in place when a check finds something.

    Notebooks that changed are executed first. `--committed` shows the outputs as they are in the notebooks.
    """
    os.chdir(ROOT)
    committed = "--committed" in sys.argv
    site, now = get_config().doc_path, inputs() + " committed" * committed
    stamp = site / "site_libs" / "made-from.txt"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == now and "--force" not in sys.argv:
        print(f"{site.relative_to(ROOT)}/ is up to date (--force builds it anew)")
        return
    refresh_quarto_yml()
    _build_modidx()
    nbdev_sidebar.__wrapped__()
    cache = proc_nbs(get_config().nbs_path if committed else executed(), force=True, n_workers=0)
    if not get_config().doc_host:
        without_address(cache)
    made = build(cache, quiet=True)
    finish_site(made.out, get_config().nbs_path)
    wrong = [note for note in made.warnings if "broken link" in note] + findings(made.out, get_config().lib_path)
    if wrong:
        sys.exit("\n".join(wrong))
    (made.out / "site_libs" / "made-from.txt").write_text(now, encoding="utf-8")
    shutil.rmtree(site, ignore_errors=True)
    shutil.move(made.out, site)
    print(f"{len(made.pages)} pages in {site.relative_to(ROOT)}/")


if __name__ == "__main__":
    main()
