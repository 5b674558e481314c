"""The documentation site: `make docs`, without a network, warnings as errors.

Pages are read on GitHub as well: their links are those of the tree, and `sphinx/links.py` sees to the site's.
"""

import os
import sys
from pathlib import Path

import jxai

sys.path.insert(0, str(Path(__file__).parent / "sphinx"))

project = "jxai"
author = "The jxai developers"
project_copyright = author
version = release = jxai.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "myst_nb",
    "docstrings",
    "links",
]
exclude_patterns = ["sphinx"]

# What a name of another library links to. The inventories are on the internet, and a build that needs them fails
# wherever a server does not answer; so a build is alone with the tree unless it is told that there is a network.
intersphinx_mapping = (
    {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "jax": ("https://docs.jax.dev/en/latest", None),
        "flax": ("https://flax.readthedocs.io/en/latest", None),
        "optax": ("https://optax.readthedocs.io/en/latest", None),
    }
    if os.environ.get("JXAI_DOCS_ONLINE")
    else {}
)

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "alphabetical"
autodoc_preserve_defaults = True
autosummary_generate = False  # the pages below api/ hold everything
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
maximum_signature_line_length = 88
add_module_names = False
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3  # GitHub's

# Tutorials are executed anew in every build: an old output of a new program would be a lie.
nb_execution_mode = "force"
nb_execution_timeout = 240
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_output_stderr = "remove"  # progress bars
nb_merge_streams = True

pygments_dark_style = "github-dark"
html_theme = "furo"
html_title = f"jxai {release}"
html_static_path = ["sphinx/static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
