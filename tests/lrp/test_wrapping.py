"""The classes of other libraries are wrapped only while a function is traced, and only for its thread."""

import threading

import equinox
import jax
import keras
import pytest
from flax import nnx

from jxai import lrp
from zoo import LIBRARIES, LRP_0, START, X, close, of_hidden


def classes():
    found = [nnx.Linear, nnx.Sequential, equinox.nn.Linear, equinox.nn.MLP, keras.Operation]
    return {kind: vars(kind)["__call__"] for kind in found}


def test_classes_are_as_they_were_also_after_errors():
    before = classes()
    lrp.vjp(LIBRARIES["NNX"](), X, composite=LRP_0)
    with pytest.raises(RuntimeError, match="in the middle"):

        def f(x):
            assert classes() != before
            raise RuntimeError("in the middle")

        lrp.vjp(f, X, composite=LRP_0)
    assert classes() == before


def test_threads_explain_side_by_side():
    found, barrier = {}, threading.Barrier(4)
    before = classes()

    def explain(name):
        case = LIBRARIES[("NNX", "Equinox", "Keras", "Linen")[name]]()
        barrier.wait(timeout=60)
        for _ in range(3):
            _, pullback = lrp.vjp(case, X, composite=LRP_0, watch=[case.hidden])
            found[name] = pullback(START)[1][case.hidden]

    threads = [threading.Thread(target=explain, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert classes() == before and len(found) == 4
    for seen in found.values():
        close(seen, of_hidden(START))


def test_an_explanation_within_an_explanation_keeps_its_own_marks():
    case, other = LIBRARIES["Linen"](), LIBRARIES["NNX"]()

    def f(x):
        (relevance,) = lrp.vjp(other, X, composite=LRP_0)[1](START)  # of constants
        return case(lrp.mark(x, "x") + 0 * jax.lax.stop_gradient(relevance))

    _, pullback = lrp.vjp(f, X, composite=LRP_0, watch=["hidden", "x"])
    close(pullback(START)[1]["hidden"], of_hidden(START))
