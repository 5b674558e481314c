import dataclasses
import json
import re
import threading
import time

import chex
import jax
import pytest

from jxai import data, fewshot, training
from jxai.cli.fewshot import evaluate as evaluation
from jxai.cli.fewshot.configs import Config, from_json
from jxai.cli.fewshot.evaluate import evaluate
from jxai.cli.fewshot.pretraining import _alone
from jxai.cli.fewshot.train import Run, main, train
from jxai.locks import FileLock
from jxai.training import OptimizerConfig


def run_of(config, folder):
    return Run(config, folder, encoder_folder=folder.parent / "encoder", progress=False)


@pytest.fixture
def plain(tiny):
    """`tiny` with a head that compiles in no time, for what has nothing to do with heads."""
    return dataclasses.replace(tiny, head="prototype", guidance=fewshot.PLAIN)


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_as_one_that_was_not(tiny, tmp_path, monkeypatch):
    straight = train(run_of(tiny, tmp_path / "straight")).state
    left = iter(range(tiny.steps // 2 + 1))

    def stopping(step, state, data_batches, **options):
        """`fit` whose data end in the middle of the episodes, one step after a checkpoint."""

        class Ending:
            get_state, set_state = data_batches.get_state, data_batches.set_state

            def __next__(self):
                if next(left, None) is None:
                    raise KeyboardInterrupt
                return next(data_batches)

        return fit(step, state, Ending(), **options)

    fit = training.fit
    train_pretrained = run_of(tiny, tmp_path / "stopped")
    monkeypatch.setattr(training, "fit", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(train_pretrained)
    monkeypatch.setattr(training, "fit", fit)
    resumed = train(train_pretrained).state
    assert int(resumed.step) == tiny.steps
    chex.assert_trees_all_equal(
        jax.tree.map(jax.random.key_data, straight.key), jax.tree.map(jax.random.key_data, resumed.key)
    )
    chex.assert_trees_all_equal(straight.variables, resumed.variables)
    chex.assert_trees_all_equal(straight.opt_state, resumed.opt_state)


def test_what_a_run_leaves(tiny, tmp_path):
    result = train(run_of(tiny, tmp_path / "run"))
    assert result.accuracy is not None
    assert 0 <= result.accuracy <= 1
    lines = training.read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert {"loss", "loss_plain", "loss_guided", "accuracy", "step", "phase"} <= lines[0].keys()
    assert [line["step"] for line in lines if line["phase"] == "validation"] == [2, 4]
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert from_json(Config, saved) == tiny
    del saved["augment_on_device"]  # as written before there was such a field
    assert from_json(Config, saved) == tiny
    with pytest.raises(ValueError, match="of another version"):
        from_json(Config, saved | {"color": 1})


@pytest.mark.slow
def test_pictures_are_augmented_within_the_step(plain, tmp_path, monkeypatch):
    """By a key of the step, so that a rerun sees the same pictures, in pretraining and in episodes."""
    sides = set()
    seen = data.augment_on_device

    def noting(key, images, indices, **options):
        sides.add((images.shape[1], options["size"]))
        return seen(key, images, indices, **options)

    monkeypatch.setattr(data, "augment_on_device", noting)
    short = dataclasses.replace(plain, pretraining=dataclasses.replace(plain.pretraining, steps=1), steps=1)
    device = dataclasses.replace(short, augment="crop-erase", augment_on_device=True)
    states = [
        train(Run(config, tmp_path / name, progress=False)).state
        for name, config in (("one", device), ("again", device), ("without", short))
    ]
    assert sides == {(36, 32)}  # RESIZE_FACTOR times the side, to the side
    chex.assert_trees_all_equal(states[0].variables, states[1].variables)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(states[0].params["encoder"], states[2].params["encoder"])


@pytest.mark.slow
def test_too_few_pictures_are_repeated_where_asked_for(plain, tmp_path):
    """Every class of the domain has fewer pictures than 200 shots and one query."""
    config = dataclasses.replace(
        plain,
        pretraining=dataclasses.replace(plain.pretraining, steps=0),
        steps=1,
        shot=200,
        queries=1,
        repeat=True,
    )
    assert train(run_of(config, tmp_path / "run")).accuracy is not None


@pytest.mark.slow
def test_the_encoder_is_pretrained_once_for_all_runs(tiny, tmp_path):
    for name, guidance in (("plain", fewshot.PLAIN), ("guided", fewshot.Guidance())):
        train(run_of(dataclasses.replace(tiny, guidance=guidance, steps=1), tmp_path / name))
    lines = training.read_metrics(tmp_path / "encoder" / "metrics.jsonl", phase="train")
    assert [line["step"] for line in lines] == [tiny.pretraining.steps]


@pytest.mark.slow
def test_an_encoder_is_shared_by_whoever_names_its_sources(plain, tmp_path):
    own = dataclasses.replace(plain, steps=1, shot=1, queries=1)
    named = dataclasses.replace(
        own, sources=("latin", "thai"), pretraining=dataclasses.replace(own.pretraining, sources=own.sources)
    )
    for name, config in (("own", own), ("named", named)):
        train(run_of(config, tmp_path / name))
    lines = training.read_metrics(tmp_path / "encoder" / "metrics.jsonl", phase="train")
    assert [line["step"] for line in lines] == [plain.pretraining.steps]


@pytest.mark.slow
def test_several_domains_frozen_encoder_on_eight_devices(tiny, tmp_path):
    config = dataclasses.replace(
        tiny,
        sources=("latin", "thai"),
        train_encoder=False,
        episodes_per_step=8,
        steps=1,
        shot=1,
        queries=1,
        deterministic=True,
    )
    state = train(run_of(config, tmp_path / "run")).state
    pretrained = training.load_variables(tmp_path / "encoder", which="latest")
    chex.assert_trees_all_equal(state.params["encoder"], pretrained["params"]["encoder"])
    assert pretrained["params"]["head"]["bias"].shape == (24 + 28,)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"head": "graph"}, marks=pytest.mark.slow),
        pytest.param({"head": "cross-attention"}, marks=pytest.mark.slow),
        pytest.param({"head": "prototype"}, marks=pytest.mark.slow),
        pytest.param({"head": "matching"}, marks=pytest.mark.slow),
        pytest.param({"head": "feat"}, marks=pytest.mark.long),
        pytest.param({"head": "graph", "transformation": "fixed"}, marks=pytest.mark.slow),
        pytest.param({"transformation": "learned", "auxiliary": True}, marks=pytest.mark.slow),
    ],
    ids=lambda changes: " ".join(map(str, changes.values())),
)
def test_every_system_trains_and_is_judged_both_ways(tiny, tmp_path, changes):
    sources = ("latin", "thai") if "transformation" in changes else ("latin",)
    pretraining = dataclasses.replace(tiny.pretraining, steps=1, sources=("latin",))
    config = dataclasses.replace(
        tiny, sources=sources, pretraining=pretraining, steps=1, shot=1, queries=1, **changes
    )
    result = train(run_of(config, tmp_path / "run"))
    names = result.state.params.keys()
    assert ("classifier" in names) == config.auxiliary
    assert ("transformation" in names) == (config.transformation == "learned")
    found = evaluate(
        tmp_path / "run",
        episodes={"inductive": 4, "transductive": 4},
        domains=("hebrew",),
        progress=False,
    )
    inductive, transductive = (scores["hebrew"] for scores in found.values())
    assert inductive.of == transductive.of == 75
    assert (inductive.correct != transductive.correct).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "nothing"}, "expected a head among relation, .*feat, got 'nothing'"),
        ({"encoder": "nothing"}, "expected an encoder among .*conv4np.*, got 'nothing'"),
        ({"encoder": "conv4"}, "expected a feature map of at least 4x4"),
        ({"sources": ("nothing",)}, "expected a domain, one of latin, .*, got 'nothing'"),
        ({"way": 25}, "expected at least 25 classes .* got 24 in 'latin'"),
        ({"shot": 200}, "expected at least 203 different pictures a class"),
        ({"way": 0}, "expected `way` as an integer of at least 1, got 0"),
        ({"shot": 0}, "expected `shot` as an integer of at least 1, got 0"),
        ({"queries": 0}, "expected `num_query` as an integer of at least 1, got 0"),
        ({"episodes_per_step": 3}, "expected episodes_per_step divisible by 8 devices, got 3"),
        (
            {"train_encoder": False, "optimizer": OptimizerConfig(weight_decay=0.1)},
            "expected no weight_decay",
        ),
    ],
)
def test_bad_configuration_is_named(tiny, tmp_path, changes, message):
    config = dataclasses.replace(
        tiny, **{"pretraining": dataclasses.replace(tiny.pretraining, steps=0), **changes}
    )
    with pytest.raises(ValueError, match=message):
        train(run_of(config, tmp_path / "run"))


@pytest.mark.parametrize("folder", ["/dev/null", "/proc/no/where", "file", "a" * 300])
def test_a_folder_that_cannot_be_made_is_named(tiny, tmp_path, folder):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"expected to write .*, got .*: give a folder that can be written"):
        train(run_of(tiny, tmp_path / folder))


def test_seeds_that_jax_would_cut_are_refused(tiny, tmp_path):
    for seed in (2**32, 2**70):
        with pytest.raises(
            ValueError, match=f"expected a seed from 0 to 4294967295, got {seed}: give another"
        ):
            train(run_of(dataclasses.replace(tiny, seed=seed), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_who_wants_an_encoder_that_another_trains_waits(tmp_path, capsys):
    other = FileLock(tmp_path / "encoder" / ".in_training")
    (tmp_path / "encoder").mkdir()
    other.take()
    threading.Timer(0.5, other.release).start()
    began = time.monotonic()
    with _alone(tmp_path / "encoder"):
        assert time.monotonic() - began > 0.4
        with pytest.raises(BlockingIOError):
            other.take()
    told = rf"note: waiting for the encoder in {tmp_path / 'encoder'}, which process \d+ on .* trains\n"
    assert re.fullmatch(told, capsys.readouterr().err)


def test_a_folder_of_another_configuration_is_refused(plain, tmp_path):
    config = dataclasses.replace(plain, pretraining=dataclasses.replace(plain.pretraining, steps=0), steps=1)
    train(run_of(config, tmp_path / "run"))
    with pytest.raises(ValueError, match="shot is 5 there and 1 here"):
        train(run_of(dataclasses.replace(config, shot=1), tmp_path / "run"))
    assert json.loads((tmp_path / "run" / "config.json").read_text())["shot"] == 5


def test_nan_stops_training(plain, tmp_path):
    rate = dataclasses.replace(plain.optimizer, learning_rate=1e30)
    none = dataclasses.replace(plain.pretraining, steps=0)
    config = dataclasses.replace(plain, pretraining=none, optimizer=rate, steps=9, eval_every=1)
    with pytest.raises(training.DivergedError, match=r"the last good checkpoint is step [1-8] in"):
        train(run_of(config, tmp_path / "run"))
    saved = training.load_variables(tmp_path / "run" / "episodes", which="latest")
    assert all(jax.tree.leaves(jax.tree.map(lambda leaf: bool(jax.numpy.isfinite(leaf).all()), saved)))


@pytest.mark.slow
def test_a_finished_run_is_made_longer_but_not_shorter(plain, tmp_path):
    plain = dataclasses.replace(plain, pretraining=dataclasses.replace(plain.pretraining, steps=0))
    longer = dataclasses.replace(plain, steps=plain.steps + 2)
    straight = train(run_of(longer, tmp_path / "straight"))
    assert int(train(run_of(plain, tmp_path / "run")).state.step) == plain.steps
    result = train(run_of(longer, tmp_path / "run"))
    assert int(result.state.step) == longer.steps
    chex.assert_trees_all_equal(straight.state.variables, result.state.variables)
    assert from_json(Config, json.loads((tmp_path / "run" / "config.json").read_text())) == longer
    evaluate(tmp_path / "run", episodes={"inductive": 2}, domains=("hebrew",), progress=False)
    with pytest.raises(ValueError, match=rf"expected at least the {longer.steps} steps that .*run has, got"):
        train(run_of(plain, tmp_path / "run"))


@pytest.mark.parametrize(
    "falling",
    [
        {"optimizer": OptimizerConfig("adam", 1e-3, schedule="cosine")},
        pytest.param({"auxiliary": True}, marks=pytest.mark.slow),
    ],
    ids=["rate", "weight of the classifier"],
)
def test_what_falls_until_the_last_step_is_not_made_longer(plain, tmp_path, falling):
    """It would have fallen otherwise."""
    none = dataclasses.replace(plain.pretraining, steps=0)
    config = dataclasses.replace(plain, pretraining=none, **falling)
    train(run_of(config, tmp_path / "run"))
    with pytest.raises(ValueError, match=r"got others .*: steps"):
        train(run_of(dataclasses.replace(config, steps=config.steps + 2), tmp_path / "run"))


def test_idle_devices_and_the_end_are_said(plain, tmp_path, capsys, monkeypatch):
    plain = dataclasses.replace(plain, pretraining=dataclasses.replace(plain.pretraining, steps=0))
    monkeypatch.setattr("tyro.extras.overridable_config_cli", lambda runs: run_of(plain, tmp_path / "run"))
    main()
    said = capsys.readouterr()
    assert "note: 8 devices, 1 episode a step: 7 idle; --config.episodes-per-step 8 uses all" in said.err
    assert re.match(
        rf".*run: {plain.steps} steps, best validation accuracy \d+\.\d % at step \d+; judge it by `jxai",
        said.out,
    )


def test_evaluation_says_what_its_episodes_are(plain, tmp_path, capsys):
    with pytest.raises(ValueError, match="expected folders of jxai train, got none: name some, such as"):
        evaluation.main(evaluation.Options(()))
    plain = dataclasses.replace(plain, pretraining=dataclasses.replace(plain.pretraining, steps=0), shot=1)
    train(run_of(plain, tmp_path / "run"))
    evaluation.main(evaluation.Options((tmp_path / "run",), episodes=2, domains=("hebrew",)))
    printed = capsys.readouterr().out
    assert printed.startswith(
        f"{plain.way}-way 1-shot, 15 queries a class, 2 episodes a domain, inductive:\n\n|"
    )
