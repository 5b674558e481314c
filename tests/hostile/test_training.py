"""`jxai.training` under hostile input; damaged checkpoints are `tests/training/test_faults.py`'s."""

import contextlib
import io
import json
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies as st
from seed_cases import IMAGES, NO_DEVICES, SEED_CASES, Endless, Network, of_seeds, parts, pmapped
from strategies import EFFORTS, Argument, Case, Spoilt, choice, count, key, number, one_of, search, unheard_of

from jxai import training

EXEMPT = {
    "DamagedCheckpointError": "an error",
    "DivergedError": "an error",
    "FitResult": "a tuple of results",
    "Interrupted": "an exit",
    "PmappedStep": "what `pmap_step` returns",
    "Restored": "a tuple of results",
    "SeedsStep": "what `seeds_step` returns",
    "Stacked": "what `SeedsStep` holds",
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


def trained(value, step, state, batches, kept, **options):
    """`fit` on pictures of one value."""
    with contextlib.redirect_stderr(io.StringIO()):
        result = training.fit(step(), state(), batches(value), progress=False, **kept, **options)
    return result.state.params


def lines_read(text, phase):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.jsonl"
        path.write_bytes(text)
        return training.read_metrics(path, phase=phase)


def opened(read, folder, which):
    with tempfile.TemporaryDirectory() as empty:
        if folder == "a file":
            folder = str(Path(empty) / "file")
            Path(folder).touch()
        return read(empty if folder == "" else folder, which=which)


def saved(directory, keep_latest, config, state, accuracy):
    """The steps that are there after one was saved and read back."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) if directory == "new" else directory
        with training.Checkpoints(directory, config=config, keep_latest=keep_latest) as checkpoints:
            checkpoints.save(state(), accuracy=accuracy)
            return checkpoints.restore(parts()[2]).state.params


def written(path, metrics, step, phase):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.jsonl" if path == "new" else path
        with training.MetricsWriter(path) as writer:
            writer.write(metrics, step=step, phase=phase)
            writer.resume(step)
        return training.read_metrics(path)


LINE = json.dumps({"step": 1, "phase": "train", "loss": 0.5}).encode()
NO_PATH = [Spoilt(v, refused=True) for v in (None, 3, 1.5, [], {})]
CASES = {
    **SEED_CASES,
    "Checkpoints": Case(
        saved,
        {
            "directory": one_of("new", bad=NO_PATH),
            "keep_latest": count(1, 2),
            "config": one_of(
                None, {"way": 5}, bad=[Spoilt({3: {4}}), Spoilt({(1, 2): 3}, refused=True), Spoilt(object())]
            ),
            "state": one_of(
                lambda: parts()[2],
                bad=[Spoilt(v, refused=True) for v in (lambda: None, lambda: 3, lambda: parts()[2].params)],
            ),
            "accuracy": one_of(
                None,
                0.5,
                np.float32(1),
                bad=[
                    *map(Spoilt, (np.nan, np.float32("nan"), -np.inf, True)),
                    *(
                        Spoilt(v, refused=True)
                        for v in ("text", 1j, np.zeros(2), [[1.0], [2.0, 3.0]], object())
                    ),
                ],
            ),
        },
    ),
    "MetricsWriter": Case(
        written,
        {
            "path": one_of("new", bad=NO_PATH),
            "metrics": one_of(
                {"loss": 0.5},
                {},
                bad=[
                    *(Spoilt({"loss": v}, refused=True) for v in ("text", None, [1.0, 2.0], 1j, object())),
                    *(Spoilt(v, refused=True) for v in ({"step": 3.0}, {"phase": 0.0}, None, 3, "text")),
                    *(Spoilt({"loss": v}) for v in (np.nan, np.inf, True, np.float32(1), jnp.ones(()))),
                ],
            ),
            "step": count(0, 3, least=0),
            "phase": one_of("train", "validation", bad=[Spoilt(3), Spoilt(None)]),
        },
        holds=lambda found, given: (
            found == [{"step": given["step"], "phase": given["phase"], **given["metrics"]}]
        ),
    ),
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
        )(parts()[2].variables, {**IMAGES, "image": image}, jax.random.key(0), jnp.zeros((), int))[0],
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
            "step": one_of(
                pmapped, bad=[Spoilt(v, refused=True) for v in (of_seeds, lambda: None, lambda: "step")]
            ),
            "state": one_of(
                lambda: parts()[2],
                bad=[Spoilt(lambda v=v: v, refused=True) for v in (None, 3, {}, "state", [])],
            ),
            "batches": one_of(
                Endless, bad=[Spoilt(lambda _, v=v: v, refused=True) for v in (None, 3, {}, "batches", [])]
            ),
            "kept": one_of(
                {},
                bad=[
                    Spoilt({name: v}, refused=True)
                    for name in ("checkpoints", "writer")
                    for v in (3, "runs", [], object())
                ],
            ),
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
    "pmap_step": Case(
        lambda step, devices: training.pmap_step(step, devices=devices).devices,
        {
            "step": one_of(
                lambda *given: given, bad=[Spoilt(v, refused=True) for v in (None, 3, "step", {})]
            ),
            "devices": one_of(None, jax.devices()[:1], bad=NO_DEVICES),
        },
        holds=lambda found, given: len(found) == (8 if given["devices"] is None else 1),
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
    "replicate": Case(
        lambda tree, devices: training.unreplicate(training.replicate(tree, devices=devices)),
        {
            "tree": one_of(
                IMAGES,
                {"key": jax.random.key(3), "rate": 0.5, "nothing": None},
                bad=[Spoilt(v, refused=True) for v in ({"a": "text"}, object(), [np.array([None])])],
            ),
            "devices": one_of(None, jax.devices()[:2], bad=NO_DEVICES),
        },
        holds=lambda found, given: jax.tree.structure(found) == jax.tree.structure(given["tree"]),
    ),
    "shard": Case(
        training.shard,
        {
            "batch": one_of(
                IMAGES,
                bad=[
                    Spoilt(v, refused=True)
                    for v in ({"a": np.ones(())}, {"a": np.ones((0, 3))}, {"a": "text"}, 3)
                ],
            ),
            "num_devices": count(1, 2, 4, odd=(3,)),
        },
        holds=lambda found, given: found["label"].shape[0] == given["num_devices"],
    ),
    "unreplicate": Case(
        training.unreplicate,
        {
            "tree": one_of(
                {"a": jnp.ones((1, 2))},
                bad=[Spoilt(v, refused=True) for v in ({"a": "text"}, 3, np.ones((1, 2)), jnp.ones(()))],
            )
        },
        holds=lambda found, given: found["a"].shape == (2,),
    ),
}


@EFFORTS
@pytest.mark.parametrize("name", CASES)
def test_an_answer_or_a_clear_error(name, examples):
    search(name, CASES[name], examples)


@pytest.mark.parametrize("read", [training.read_config, training.load_variables])
@pytest.mark.parametrize("folder", ["/no/such/folder", "", "a file", None, 3])
@pytest.mark.parametrize("which", ["latest", "best", 3, "nonsense", -1, None])
def test_there_is_no_checkpoint(read, folder, which):
    with pytest.raises((FileNotFoundError, ValueError, TypeError), match=r"^expected .*, got "):
        opened(read, folder, which)


def test_every_public_function_is_here():
    assert not unheard_of("training", [*CASES, "load_variables", "read_config"], EXEMPT)
