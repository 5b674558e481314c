"""The same configuration gives the same numbers, whatever they are computed with.

Of the parts: tests/training/test_step.py (devices), tests/attribution/test_properties.py (chunk sizes and devices),
tests/data/test_prepared.py (threads and worker processes on pictures from disk); of the demo:
tests/experiments/test_quickstart.py.
"""

import json

import chex
import pytest
from processes import finish, start

from jxai import data


def batches(dataset, **options):
    iterator = data.iterate(dataset, **options)
    try:
        return [next(iterator) for _ in range(6)]
    finally:
        iterator.close()


@pytest.fixture(scope="module")
def episodes():
    source = data.load("latin", split="base")
    return data.episode_dataset(
        source, way=3, shot=1, num_query=2, seed=4, image_size=24, batch_size=2, augment="resized-crop"
    )


def test_episodes_do_not_depend_on_threads_and_prefetching(episodes):
    expected = batches(episodes, num_threads=0)
    for options in (
        {"num_threads": 1, "buffer_size": 1},
        {"num_threads": 2, "buffer_size": 7},
        {"num_threads": 5, "buffer_size": 2},
    ):
        chex.assert_trees_all_equal(batches(episodes, **options), expected)


@pytest.mark.slow
def test_episodes_do_not_depend_on_worker_processes(episodes):
    expected = batches(episodes, num_threads=0)
    for workers, buffer_size in ((1, 1), (2, 3), (3, 1)):
        chex.assert_trees_all_equal(
            batches(episodes, num_workers=workers, num_threads=1, buffer_size=buffer_size), expected
        )


FLAGS = {
    "width": 16,
    "head-width": 8,
    "shot": 1,
    "queries": 3,
    "pretraining.steps": 1,
    "pretraining.batch-size": 8,
    "steps": 3,
    "episodes-per-step": 8,
    "augment": "crop-erase",
    "validation-episodes": 4,
}


@pytest.mark.slow
@pytest.mark.alone
def test_a_training_on_real_numbers_of_devices(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")  # compiled as users' programs are: what is fused decides on bits
    # In processes of their own: XLA has as many threads as devices at least, unless the scripts give it more.
    # Pictures are read by other threads each time.
    found = {}
    for devices, threads in ((1, 1), (2, 4), (8, 0)):
        folder = tmp_path / str(devices)
        options = [f"--config.{flag}={value}" for flag, value in FLAGS.items()]
        options += ["--config.deterministic", "--config.augment-on-device", "--threads", str(threads)]
        options += ["--no-progress", "--folder", str(folder)]
        options = ["letters-quick/relation-guided", *options]
        (ended,) = finish(start("train", options, processes=1, devices=devices), timeout=600)
        assert ended[0] == 0, ended[2]
        about = json.loads((folder / "run.json").read_text())["starts"][0]
        assert (len(about["devices"]), about["xla_threads"]) == (devices, 8)
        found[devices] = json.loads((folder / "episodes" / "3" / "about" / "metadata").read_text())["digests"]
    assert all(of == found[1] for of in found.values())
