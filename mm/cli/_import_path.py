"""The user's own modules: found in the working directory, without hiding any installed module."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # site-packages, or the checkout of an editable installation


def add_working_directory() -> None:
    """Let modules of the working directory be imported, after everything that is installed.

    A `conf.py`, a `datamodules/` or an `mm.py` there hides nothing that `mm` itself imports. In an editable
    installation the checkout is on the path as well; the working directory comes before it, as `mm` imports nothing
    from there but itself, which is imported by now.
    """
    here = str(Path.cwd())
    if here in sys.path:
        return
    editable = (ROOT / "pyproject.toml").is_file() and str(ROOT) in sys.path
    sys.path.insert(sys.path.index(str(ROOT)) if editable else len(sys.path), here)
