"""`jxai.training` under hostile input; damaged checkpoints are `tests/training/test_faults.py`'s."""

import contextlib
import functools
import io
import json
import tempfile
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies as st
from strategies import EFFORTS, Argument, Case, Spoilt, choice, count, key, number, one_of, search, unheard_of

from jxai import training

EXEMPT = {
    "Checkpoints": "its folders are damaged in every way in tests/training/test_faults.py",
    "DamagedCheckpointError": "an error",
    "DivergedError": "an error",
    "FitResult": "a tuple of results",
    "Interrupted": "an exit",
    "MetricsWriter": "tests/training/test_faults.py takes its disk away",
    "PmappedStep": "what `pmap_step` returns",
    "Restored": "a tuple of results",
    "load_variables": "opens a folder as `read_config` does, and restores as `Checkpoints`",
    "pmap_step": "takes what `make_step` returns, and hands it to JAX",
    "replicate": "copies any tree of arrays",
    "unreplicate": "takes what `replicate` or a step gave",
}
OPTIMIZER = {
    "name": choice("adam", "sgd"),
    "learning_rate": number(0.1, 1e-3, wrong=(0.0, -1.0)),
    "momentum": number(0.0, 0.9),
    "nesterov": one_of(False, True),
    "weight_decay": number(0.0, 1e-3, wrong=(-1.0,)),
    "clip_norm": number(None, 1.0, wrong=(0.0, -1.0)),
    "schedule": choice("constant", "cosine", "steps"),
    "warmup_steps": count(0, 2, least=0, odd=(50,)),
    "boundaries": one_of(
        (2, 4), bad=[Spoilt(v) for v in ((), (4, 2), (0, 1), (2,), None, "text", (np.nan, 1))]
    ),
    "rates": one_of(
        (0.1, 0.01), bad=[Spoilt(v) for v in ((), (0.1,), (np.nan, 1.0), (-1.0, 1.0), None, 3, ("a", "b"))]
    ),
}
NUM_STEPS = {"num_steps": count(6, 10)}
NO_CONFIG = [Spoilt(v, refused=True) for v in (None, 3, "adam", {})]
IMAGES = {"image": np.ones((4, 2, 2, 1), np.float32), "label": np.arange(4) % 2}


class Network(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(2)(x.reshape(len(x), -1))


@functools.cache
def parts():
    """(loss, optimiser, state) of a classifier of two classes."""
    variables = Network().init(jax.random.key(0), IMAGES["image"], train=False)
    optimizer = optax.sgd(0.1)
    state = training.TrainState.create(jax.random.key(1), variables, optimizer=optimizer)
    return training.classification_loss(Network()), optimizer, state


@functools.cache
def pmapped():
    loss, optimizer, _ = parts()
    return training.pmap_step(training.make_step(loss, optimizer), devices=jax.devices()[:1])


def rates(**fields):
    """Every rate of a schedule of ten steps."""
    num_steps = fields.pop("num_steps")
    schedule = training.make_schedule(training.OptimizerConfig(**fields), num_steps=num_steps)
    return [float(schedule(step)) for step in range(10)]


def updated(parts, **fields):
    num_steps = fields.pop("num_steps")
    optimizer = training.make_optimizer(training.OptimizerConfig(**fields), num_steps=num_steps, parts=parts)
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    return optimizer.update(params, optimizer.init(params), params)[0]


def trained(value, **options):
    """`fit` on pictures of one value."""
    _, _, state = parts()

    class Batches:
        def __next__(self):
            return {"image": IMAGES["image"][None] * value, "label": IMAGES["label"][None]}

    with contextlib.redirect_stderr(io.StringIO()):
        result = training.fit(pmapped(), state, Batches(), progress=False, **options)
    return result.state.params


def lines_read(text, phase):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.jsonl"
        path.write_bytes(text)
        return training.read_metrics(path, phase=phase)


def config_read(folder, which):
    with tempfile.TemporaryDirectory() as empty:
        if folder == "a file":
            folder = str(Path(empty) / "file")
            Path(folder).touch()
        return training.read_config(folder or empty, which=which)


LINE = json.dumps({"step": 1, "phase": "train", "loss": 0.5}).encode()
CASES = {
    "OptimizerConfig": Case(
        lambda config, num_steps: training.make_schedule(config, num_steps=num_steps)(0),
        {"config": one_of(training.OptimizerConfig(), bad=NO_CONFIG), **NUM_STEPS},
    ),
    "TrainState": Case(
        lambda key, variables, optimizer: (
            training.TrainState.create(key, variables, optimizer=optimizer).params
        ),
        {
            "key": key(),
            "variables": one_of(
                {"params": {"a": jnp.ones(2)}},
                bad=[Spoilt(v, refused=True) for v in (None, 3, {}, [], {"params": {}, "cache": {}})],
            ),
            "optimizer": one_of(optax.sgd(0.1), bad=NO_CONFIG),
        },
    ),
    "classification_loss": Case(
        lambda classifier, label_smoothing, image: training.classification_loss(
            classifier, label_smoothing=label_smoothing
        )(parts()[2].variables, {**IMAGES, "image": image}, jax.random.key(0))[0],
        {
            "classifier": one_of(Network(), bad=[Spoilt(v, refused=True) for v in (None, 3, Network)]),
            "label_smoothing": number(0.0, 0.1, wrong=(-0.1, 1.0)),
            "image": one_of(IMAGES["image"], IMAGES["image"] * 0),
        },
    ),
    "fit": Case(
        trained,
        {
            "value": one_of(1.0, 0.0, bad=[Spoilt(np.nan, refused=True), Spoilt(np.inf, refused=True)]),
            "num_steps": count(1, 2),
            "eval_every": count(1, 5),
            "log_every": count(1, 5),
        },
        errors=(training.DivergedError,),
    ),
    "group": Case(
        training.group,
        {
            "batch": one_of(
                IMAGES,
                bad=[
                    *(
                        Spoilt(v, refused=True)
                        for v in ({"a": np.ones(())}, {"a": np.ones(3)}, {"a": np.ones((0, 3))})
                    ),
                    *(Spoilt(v, refused=True) for v in ({"a": "text"}, 3)),
                ],
            ),
            "size": count(2, 4, odd=(5,)),
        },
    ),
    "make_optimizer": Case(
        updated,
        {
            **OPTIMIZER,
            **NUM_STEPS,
            "parts": one_of(
                None,
                {"b": training.OptimizerConfig()},
                bad=[Spoilt(v, refused=True) for v in (3, "b", {"c": training.OptimizerConfig()}, {"b": 3})],
            ),
        },
    ),
    "make_schedule": Case(
        rates,
        {
            name: OPTIMIZER[name]
            for name in ("learning_rate", "schedule", "warmup_steps", "boundaries", "rates")
        }
        | NUM_STEPS,
    ),
    "make_step": Case(
        lambda batch: training.make_step(*parts()[:2])(parts()[2], batch)[1],
        {
            "batch": one_of(
                jax.tree.map(lambda leaf: leaf[None], IMAGES),
                bad=[
                    Spoilt({**IMAGES, "label": np.zeros(())}, refused=True),
                    Spoilt(
                        {"image": np.ones((2, 4, 2, 2, 1), np.float32), "label": np.zeros((1, 4), int)},
                        refused=True,
                    ),
                ],
            )
        },
    ),
    "read_metrics": Case(
        lines_read,
        {
            "text": Argument(
                lambda size: st.sampled_from([b"", LINE + b"\n", LINE + b"\n" + LINE[:9], LINE[:5]]),
                lambda size: st.binary(max_size=40).map(
                    lambda junk: Spoilt(LINE + b"\n" + junk + b"\n" + LINE)
                ),
            ),
            "phase": one_of(None, "train", "validation"),
        },
    ),
    "shard": Case(
        training.shard,
        {
            "batch": one_of(
                IMAGES,
                bad=[Spoilt(v, refused=True) for v in ({"a": np.ones(())}, {"a": np.ones((0, 3))})],
            ),
            "num_devices": one_of(1, 2, 4, bad=[Spoilt(3, refused=True)]),
        },
    ),
}


@EFFORTS
@pytest.mark.parametrize("name", CASES)
def test_an_answer_or_a_clear_error(name, examples):
    search(name, CASES[name], examples)


@pytest.mark.parametrize("folder", ["/no/such/folder", "", "a file"])
@pytest.mark.parametrize("which", ["latest", "best", 3, "nonsense", -1, None])
def test_there_is_no_checkpoint(folder, which):
    with pytest.raises((FileNotFoundError, ValueError), match=r"^expected .*, got "):
        config_read(folder, which)


def test_every_public_function_is_here():
    assert not unheard_of("training", [*CASES, "read_config"], EXEMPT)
