"""Packages that `pip install jxai` leaves out, and the extra that brings each: `pip install 'jxai[viz]'`.

They are imported where they are used, within `named`, so that everything else works without them.
"""

import contextlib
import importlib.util
from collections.abc import Iterator

EXTRAS = {
    "PIL": "viz",
    "array_record": "fewshot",
    "cloudpickle": "fewshot",
    "gguf": "text",
    "grain": "fewshot",
    "matplotlib": "viz",
    "onnx": "text",
    "orbax": "fewshot",
    "tensorboardX": "tensorboard",
    "tensorflow_datasets": "fewshot",
    "tokenizers": "text",
    "tqdm": "cli",
    "tyro": "cli",
}
"""Package as it is imported -> the smallest extra of `pyproject.toml` that has it."""


@contextlib.contextmanager
def named() -> Iterator[None]:
    """Within it, an import that finds one of `EXTRAS` missing is an error that names the extra.

    Raises:
        ModuleNotFoundError: "expected matplotlib, got no such package: pip install 'jxai[viz]'".
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        # A module that is missing in a package that is there is no matter of extras.
        if package not in EXTRAS or importlib.util.find_spec(package) is not None:
            raise
        raise ModuleNotFoundError(
            f"expected {package}, got no such package: pip install 'jxai[{EXTRAS[package]}]'", name=package
        ) from error
