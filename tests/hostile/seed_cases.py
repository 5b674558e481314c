"""A tiny training, and `jxai.training` of many seeds under hostile input; in `test_training.py`'s list."""

import contextlib
import functools
import io

import flax.linen as nn
import jax
import numpy as np
import optax
from strategies import Case, Spoilt, count, one_of

from jxai import training

IMAGES = {"image": np.ones((4, 2, 2, 1), np.float32), "label": np.arange(4) % 2}

NO_DEVICES = [Spoilt(v, refused=True) for v in ([], "cpu", 3, ["cpu"], [None], {})]


class Network(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(2)(x.reshape(len(x), -1))


@functools.cache
def parts():
    """(loss, optimizer, state) of a classifier of two classes."""
    variables = Network().init(jax.random.key(0), IMAGES["image"], train=False)
    optimizer = optax.sgd(0.1)
    state = training.TrainState.create(jax.random.key(1), variables, optimizer=optimizer)
    return training.classification_loss(Network()), optimizer, state


@functools.cache
def pmapped():
    loss, optimizer, _ = parts()
    return training.pmap_step(training.make_step(loss, optimizer), devices=jax.devices()[:1])


class Endless:
    """Pictures of one value."""

    def __init__(self, value):
        self.value = value

    def __next__(self):
        return {"image": IMAGES["image"][None] * self.value, "label": IMAGES["label"][None]}


@functools.cache
def of_seeds():
    loss, optimizer, _ = parts()
    return training.seeds_step(
        training.make_step(loss, optimizer), num_seeds=2, at_once=1, devices=jax.devices()[:1]
    )


def trained_together(value, step, states, batches, kept, **options):
    """`fit_seeds` on pictures of one value."""
    iterators = batches([Endless(value), Endless(value)])
    with contextlib.redirect_stderr(io.StringIO()):
        results = training.fit_seeds(step(), states(), iterators, progress=False, **kept, **options)
    return [result.state.params for result in results]


SEED_CASES = {
    "fit_seeds": Case(
        trained_together,
        {
            "value": one_of(1.0, bad=[Spoilt(np.nan, refused=True), Spoilt(np.inf, refused=True)]),
            "step": one_of(
                of_seeds, bad=[Spoilt(v, refused=True) for v in (pmapped, lambda: None, lambda: 3)]
            ),
            "states": one_of(
                lambda: [parts()[2]] * 2,
                bad=[
                    Spoilt(v, refused=True)
                    for v in (lambda: None, list, lambda: [None] * 2, lambda: [parts()[2]] * 3, lambda: "ab")
                ],
            ),
            "batches": one_of(
                lambda both: both,
                bad=[
                    Spoilt(v, refused=True)
                    for v in (
                        lambda _: None,
                        lambda _: 3,
                        lambda both: both[:1],
                        lambda _: [None] * 2,
                        lambda _: "ab",
                    )
                ],
            ),
            "kept": one_of(
                {},
                {"checkpoints": [None] * 2},
                bad=[
                    Spoilt({name: v}, refused=True)
                    for name in ("checkpoints", "writers")
                    for v in (None, 3, [3, 3], ["runs"] * 2, [None])
                ],
            ),
            "num_steps": count(1, 2),
            "eval_every": count(1, 5),
            "log_every": count(1, 5),
        },
        errors=(training.DivergedError,),
    ),
    "seeds_step": Case(
        lambda step, **options: training.seeds_step(step, **options).at_once,
        {
            "step": one_of(
                lambda *given: given, bad=[Spoilt(v, refused=True) for v in (None, 3, "step", {})]
            ),
            "num_seeds": count(1, 8),
            "at_once": count(1, 3),
            "prepare": one_of(
                None, lambda batch, shared: batch, bad=[Spoilt(v, refused=True) for v in (3, "text", {})]
            ),
            "shared": one_of(
                None, IMAGES, bad=[Spoilt(v, refused=True) for v in ("text", object(), {"a": "text"})]
            ),
            "devices": one_of(None, jax.devices()[:1], bad=NO_DEVICES),
        },
        holds=lambda found, given: 1 <= found <= given["at_once"],
    ),
    "train_seeds": Case(
        lambda init, seeds, data: training.train_seeds(of_seeds(), init, seeds, data).params,
        {
            "init": one_of(
                lambda seed: parts()[2],
                bad=[Spoilt(v, refused=True) for v in (lambda seed: None, lambda seed: 3, None)],
            ),
            "seeds": one_of(
                (0, 1),
                [7, 3],
                np.array([4, 2]),
                bad=[
                    Spoilt(v, refused=True)
                    for v in (
                        (1, 1),
                        (),
                        (0.5, 1),
                        (True, False),
                        ("a", "b"),
                        (-1, 0),
                        (0, 1, 2),
                        3,
                        None,
                        "ab",
                    )
                ],
            ),
            "data": one_of(
                jax.tree.map(lambda leaf: np.stack([leaf[None, None]] * 2), IMAGES),
                bad=[Spoilt(v, refused=True) for v in (IMAGES, {}, None, 3, {"image": "text"})],
            ),
        },
    ),
}
