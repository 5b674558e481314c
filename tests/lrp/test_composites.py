"""Which operation gets which rule."""

import dataclasses
import warnings
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jxai import lrp
from jxai.lrp import Kind

X = np.ones((1, 4, 4, 2), np.float32)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + nn.relu(nn.Conv(2, (3, 3), name="inner")(x))


class Special(nn.Dense):
    """A user's subclass of a module of Flax's own."""


class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = Block(name="block2")(jnp.tanh(Block(name="block1")(x)))
        x = nn.avg_pool(x, (2, 2), (2, 2)).reshape(len(x), -1)
        return Special(3, name="last")(nn.Dense(4, name="hidden")(x))


VARIABLES = jax.eval_shape(Model().init, jax.random.key(0), X)
LAYERS = ["block1/inner", "block2/inner", "hidden", "last"]


@dataclasses.dataclass(frozen=True)
class Spy(lrp.Rule):
    """A rule that only notes which operations it met."""

    met: Any = dataclasses.field(default_factory=list, compare=False)

    def apply(self, application):
        self.met.append(application.operation)
        return application.function(application.inputs, application.constants)

    def paths(self):
        return [operation.path for operation in self.met]


class LinearSpy(Spy):
    """The same for linear layers alone."""

    kinds = lrp.Epsilon.kinds


REST = lrp.Composite(((Kind.CONVOLUTION, lrp.Epsilon()), (Kind.DENSE, lrp.Epsilon())), name="rest")


def explain(composite, x=X, model=None):
    model = model or Model()
    variables = VARIABLES if isinstance(model, Model) else jax.eval_shape(model.init, jax.random.key(0), x)

    def relevance(variables, x):
        y, pullback = lrp.vjp(lambda x: model.apply(variables, x), x, composite=composite)
        return pullback(y)[0]

    return jax.eval_shape(relevance, variables, x)


def met(pattern, spy=LinearSpy):
    """The operations whose rule a pattern decides."""
    found = spy()
    explain(lrp.Composite(((pattern, found),)) | REST)
    return found.met


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        (Kind.CONVOLUTION, LAYERS[:2]),
        (Kind.DENSE, LAYERS[2:]),
        (lax.dot_general_p, LAYERS[2:]),
        (lax.conv_general_dilated_p, LAYERS[:2]),
        (nn.Conv, LAYERS[:2]),
        (nn.Dense, LAYERS[2:]),  # of subclasses too
        (Special, LAYERS[3:]),
        (Block, LAYERS[:2]),  # any module around the operation
        (Model, LAYERS),
        (nn.Module, LAYERS),
        ("block1/inner", LAYERS[:1]),
        ("block1/*", LAYERS[:1]),
        ("block?/inner", LAYERS[:2]),
        ("*/inner", LAYERS[:2]),
        ("[hl]a*", LAYERS[3:]),
        ("*", LAYERS),
        (lrp.first, LAYERS[:1]),
        (lambda operation: operation.module.name == "last", LAYERS[3:]),
        (lambda operation: operation.outputs == ((1, 4),), LAYERS[2:3]),
        (lambda operation: operation.parameters == 3 * 3 * 2 * 2 + 2, LAYERS[:2]),
        ((nn.Conv, "block2/*"), LAYERS[1:2]),
        ((Kind.CONVOLUTION, lrp.first), LAYERS[:1]),
        ((Kind.CONVOLUTION, nn.Conv, "*inner", lambda operation: not operation.first), LAYERS[1:2]),
    ],
)
def test_patterns_of_linear_layers(pattern, paths):
    assert [operation.path for operation in met(pattern)] == paths


@pytest.mark.parametrize(
    ("pattern", "primitives"),
    [
        (Kind.ACTIVATION, [("max",), ("tanh",), ("max",)]),
        (Kind.SUM, [("add",), ("add",)]),
        (lax.tanh_p, [("tanh",)]),
        ((Kind.SUM, "block2"), [("add",)]),
        ((Kind.MEAN, ""), None),
    ],
)
def test_patterns_of_other_operations(pattern, primitives):
    found = met(pattern, Spy)
    if primitives is None:
        (mean,) = found
        assert mean.primitives[0] == "reduce_window_sum"
        assert mean.inputs == ((1, 4, 4, 2),)
    else:
        assert [operation.primitives for operation in found] == primitives


def test_a_module_as_a_whole():
    # By class, path or predicate; never by kind, and not where the rule is for linear layers.
    for pattern in (Block, "block?", lambda operation: operation.path.startswith("block")):
        found = met(pattern, Spy)
        assert [operation.kind for operation in found] == [Kind.MODULE] * 2
        assert [operation.path for operation in found] == ["block1", "block2"]
        assert all(isinstance(operation.module, Block) for operation in found)
    (whole,) = met((Block, "block2"), Spy)
    assert whole.primitives[0] == "conv_general_dilated"


def test_the_first_match_wins():
    first, second = LinearSpy(), LinearSpy()
    explain(lrp.Composite((("block1/*", first), (Kind.CONVOLUTION, second))) | REST)
    assert (first.paths(), second.paths()) == (LAYERS[:1], LAYERS[1:2])
    first, second = LinearSpy(), LinearSpy()
    with pytest.warns(UserWarning, match="block1"):
        explain(lrp.Composite(((Kind.CONVOLUTION, first), ("block1/*", second))) | REST)
    assert (first.paths(), second.paths()) == (LAYERS[:2], [])


def test_a_rule_for_other_kinds_is_passed_over():
    linear, norm = LinearSpy(), lrp.Norm(0.5)
    explain(lrp.Composite((("*", norm), ("*", linear))))
    assert linear.paths() == LAYERS


def test_or_tries_the_left_one_first():
    left, right = LinearSpy(), LinearSpy()
    both = lrp.Composite((("last", left),), name="left") | lrp.Composite(((nn.Module, right),), name="right")
    assert both.name == "left | right"
    explain(both)
    assert (left.paths(), right.paths()) == (LAYERS[3:], LAYERS[:3])


def test_or_of_presets_and_their_flags():
    preset = lrp.EpsilonPlus(norm=True)
    front = lrp.Composite(((lrp.first, lrp.Flat()),))
    assert (front | preset).rules == (*front.rules, *preset.rules)
    assert (preset | front).rules == (*preset.rules, *front.rules)
    assert (front | preset).merge_batch_norm
    assert not (front | lrp.sun2020).merge_batch_norm
    assert not (lrp.sun2020 | front).merge_batch_norm
    assert (front | front).complete
    assert not (front | preset).complete


def rules(composite):
    """Each layer's rule, and those of sums and means."""
    kinds = {
        "first": Kind.CONVOLUTION,
        "convolution": Kind.CONVOLUTION,
        "dense": Kind.DENSE,
        "sum": Kind.SUM,
        "mean": Kind.MEAN,
    }
    found = {}
    for name, kind in kinds.items():
        index = composite.find(lrp.Operation(kind, first=name == "first"))
        found[name] = None if index is None else composite.rules[index][1]
    return found


EPSILON, Z_PLUS = lrp.Epsilon(1e-6), lrp.ZPlus(epsilon=1e-6)


@pytest.mark.parametrize(
    ("composite", "first", "convolution", "dense"),
    # METHODS.md, section 1, "Named composites".
    [
        (lrp.EpsilonPlus(), Z_PLUS, Z_PLUS, EPSILON),
        (lrp.EpsilonAlpha2Beta1(), lrp.AlphaBeta(2.0, 1.0), lrp.AlphaBeta(2.0, 1.0), EPSILON),
        (lrp.EpsilonPlusFlat(), lrp.Flat(), Z_PLUS, EPSILON),
        (lrp.EpsilonAlpha2Beta1Flat(), lrp.Flat(), lrp.AlphaBeta(2.0, 1.0), EPSILON),
        (lrp.EpsilonGammaBox(-1.0, 2.0), lrp.Box(-1.0, 2.0), lrp.Gamma(0.25), EPSILON),
        (
            lrp.EpsilonGammaBox(0, 1, gamma=2.0, epsilon=0.1),
            lrp.Box(0, 1, epsilon=0.1),
            lrp.Gamma(2.0, epsilon=0.1),
            lrp.Epsilon(0.1),
        ),
        (lrp.ExcitationBackprop(), Z_PLUS, Z_PLUS, Z_PLUS),
        (lrp.AttnLRP(), EPSILON, EPSILON, EPSILON),
        (lrp.AttnLRP(gamma=0.5), lrp.Gamma(0.5), lrp.Gamma(0.5), lrp.Gamma(0.5)),
        (lrp.CPLRP(), EPSILON, EPSILON, EPSILON),
    ],
    ids=lambda value: value.name if isinstance(value, lrp.Composite) else "",
)
def test_presets(composite, first, convolution, dense):
    expected = {"first": first, "convolution": convolution, "dense": dense}
    assert rules(composite) == {**expected, "sum": None, "mean": None}
    norm = lrp.Norm(composite.epsilon)
    assert rules(dataclasses.replace(composite, norm=True)) == {**expected, "sum": norm, "mean": norm}
    assert composite.name == type(composite).__name__
    assert composite.merge_batch_norm


def test_sun2020():
    # METHODS.md, section 1, "The few-shot release uses".
    convolution = lrp.AlphaBeta(1.0, 0.0, epsilon=1e-7, bias=False, only_zeros=True)
    dense, total = lrp.Epsilon(0.01, bias=False), lrp.Norm(0.01, share_zeros=True)
    assert rules(lrp.sun2020) == {
        "first": convolution,
        "convolution": convolution,
        "dense": dense,
        "sum": total,
        "mean": None,
    }
    norm = lrp.Operation(Kind.MODULE, modules=(nn.BatchNorm(),), path="norm")
    assert lrp.sun2020.rules[lrp.sun2020.find(norm)][1] == lrp.Pass()
    assert not lrp.sun2020.merge_batch_norm


def test_cp_lrp_holds_softmaxes_that_weigh():
    weights = lrp.Operation(Kind.SOFTMAX, weighs=True)
    assert isinstance(lrp.CPLRP().rules[lrp.CPLRP().find(weights)][1], lrp.Constant)
    assert lrp.CPLRP().find(lrp.Operation(Kind.SOFTMAX)) is lrp.AttnLRP().find(weights) is None


def test_first_layers_are_all_that_see_the_input():
    class Two(nn.Module):
        @nn.compact
        def __call__(self, x):
            a = nn.relu(nn.Dense(2, name="a")(nn.tanh(x)))
            b = nn.Dense(2, name="b")(x[..., ::-1])
            return nn.Dense(1, name="c")(a + b)

    spy = LinearSpy()
    explain(lrp.Composite(((lrp.first, spy),)) | REST, np.ones((1, 3), np.float32), Two())
    assert sorted(spy.paths()) == ["a", "b"]


# What is warned of and refused.


def test_paths_that_match_nothing_are_warned_of():
    composite = lrp.Composite((("block3/*", lrp.Flat()), ("last", lrp.Epsilon(0.1)))) | REST
    with pytest.warns(UserWarning, match=r"every pattern of composite \| rest.*got none for \['block3/\*'\]"):
        explain(composite)


def test_a_composite_that_matches_nothing_is_warned_of():
    class Nothing(nn.Module):
        @nn.compact
        def __call__(self, x):
            return jnp.tanh(x)

    with pytest.warns(UserWarning, match="got none for"):
        explain(REST, model=Nothing())


@pytest.mark.parametrize(
    "composite", [lrp.EpsilonPlusFlat(), lrp.EpsilonGammaBox(-1, 1), lrp.CPLRP(), lrp.sun2020, REST]
)
def test_nothing_is_warned_of_where_something_matches(composite):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explain(composite)


@pytest.mark.parametrize(
    "rules", [((nn.Dense, nn.Dense),), (("last",),), ((nn.Dense, lrp.Epsilon),), (lrp.Epsilon(),)]
)
def test_entries_that_are_no_pairs_are_refused(rules):
    with pytest.raises(TypeError, match="pairs of a pattern and a rule, got"):
        lrp.Composite(rules)


@pytest.mark.parametrize("gradients", [lrp.GuidedBackprop(), lrp.Deconvnet()])
def test_gradients_and_relevance_do_not_mix(gradients):
    for pair in ((gradients, REST), (REST, gradients)):
        with pytest.raises(ValueError, match=r"composites of one sort, got .* they do not mix"):
            pair[0] | pair[1]
    assert not (gradients | gradients).relevance


def test_layers_without_a_rule_are_refused_with_their_place():
    message = (
        r"rule for every linear layer, got none for convolution .* in Conv at 'block1/inner' in dense alone"
        r".*\('block1/inner', lrp.Epsilon\(\)\)"
    )
    with pytest.raises(ValueError, match=message):
        explain(lrp.Composite(((Kind.DENSE, lrp.Epsilon()),), name="dense alone"))


def test_composites_are_values():
    assert lrp.EpsilonPlus() == lrp.EpsilonPlus()
    assert lrp.EpsilonPlus() != lrp.EpsilonPlus(epsilon=1e-3)
    assert lrp.Composite(REST.rules) == lrp.Composite(REST.rules)
    with pytest.raises(dataclasses.FrozenInstanceError):
        REST.name = "other"
