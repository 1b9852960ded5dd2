"""Import path for the user's own modules in the working directory, which hide no installed module."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # site-packages, or the checkout of an editable installation


def add_working_directory() -> None:
    """Add the working directory to the import path, after everything that is installed.

    A `conf.py`, a `datamodules/` or an `mm.py` in it therefore hides nothing that `mm` imports. In an editable
    installation the checkout is on the path as well. Then the working directory comes before it, because `mm` imports
    only itself from there, which has already happened.
    """
    here = str(Path.cwd())
    if here in sys.path:
        return
    editable = (ROOT / "pyproject.toml").is_file() and str(ROOT) in sys.path
    sys.path.insert(sys.path.index(str(ROOT)) if editable else len(sys.path), here)
