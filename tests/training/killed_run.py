"""A toy training that is killed, run by test_killed.py: `killed_run.py FOLDER`.

It saves after every step to FOLDER/run, writes FOLDER/metrics.jsonl, resumes from there, and says on standard output
what it does: a line "step", "evaluation", "writing" as each begins. At the end FOLDER/end.npz holds its state.
"""

import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from conftest import Toy, ToyBatches, toy_episodes, toy_loss
from jxai import training

NUM_STEPS = 12


def say(what: str) -> None:
    print(what, flush=True)


def evaluate(state: training.TrainState) -> float:
    say("evaluation")
    time.sleep(0.02)  # as long as there is something to interrupt
    return float(np.abs(state.params["Dense_0"]["kernel"]).mean())


class Checkpoints(training.Checkpoints):
    """Says when writing begins."""

    def save(self, state: training.TrainState, **options: Any) -> None:
        super().save(state, **options)
        say("writing")


class Batches(ToyBatches):
    """Says when a step begins."""

    def __next__(self) -> Any:
        say("step")
        return super().__next__()


def main(folder: Path) -> None:
    toy = Toy(toy_loss, toy_episodes, Batches, optax.adam(1e-2))
    step = training.make_step(toy.loss, toy.optimizer)
    with Checkpoints(folder / "run", config={"toy": 1}) as checkpoints:
        result = training.fit(
            training.pmap_step(step, devices=jax.local_devices()[:1]),
            toy.state(),
            toy.batches(),
            num_steps=NUM_STEPS,
            eval_every=1,
            log_every=1,
            evaluate=evaluate,
            checkpoints=checkpoints,
            writer=training.MetricsWriter(folder / "metrics.jsonl"),
            progress=False,
        )
    state = result.state.replace(key=jax.random.key_data(result.state.key))
    np.savez(folder / "end.npz", *map(np.asarray, jax.tree.leaves(state)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
