"""The documentation site. `make docs` builds it into build/docs and takes every warning for an error.

rosdoc2, which builds docs.ros.org, builds the same pages (rosdoc2.yaml): Sphinx with MyST is what it takes. It does so
in a copy of this folder, with the packages that it brings: without sphinxcontrib-mermaid diagrams stay text, without
torch the parameters are shown as config/superpoint.yaml has them.

The pages are written for GitHub, too: links go to files of the repository, and what is generated takes the place of
marks that GitHub does not show (generated.py).
"""

import sys
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
# rosdoc2 has put the package's folder on the path.
ROOT = next(folder for folder in map(Path, [HERE.parent, *sys.path]) if (folder / "package.xml").is_file())
sys.path[:0] = [str(HERE), str(ROOT)]

import generated  # noqa: E402
import repository_links  # noqa: E402

project = "superpoint_ros"
release = version = ElementTree.parse(ROOT / "package.xml").findtext("version", "")
copyright = "the superpoint_ros contributors, Apache-2.0"

extensions = ["myst_parser"]
if find_spec("sphinxcontrib.mermaid"):
    extensions.append("sphinxcontrib.mermaid")
    myst_fence_as_directive = ["mermaid"]
mermaid_version = "11.12.1"  # fetched by the reader's browser
mermaid_height = "auto"
mermaid_fullscreen = False
myst_heading_anchors = 4
myst_url_schemes = ["http", "https", "mailto", repository_links.SCHEME]

html_theme = "sphinx_rtd_theme"  # rosdoc2's, whatever is said here
html_theme_options = {"navigation_depth": 2}
html_title = f"superpoint_ros {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = html_copy_source = False

# What rosdoc2 lays beside these pages; they say the same.
exclude_patterns = ["[A-Z]*", "__*", "msg"]
rosdoc2_settings = {"allow_other_extensions": True, "enable_autodoc": False}


def setup(app):
    """Called by Sphinx."""
    generated.setup(app, ROOT)
    repository_links.setup(app, ROOT)
