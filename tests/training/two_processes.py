"""A training on several processes, run by test_loop.py: `two_processes.py PORT PROCESS PROCESSES FOLDER [STOP_AT]`.

Every process has one CPU device and its half of each batch. It saves to FOLDER, resumes from there, and writes
its final parameters to FOLDER/params-PROCESS.npz. With STOP_AT the first process gets SIGTERM at that step.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from conftest import Toy, ToyBatches, toy_episodes, toy_loss
from jxai import training


class Share:
    """One process's episodes of each batch of four."""

    def __init__(self, inner: ToyBatches, process: int, processes: int, stop_at: int | None) -> None:
        self.inner, self.process, self.stop_at = inner, process, stop_at
        self.part = slice(process * 4 // processes, (process + 1) * 4 // processes)
        self.get_state, self.set_state = inner.get_state, inner.set_state

    def __next__(self) -> Any:
        if self.stop_at is not None and self.inner.next_index >= self.stop_at:
            if self.process == 0 and self.inner.next_index == self.stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            # JAX looks for the signal about once a second and then agrees on a step: leave steps to agree on.
            time.sleep(0.2)
        return jax.tree.map(lambda leaf: leaf[self.part], next(self.inner))


def main(port: str, process: int, processes: int, folder: Path, stop_at: int | None = None) -> None:
    if processes > 1:
        jax.distributed.initialize(f"localhost:{port}", processes, process)
    toy = Toy(toy_loss, toy_episodes, ToyBatches, optax.adam(1e-2))
    step = training.pmap_step(training.make_step(toy.loss, toy.optimizer, deterministic=True))
    batches = Share(toy.batches(), process, processes, stop_at)
    writer = training.MetricsWriter(folder / "metrics.jsonl")
    with training.Checkpoints(folder / "run", config={"toy": 1}) as checkpoints:
        result = training.fit(
            step,
            toy.state(),
            batches,
            num_steps=40,
            eval_every=20,
            evaluate=lambda state: 0.5,
            checkpoints=checkpoints,
            writer=writer,
            progress=False,
        )
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves((result.state.params, result.state.batch_stats))]
    np.savez(folder / f"params-{process}.npz", *leaves)


if __name__ == "__main__":
    port, process, processes, folder, *stop_at = sys.argv[1:]
    main(port, int(process), int(processes), Path(folder), int(stop_at[0]) if stop_at else None)
