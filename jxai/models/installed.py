"""Files of installed packages that carry weights: a package is found, and nothing of it is run."""

import importlib.util
from pathlib import Path
from typing import Any


def installed_file(package: str, file: str, how: str, *, what: str = "weights") -> Path:
    """Where an installed package has a file, or a folder.

    Args:
        package: as it would be imported.
        file: within the package.
        how: it is installed.
        what: is looked for, as the error calls it.

    Returns:
        Its path.

    Raises:
        FileNotFoundError: the package is not installed, or has no such file.
    """
    spec = importlib.util.find_spec(package)
    folders: Any = (spec.submodule_search_locations or ()) if spec else ()
    for folder in folders:
        if (path := Path(folder) / file).exists():
            return path
    raise FileNotFoundError(
        f"expected {what}, got no installed package {package} with {file}: {how}, or give `path`"
    )
