"""Fixtures of the tests of `jxai.cli` and of `experiments`: a configuration and a network, as small as there are."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from experiments import convergence, quickstart
from jxai.cli.explaining import explain
from jxai.cli.explaining.inputs import EFFICIENTNET_LITE0
from jxai.cli.explaining.methods import Classifier
from jxai.cli.explaining.network import Network
from jxai.cli.explaining.photographs import CLASS_NAMES
from jxai.cli.fewshot.configs import TABLES, Config, Pretraining, configs
from jxai.cli.fewshot.configs.systems import plain_and_guided
from jxai.cli.judging import judge


@pytest.fixture(autouse=True, scope="session")
def prepared(tmp_path_factory):
    """Domains are prepared into a folder of this session's, never into the user's cache."""
    patch = pytest.MonkeyPatch()
    patch.setenv("JXAI_DATA", str(tmp_path_factory.mktemp("data")))
    yield
    patch.undo()


@pytest.fixture
def tiny() -> Config:
    """The quickstart's configuration, as small as it trains at all."""
    return dataclasses.replace(
        configs()["letters-quick/relation-guided"],
        width=8,
        head_width=8,
        queries=3,
        pretraining=Pretraining(steps=4),
        steps=4,
        eval_every=2,
        validation_episodes=4,
    )


@pytest.fixture
def tiny_quickstart(tiny, monkeypatch) -> Config:
    """`tiny` in the place of the quickstart's own configuration."""
    quick = dataclasses.replace(TABLES["letters-quick"](), systems=plain_and_guided("relation", tiny))
    monkeypatch.setitem(TABLES, "letters-quick", lambda: quick)
    return tiny


class MeanAndDense(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(1000, name="head")(x[:, 2::8, 2::8].mean((1, 2)))


@pytest.fixture
def tiny_network(monkeypatch):
    """A network that is nothing but a mean and a dense layer, in the place of EfficientNet-Lite0."""
    model = MeanAndDense()
    variables = model.init(jax.random.key(0), jnp.zeros((1, 224, 224, 3)))

    def rest(variables, maps):
        return maps.mean((1, 2)) @ variables["params"]["head"]["kernel"]

    classifier = Classifier(variables, model.apply, lambda variables, x: x[:, 2::8, 2::8], rest)
    found = Network("tiny", classifier, EFFICIENTNET_LITE0, CLASS_NAMES)
    for module in (explain, judge, convergence, quickstart):
        monkeypatch.setattr(module, "load_network", lambda *options: found)
    return found
