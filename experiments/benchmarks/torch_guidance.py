"""PyTorch's side of the benchmark of guidance: second gradients by `torch.autograd`, and by zennit. Needs torch."""

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

from experiments.benchmarks import torch_models


def calls(
    variables: Mapping[str, Any], x: np.ndarray, labels: np.ndarray, *, corner: int
) -> dict[str, Callable[[], tuple[torch.Tensor, Any]]]:
    """The losses of `experiments.benchmarks.guidance` by kind; that of zennit's relevance where zennit is installed.

    Args:
        variables: of our ResNet18.
        x: images, (N, H, W, 3).
        labels: classes, (N,).
        corner: side of the corner that the losses keep free, in pixels.

    Returns:
        Functions without arguments to a loss and its gradients by the parameters.
    """
    model: Any = torch_models.resnet18(variables)
    parameters = [one.requires_grad_() for one in model.parameters()]
    pictures = torch_models.to_torch(x)
    classes = torch.tensor(np.asarray(labels), dtype=torch.int64)
    inside = torch.ones(pictures.shape[2:], dtype=torch.bool)
    inside[:corner, :corner] = False

    def with_gradients(loss: Any) -> tuple[Any, Any]:
        return loss.detach(), torch.autograd.grad(loss, parameters)

    def plain() -> tuple[Any, Any]:
        return with_gradients(torch.nn.functional.cross_entropy(model(pictures), classes))

    def right_reasons() -> tuple[Any, Any]:
        given = pictures.clone().requires_grad_()
        scores = model(given)
        (gradient,) = torch.autograd.grad(scores.log_softmax(1).sum(), given, create_graph=True)
        outside = ((gradient * ~inside) ** 2).sum((1, 2, 3)).mean()
        return with_gradients(torch.nn.functional.cross_entropy(scores, classes) + outside)

    def background_loss(relevance: Any, scores: Any) -> Any:
        magnitude = relevance.abs()
        whole, area = magnitude.mean((1, 2, 3)), inside.sum() * 3
        mean = (magnitude * inside).sum((1, 2, 3)) / area + 1e-3 * whole
        pooled = (magnitude / mean[:, None, None, None] * ~inside).mean((1, 2, 3))
        return torch.nn.functional.cross_entropy(scores, classes) + torch.log1p(pooled).mean()

    found = {"plain": plain, "right reasons": right_reasons}
    if importlib.util.find_spec("zennit") is not None:
        found["background"] = lambda: zennit_loss_and_gradients(model, pictures, classes, background_loss)
    return found


def zennit_loss_and_gradients(
    model: nn.Module,
    x: torch.Tensor,
    target: torch.Tensor,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """A loss of relevance by EpsilonPlus, and its gradients by the model's parameters.

    Args:
        model: the network, in evaluation mode; as in `zennit_relevance` its batch norms are merged meanwhile.
        x: images (N, 3, H, W).
        target: a class of each image, (N,), of integers.
        loss: of (relevance, (N, 3, H, W), scores, (N, K)).

    Returns:
        The loss, and the gradients; None where a parameter has no part.
    """
    zennit = torch_models.import_zennit()
    canonizers = [
        zennit.canonizers.SequentialMergeBatchNorm(),
        zennit.canonizers.AttributeCanonizer(torch_models.summed),
    ]
    composite = zennit.composites.EpsilonPlus(canonizers=canonizers)

    def top(scores: torch.Tensor) -> torch.Tensor:
        return scores * nn.functional.one_hot(target, scores.shape[1])

    with zennit.attribution.Gradient(model, composite, create_graph=True) as attributor:
        scores, relevance = attributor(x.detach().requires_grad_(), top)
        found = loss(relevance, scores)
        with attributor.inactive():  # zennit #142: or its rules change this gradient, too
            gradients = torch.autograd.grad(found, list(model.parameters()), allow_unused=True)
    return found.detach(), gradients
