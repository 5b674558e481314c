"""Cost of guidance: a training step of every head, guided over plain, alone and behind its encoder, and in PyTorch.

    pip install torch
    python -m experiments.benchmarks.heads --json results.json

Three sections; `--sections` chooses among them.

heads    loss and gradients (of features too) at the paper's sizes: maps 7x7x512 for RelationNet, 6x6x512 for cross
         attention, vectors of 512 for the others; 5-way 5-shot with 16 queries a class
rivals   the same of RelationNet, the graph network and cross attention in PyTorch, by torch_heads.py; and how far its
         losses and gradients, of all parameters and of the features, are from ours in float64 at 64 channels
systems  the graph network behind ResNet10 at 224x224, cross attention behind ResNet12 at 84x84

Plain and guided take turns; the shortest time of each counts. For RelationNet behind its encoder see guided_step.py.
The first section takes two minutes on two cores, the second and the third several.

The GNU C library hands blocks of more than 32 MB back to the system after every step, and touching them anew can cost
more than a head's arithmetic, of whichever framework; `keep_memory` stops that. `--return-memory` leaves it on.
"""

import ctypes
import dataclasses
import functools
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.measure import alternate, report, result
from experiments.benchmarks.steps import GLOBAL_CLASSES, Step, Task, head_step, system_step
from jxai import fewshot, models

Name = Literal["relation", "graph", "cross_attention", "prototype", "matching", "feat"]
Section = Literal["heads", "rivals", "systems"]
KINDS = {"plain": fewshot.PLAIN, "guided": fewshot.Guidance()}
HEAD_GOALS = {"graph": "at most 2.3", "cross_attention": "at most 1.3"}
RIVALS = ("relation", "graph", "cross_attention")
SYSTEMS = {"graph": ("resnet10", 224, "at most 1.3"), "cross_attention": ("resnet12", 84, "at most 1.15")}


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured, and its sizes."""

    sections: tuple[Section, ...] = ("heads", "rivals", "systems")
    heads: tuple[Name, ...] = get_args(Name)
    task: Task = Task()
    channels: int = 512
    repeats: int = 10
    system_repeats: int = 2
    return_memory: bool = False
    """Leave the C library's allocator as it is."""
    json: Path | None = None
    """Where the results go as JSON."""


def keep_memory() -> None:
    """Tell the GNU C library to keep freed memory, one heap for all threads."""
    if platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    m_trim_threshold, m_mmap_max, m_arena_max = -1, -4, -8
    for parameter, value in ((m_trim_threshold, 2**31 - 1), (m_mmap_max, 0), (m_arena_max, 1)):
        if not library.mallopt(parameter, value):
            raise RuntimeError(f"mallopt refused parameter {parameter}: measure with --return-memory")


def head_and_shape(name: Name, options: Options) -> tuple[fewshot.Head, tuple[int, ...]]:
    """A head and the shape of one image's features."""
    channels, way = options.channels, options.task.way
    return {
        "relation": (fewshot.RelationHead(features=channels, nonnegative=True), (7, 7, channels)),
        "graph": (fewshot.GraphHead(way=way), (channels,)),
        "cross_attention": (fewshot.CrossAttentionHead(GLOBAL_CLASSES), (6, 6, channels)),
        "prototype": (fewshot.PrototypeHead(), (channels,)),
        "matching": (fewshot.MatchingHead(), (channels,)),
        "feat": (fewshot.FEATHead(), (channels,)),
    }[name]


def compiled(step: Step, arguments: tuple[Any, ...]) -> Callable[[], Any]:
    """The step as a program on its arguments."""
    program = jax.jit(step).lower(*arguments).compile()
    return lambda: program(*arguments)


def guided_over_plain(name: str, steps: dict[str, Callable], repeats: int, goal: str | None) -> list[dict]:
    """Seconds of both, and their ratio."""
    times = alternate({f"{name}_{kind}": step for kind, step in steps.items()}, repeats)
    plain, guided = times.values()
    seconds = [result(f"{label}_seconds", value, "s") for label, value in times.items()]
    return [*seconds, result(f"{name}_guided_over_plain", guided / plain, "times", goal)]


def rival(name: Name, case: tuple[Any, Any], task: Task) -> tuple[Callable[[bool], Any], tuple[Any, Any]]:
    """PyTorch's step, of whether it is guided, and its parameters and features, which hold the gradients after it."""
    import torch  # pyright: ignore[reportMissingImports]

    from experiments.benchmarks import torch_device, torch_heads

    device, (variables, features) = torch_device.name(), case
    tensors = jax.tree.map(
        lambda x: torch.tensor(np.array(x), requires_grad=True, device=device),
        (variables["params"], features),
    )
    sizes: dict[str, Any] = {"way": task.way, "shot": task.shot}
    if name == "cross_attention":
        classes = task.episode(jnp.zeros(task.images)).query_classes
        sizes["classes"] = torch.tensor(np.array(classes), dtype=torch.long, device=device)
    loss = getattr(torch_heads, f"{name}_loss")
    step = torch_device.finished(lambda guided: torch_heads.step(loss, *tensors, guided=guided, **sizes))
    return step, tensors


def rivals(
    name: Name, steps: dict[str, Callable], case: tuple[Any, jax.Array], options: Options
) -> list[dict]:
    """PyTorch's seconds over ours."""
    theirs, _ = rival(name, case, options.task)
    results = []
    for kind, step in steps.items():
        functions = {"jxai": step, "torch": functools.partial(theirs, kind == "guided")}
        times = alternate(functions, options.repeats)
        label = f"{name}_{kind}"
        results += [
            result(f"{label}_torch_seconds", times["torch"], "s"),
            result(f"{label}_speedup", times["torch"] / times["jxai"], "times", "at least 1"),
        ]
    return results


def agreement(name: Name, options: Options) -> list[dict]:
    """How far PyTorch's losses and gradients are from ours; in float64, where no ReLU and no maximum is undecided."""
    head, shape = head_and_shape(name, dataclasses.replace(options, channels=min(64, options.channels)))
    results = []
    with jax.enable_x64(True):
        for kind, guidance in KINDS.items():
            step, case = head_step(head, shape, options.task, guidance)
            case = jax.tree.map(lambda x: np.asarray(x, np.float64), case)
            gradients, _, metrics = jax.jit(step)(*case)
            theirs, tensors = rival(name, case, options.task)
            apart = abs(float(metrics["loss"]) - theirs(kind == "guided").item())
            of_gradients = difference(gradients, jax.tree.map(lambda x: x.grad.cpu().numpy(), tensors))
            results += [
                result(f"{name}_{kind}_loss_difference", apart, "", "at most 1e-4"),
                result(f"{name}_{kind}_gradient_difference", of_gradients, "of largest", "at most 1e-4"),
            ]
    return results


def difference(ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> float:
    """Between gradients of the parameters, and of the features: the largest over the largest entry of its kind."""
    found = []
    for kinds in zip(ours, theirs, strict=True):
        pairs = [*zip(*map(jax.tree.leaves, kinds), strict=True)]
        largest = max(np.abs(one).max() for one, _ in pairs)
        found.append(max(np.abs(one - other).max() for one, other in pairs) / largest)
    return max(found)


def main(options: Options) -> None:
    """Measure and report."""
    if not options.return_memory:
        keep_memory()
    results = []
    for name in options.heads:
        head, shape = head_and_shape(name, options)
        if {"heads", "rivals"} & set(options.sections):
            made = {kind: head_step(head, shape, options.task, guidance) for kind, guidance in KINDS.items()}
            steps = {kind: compiled(*one) for kind, one in made.items()}
            if "heads" in options.sections:
                results += guided_over_plain(name, steps, options.repeats, HEAD_GOALS.get(name))
            if "rivals" in options.sections and name in RIVALS:
                results += rivals(name, steps, made["plain"][1], options) + agreement(name, options)
        if "systems" in options.sections and name in SYSTEMS:
            encoder_name, side, goal = SYSTEMS[name]
            encoder = models.encoder(encoder_name, image_size=side)
            steps = {
                kind: compiled(*system_step(encoder, head, side, options.task, guidance))
                for kind, guidance in KINDS.items()
            }
            label = f"{name}_behind_{encoder_name}"
            results += guided_over_plain(label, steps, options.system_repeats, goal)
    report(results, options.json)


if __name__ == "__main__":
    import tyro  # gpu.py takes this file's parts where there is no tyro

    main(tyro.cli(Options))
