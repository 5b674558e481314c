"""The models of the golden archives `lxt_*`, through the name tables by which files of Hugging Face are read."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax.typing import DTypeLike

from jxai.models.huggingface import FAMILIES
from jxai.models.transformers.filling import fill_transformer
from jxai.models.transformers.names import torchvision_vit_names, torchvision_vit_tensors
from jxai.models.transformers.vision import VisionTransformer

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3", "bert", "gpt2", "vit")


class Archive(NamedTuple):
    """What an archive holds.

    Attributes:
        arch: one of `ARCHITECTURES`.
        module: the model.
        variables: its weights.
        arrays: everything else, by the archive's keys, as stored.
    """

    arch: str
    module: nn.Module
    variables: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def x(self) -> np.ndarray:
        """What is explained as the model takes it: embeddings (1, T, C), or an image (1, H, W, 3)."""
        x = self.arrays["x"]
        return x.transpose(1, 2, 0)[None] if self.arch == "vit" else x[None]

    def scores(self, variables: Any, x: jax.Array) -> jax.Array:
        """`y`, (1, V), as a function of what is explained."""
        apply = self.module.apply
        if self.arch == "vit":
            return apply(variables, x, train=False)  # pyright: ignore[reportReturnType]
        if self.arch == "bert":
            mask, types = np.asarray(self.arrays["mask"], bool), self.arrays["types"]
            hidden = apply(variables, x, mask, types, method="encode")
            return apply(variables, hidden, method="classify")  # pyright: ignore[reportReturnType]
        hidden: Any = apply(variables, x, method="encode")
        return apply(variables, hidden[:, -1], method="unembed")  # pyright: ignore[reportReturnType]


def names(folder: Path) -> list[str]:
    """The archives in a folder."""
    return sorted(path.stem for path in folder.glob("lxt_*.npz"))


def load(path: Path, *, dtype: DTypeLike = np.float64, scan: bool = True, remat: bool = False) -> Archive:
    """The model of an archive.

    Args:
        path: of the archive, "lxt_ARCH.npz" or "lxt_ARCH_….npz".
        dtype: of the variables.
        scan: whether its layers are one loop.
        remat: whether they are computed again on the way back.

    Returns:
        The archive.
    """
    with np.load(path) as file:
        arrays = dict(file)
    arch = next(arch for arch in ARCHITECTURES if path.stem.removeprefix("lxt_").split("_")[0] == arch)
    config = json.loads(str(arrays.pop("config")))
    tensors = {name[2:]: arrays.pop(name).astype(dtype) for name in list(arrays) if name.startswith("w:")}
    options = {"scan": scan, "remat": remat}
    if arch == "vit":
        module, variables, report = _vision(config, tensors, **options)
    else:
        module, variables, report = FAMILIES[arch].load(config | {"model_type": arch}, tensors, **options)
    assert not report.missing and not report.left_over, report
    return Archive(arch, module, variables, arrays)


def _vision(config: dict[str, Any], tensors: dict[str, np.ndarray], **options: Any) -> tuple[Any, Any, Any]:
    side = config["image_size"]
    module = VisionTransformer(
        config["num_classes"],
        config["patch_size"],
        config["hidden_dim"],
        config["num_layers"],
        config["num_heads"],
        config["mlp_dim"],
        **options,
    )
    example = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
    names, tensors = torchvision_vit_names(module.depth), torchvision_vit_tensors(tensors)
    return module, *fill_transformer(module, tensors, modules=names, example=example, number=module.depth)
