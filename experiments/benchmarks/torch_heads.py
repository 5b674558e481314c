"""PyTorch's side of heads.py: the losses of RelationNet, the graph network and cross attention, from the formulas.

Needs torch, which jxai does not; whoever needs it imports this module, no other does. The parameters are a JAX
head's, features are channels-last, on whatever device. All queries and classes are computed at once, without a loop.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]

EPSILON = 0.01  # of LRP
TINY = 1e-7  # in the place of a convolution's denominators that are zero


def step(
    loss: Callable[..., torch.Tensor], params: Any, features: torch.Tensor, **options: Any
) -> torch.Tensor:
    """A loss; its gradients with respect to parameters and features are left in their `grad`.

    Args:
        loss: of this module.
        params: the head's, as a tree of tensors.
        features: of supports, then queries, both class by class.
        **options: of the loss.

    Returns:
        The loss.
    """
    for leaf in [*leaves(params), features]:
        leaf.grad = None
    value = loss(params, features, **options)
    value.backward()
    return value


def leaves(tree: Any) -> list[torch.Tensor]:
    """The tensors of nested dictionaries."""
    return [leaf for one in tree.values() for leaf in leaves(one)] if isinstance(tree, dict) else [tree]


def relation_loss(params: Any, features: torch.Tensor, *, way: int, shot: int, guided: bool) -> torch.Tensor:
    """Squared error of RelationNet's sigmoids to one-hot labels, and λ times that on weighted pairs.

    Args:
        params: of `fewshot.RelationHead` with padding 1.
        features: maps (way·(shot + queries), h, w, C), not negative.
        way: number of classes.
        shot: supports a class.
        guided: whether training is guided.

    Returns:
        A scalar.
    """
    prototype = features[: way * shot].unflatten(0, (way, shot)).mean(1)
    query = features[way * shot :]
    targets = torch.eye(way, device=features.device).repeat_interleave(len(query) // way, 0)

    def loss(z: torch.Tensor) -> tuple[torch.Tensor, _Compared]:
        found = _compare(z + params["conv1"]["bias"], params)
        return ((torch.sigmoid(found.scores.unflatten(0, (-1, way))) - targets) ** 2).mean(), found

    plain, found = loss(_convolve_halves(prototype, query, params["conv1"]["kernel"]))
    if not guided:
        return plain
    half = (len(query), *prototype.shape)
    pairs = torch.cat([prototype.expand(half), query[:, None].expand(half)], -1).flatten(0, 1)
    with torch.no_grad():
        kernel = params["conv1"]["kernel"].clamp(min=0)
        denominator = _convolve_halves(prototype, query, kernel)
        relevance = pairs * _back(_compared_relevance(found, params, way) / _nonzero(denominator), kernel)
        weights = _weighted(relevance)
    return plain + _strength(shot) * loss(_convolve(pairs * weights, params["conv1"]["kernel"]))[0]


class _Compared(NamedTuple):
    """RelationNet behind its first convolution, for the way back.

    Attributes:
        z: what goes into the two blocks' batch norms.
        winners: places that max pooling took.
        x: what the second convolution, the first and the second dense layer take.
        scores: (pairs,).
    """

    z: list[torch.Tensor]
    winners: list[torch.Tensor]
    x: list[torch.Tensor]
    scores: torch.Tensor


def _compare(z: torch.Tensor, params: Any) -> _Compared:
    first, winners = _pool(functional.relu(_batch_norm(z, params["bn1"])))
    second = _convolve(first, params["conv2"]["kernel"]) + params["conv2"]["bias"]
    last, others = _pool(functional.relu(_batch_norm(second, params["bn2"])))
    flat = last.flatten(1)
    hidden = functional.relu(_dense(flat, params["fc1"]))
    scores = _dense(hidden, params["fc2"])[:, 0]
    return _Compared([z, second], [winners, others], [first, flat, hidden], scores)


def _compared_relevance(found: _Compared, params: Any, way: int) -> torch.Tensor:
    """Relevance of what the first convolution gave, (pairs, h, w, features)."""
    first, flat, hidden = found.x
    relevance = _log_odds(found.scores.unflatten(0, (-1, way))).flatten()[:, None]
    for x, layer in ((hidden, "fc2"), (flat, "fc1")):
        kernel = params[layer]["kernel"]
        relevance = x * (relevance / _stabilize(x @ kernel) @ kernel.T)
    kernel = params["conv2"]["kernel"].clamp(min=0)
    relevance = _unpool(relevance, found.winners[1], found.z[1])
    relevance = first * _back(relevance / _nonzero(_convolve(first, kernel)), kernel)
    return _unpool(relevance, found.winners[0], found.z[0])


def _convolve_halves(prototype: torch.Tensor, query: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """The pairs' convolution from way + queries maps: it is linear in the halves."""
    of_prototype, of_query = kernel.chunk(2, 2)
    return (_convolve(prototype, of_prototype) + _convolve(query, of_query)[:, None]).flatten(0, 1)


def _convolve(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """A 3x3 kernel (3, 3, C, D) over maps (n, h, w, C), padded by 1."""
    return functional.conv2d(x.movedim(-1, 1), kernel.permute(3, 2, 0, 1), padding=1).movedim(1, -1)


def _back(z: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """The transpose of `_convolve`."""
    return functional.conv_transpose2d(z.movedim(-1, 1), kernel.permute(3, 2, 0, 1), padding=1).movedim(1, -1)


def _pool(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Largest of 2x2, (n, h, w, C), and where they were, (n, C, h, w)."""
    y, winners = functional.max_pool2d(x.movedim(-1, 1), 2, return_indices=True)
    return y.movedim(1, -1), winners


def _unpool(relevance: torch.Tensor, winners: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The relevance of maps (n, h, w, C), or of them flat, at the winners' places of maps like these."""
    maps = relevance.view(len(winners), *winners.shape[2:], -1).movedim(-1, 1)
    return functional.max_unpool2d(maps, winners, [2, 2], output_size=like.shape[1:3]).movedim(1, -1)


def graph_loss(params: Any, features: torch.Tensor, *, way: int, shot: int, guided: bool) -> torch.Tensor:
    """Cross-entropy of the graph network, and λ times that on weighted nodes.

    Args:
        params: of `fewshot.GraphHead`.
        features: vectors (way·(shot + queries), C).
        way: number of classes.
        shot: supports a class.
        guided: whether training is guided.

    Returns:
        A scalar.
    """
    x = _batch_norm(_dense(features, params["fc"]), params["fc_bn"])
    supports, queries = x[: way * shot], x[way * shot :].unflatten(0, (way, -1)).transpose(0, 1)
    nodes = torch.cat([supports.expand(len(queries), -1, -1), queries], 1)
    classes = torch.arange(way, device=features.device)
    labels = functional.one_hot(classes.repeat_interleave(shot), way).to(x.dtype)
    labels = functional.pad(labels, (0, 0, 0, way)).expand(len(nodes), -1, -1)

    def run(nodes: torch.Tensor) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
        """Scores of every node; the input and the adjacency of every graph convolution."""
        x, layers = torch.cat([nodes, labels], -1), []
        for weights, layer in (("w0", "l0"), ("w1", "l1"), ("w_last", "l_last")):
            adjacency = _adjacency(x, params[weights])
            layers.append((x, adjacency))
            z = _dense(torch.cat([x, adjacency @ x], -1), params[layer]["fc"])
            if layer == "l_last":
                return z, layers
            x = torch.cat([x, functional.leaky_relu(_batch_norm(z, params[layer]["bn"]), 0.01)], -1)
        raise AssertionError

    def loss(scores: torch.Tensor) -> torch.Tensor:
        targets = classes.expand(len(scores), -1)
        return functional.cross_entropy(scores[:, way * shot :].flatten(0, 1), targets.flatten())

    scores, layers = run(nodes)
    if not guided:
        return loss(scores)
    with torch.no_grad():
        kernels = [params[layer]["fc"]["kernel"] for layer in ("l0", "l1", "l_last")]
        width, base = nodes.shape[-1], layers[0][0].shape[-1]
        last = _convolution_relevance(*layers[2], kernels[2], _log_odds(scores))
        second = _convolution_relevance(*layers[1], kernels[1], last[..., layers[1][0].shape[-1] :])
        first = _convolution_relevance(*layers[0], kernels[0], second[..., base:])
        relevance = last[..., :width] + second[..., :width] + first[..., :width]
        weights = _weighted(relevance)
    return loss(scores) + _strength(shot) * loss(run(nodes * weights)[0])


def cross_attention_loss(
    params: Any,
    features: torch.Tensor,
    *,
    way: int,
    shot: int,
    guided: bool,
    classes: torch.Tensor,
) -> torch.Tensor:
    """Cross-entropy of the global classifier, and half that of the local scores, weighted or not.

    Args:
        params: of `fewshot.CrossAttentionHead`.
        features: maps (way·(shot + queries), h, w, C).
        way: number of classes.
        shot: supports a class.
        guided: whether training is guided.
        classes: of each query for the global classifier.

    Returns:
        A scalar.
    """
    height, width = features.shape[1:3]
    query = features[way * shot :].flatten(1, 2)
    prototype = features[: way * shot].flatten(1, 2).unflatten(0, (way, shot)).mean(1)
    labels = torch.arange(way, device=features.device).repeat_interleave(len(query) // way)
    unit_query = functional.normalize(query, dim=-1)
    correlation = torch.einsum("wic,qjc->qwij", functional.normalize(prototype, dim=-1), unit_query)
    attended = torch.einsum("wic,qwi->qwc", prototype, _attention(correlation, params["attention"]))
    unit_prototype = functional.normalize(attended, dim=-1)
    attention = _attention(correlation.transpose(-1, -2), params["attention"])
    if guided:
        weights = _weights(query, attention, unit_prototype, (height, width))
        scores = 7 * torch.einsum("qjc,qwc,qwjc->qwj", unit_query, unit_prototype, weights)
    else:
        scores = 7 * torch.einsum("qjc,qwc->qwj", unit_query, unit_prototype)
    own = query * attention[torch.arange(len(query), device=labels.device), labels][..., None]
    of_all = _dense(own, params["classifier"]).transpose(1, 2)
    positions = (-1, height * width)
    return functional.cross_entropy(of_all, classes[:, None].expand(positions)) + (
        0.5 * functional.cross_entropy(scores, labels[:, None].expand(positions))
    )


def _weights(
    query: torch.Tensor, attention: torch.Tensor, prototype: torch.Tensor, sides: tuple[int, int]
) -> torch.Tensor:
    """Weights of the attended query maps (queries, way, positions, C); the gradient passes."""
    x = (query[:, None] * attention[..., None]).unflatten(2, sides)
    rows = x.mean(3)
    product = prototype * functional.normalize(rows.mean(2), dim=-1)
    total = product.sum(-1)
    pooled = product * (_log_odds(7 * total) / _stabilize(total))[..., None]
    of_rows = rows * (pooled / _stabilize(rows.sum(2)))[:, :, None]
    relevance = x * (of_rows / _stabilize(x.sum(3)))[:, :, :, None]
    of_channels, of_positions = _weighted(pooled), _weighted(relevance)
    return of_channels[:, :, None] * of_positions.flatten(2, 3)


def _attention(correlation: torch.Tensor, params: Any) -> torch.Tensor:
    kernel = _batch_norm(_dense(correlation.mean(-2), params["fc1"]), params["bn"])
    kernel = _dense(functional.relu(kernel), params["fc2"])
    matches = torch.einsum("qwij,qwj->qwi", correlation, kernel) / correlation.shape[-1]
    return 1 + functional.softmax(matches / 0.025, -1)


def _adjacency(x: torch.Tensor, params: Any) -> torch.Tensor:
    z = (x[:, :, None] - x[:, None]).abs()
    for number in range(1, 5):
        z = _batch_norm(_dense(z, params[f"conv{number}"]), params[f"bn{number}"])
        z = functional.leaky_relu(z, 0.01)
    z = _dense(z, params["convlast"])[..., 0] - 1e8 * torch.eye(x.shape[1], device=x.device)
    return functional.softmax(z, -1)


def _convolution_relevance(
    x: torch.Tensor, adjacency: torch.Tensor, kernel: torch.Tensor, relevance: torch.Tensor
) -> torch.Tensor:
    """Relevance of a graph convolution's input nodes."""
    neighbors = adjacency @ x
    both = torch.cat([x, neighbors], -1)
    both = both * (relevance / _stabilize(both @ kernel) @ kernel.T)
    own, others = both.chunk(2, -1)
    return x * (own / _stabilize(x) + adjacency.transpose(-1, -2) @ (others / _stabilize(neighbors)))


def _dense(x: torch.Tensor, params: Any) -> torch.Tensor:
    return x @ params["kernel"] + params["bias"]


def _batch_norm(x: torch.Tensor, params: Any) -> torch.Tensor:
    rows = x.reshape(-1, x.shape[-1])
    return functional.batch_norm(
        rows, None, None, params["scale"], params["bias"], training=True, eps=1e-5
    ).view_as(x)


def _strength(shot: int) -> float:
    """λ, as released."""
    return min(1.0, 0.5 + 0.125 * (shot - 1))


def _weighted(relevance: torch.Tensor) -> torch.Tensor:
    """Weights 1 + R / max|R| over the last axis; 1 where there is no relevance."""
    largest = relevance.abs().amax(-1, keepdim=True)
    return 1 + relevance / torch.where(largest == 0, 1.0, largest)


def _nonzero(z: torch.Tensor) -> torch.Tensor:
    return torch.where(z == 0, TINY, z)


def _stabilize(z: torch.Tensor) -> torch.Tensor:
    return z + torch.where(z < 0, -EPSILON, EPSILON)


def _log_odds(scores: torch.Tensor) -> torch.Tensor:
    p = functional.softmax(scores, -1)
    return torch.log((scores.shape[-1] - 1) * (p + 0.01) / (1.01 - p))
