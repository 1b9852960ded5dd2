"""Settings of the manual: `./scripts/docs` builds it."""

import os
import sys
from datetime import date
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
sys.path.insert(0, str(HERE.parent))

import mm  # noqa: E402

project = "mm"
author = "the authors of mm"
version = release = mm.__version__
copyright = f"{date.today().year}, {author}"

extensions = ["myst_parser", "sphinx_copybutton", "sphinx_design", "generate"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "_ext", "results/*.json"]
html_theme = "furo"
html_title = "mm"
html_static_path: list[str] = []
html_extra_path = ["llms.txt"]
html_theme_options = {"source_directory": "docs/"}
html_show_sourcelink = False

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
copybutton_prompt_text = "$ "
add_module_names = False
python_maximum_signature_line_length = 100
toc_object_entries = False
suppress_warnings = ["ref.python"]  # two classes of one name in annotations, which nobody has written as links
nitpicky = os.environ.get("MM_DOCS_NITPICKY") == "1"
