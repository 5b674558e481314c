"""Perturbation curves as PyTorch computes them, to measure `jxai.metrics` against."""

import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]


@torch.no_grad()
def perturbation_curve(
    model: nn.Module,
    x: torch.Tensor,
    heatmap: torch.Tensor,
    target: int,
    *,
    low: float,
    high: float,
    window: int,
    num_regions: int,
    num_draws: int,
    batch: int,
) -> torch.Tensor:
    """The curve of `jxai.metrics.perturbation_curve`, of one image.

    Args:
        model: the network, in evaluation mode.
        x: the image, (1, 3, H, W).
        heatmap: what ranks its regions, (H, W).
        target: the explained class.
        low: what black is in `x`.
        high: what white is in `x`.
        window: side of the windows, in pixels.
        num_regions: how many windows are replaced, one on top of another.
        num_draws: draws of noise a window.
        batch: how many of a window's draws are in flight.

    Returns:
        The curve, (num_regions + 1,).
    """
    means = nn.functional.avg_pool2d(heatmap.abs()[None, None], window, 1)[0, 0, :-1, :-1].clone()
    initial = model(x)[0, target]
    scores = [initial]
    for _ in range(num_regions):
        row, column = divmod(int(means.argmax()), means.shape[1])
        rows, columns = (slice(max(start - window + 1, 0), start + window) for start in (row, column))
        means[rows, columns] = -1
        drawn = x.repeat(num_draws, 1, 1, 1)
        patch = drawn[:, :, row : row + window, column : column + window]
        patch.copy_(low + (high - low) * torch.rand_like(patch))
        logits = torch.cat([model(one)[:, target] for one in drawn.split(batch)])
        kept = logits.median(dim=0).indices
        x = drawn[kept][None]
        scores.append(logits.mean())
    return torch.stack(scores) / initial.abs()
