import flax.linen as nn
import jax
import numpy as np
import pytest

from jxai import lrp

FIRST, SECOND, THIRD = lrp.Epsilon(0.1), lrp.Epsilon(0.2), lrp.Epsilon(0.3)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, name="inner")(x)


class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, name="last")(Block(name="block1")(x))


def rules_met(composite):
    """path -> the rule that the composite has for it."""
    met = {}

    def look(next_fun, args, kwargs, context):
        met["/".join(context.module.path)] = composite.rule(context.module)
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(look):
        Model().init(jax.random.key(0), np.ones((1, 2)))
    return met


def test_the_first_match_wins():
    composite = lrp.Composite((("block1/*", FIRST), (nn.Dense, SECOND)))
    assert rules_met(composite) == {"": None, "block1": None, "block1/inner": FIRST, "last": SECOND}
    assert rules_met(lrp.Composite(composite.rules[::-1]))["block1/inner"] == SECOND


def test_classes_match_their_subclasses_paths_match_whole_and_predicates_see_the_module():
    assert rules_met(lrp.Composite(((nn.Module, FIRST),)))["block1"] == FIRST
    assert rules_met(lrp.Composite((("inner", FIRST),)))["block1/inner"] is None
    assert rules_met(lrp.Composite((("*/inner", FIRST),)))["block1/inner"] == FIRST
    assert rules_met(lrp.Composite(((lambda module: module.name == "last", FIRST),)))["last"] == FIRST


def test_or_tries_the_left_one_first():
    left = lrp.Composite((("last", THIRD),), name="left")
    both = left | lrp.Composite(((nn.Dense, SECOND),), name="right")
    assert both.name == "left | right"
    assert rules_met(both) == {"": None, "block1": None, "block1/inner": SECOND, "last": THIRD}


@pytest.mark.parametrize(
    ("module", "rule"),
    [
        # METHODS.md, section 1, "The few-shot release uses".
        (nn.Dense(1), lrp.Epsilon(0.01, bias=False)),
        (nn.Conv(1, (3,)), lrp.AlphaBeta(1.0, 0.0, epsilon=1e-7, bias=False, only_zeros=True)),
        (nn.BatchNorm(), lrp.Pass()),
        (nn.LayerNorm(), None),
    ],
)
def test_sun2020(module, rule):
    assert lrp.sun2020.rule(module) == rule
