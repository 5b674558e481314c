"""`jxai.ops.convolution` under hostile input: the answer of `lax`, and an error where `lax` has one."""

import warnings

import numpy as np
import pytest
from jax import lax
from strategies import EFFORTS, Case, Spoilt, array, given_as, one_of, search, unheard_of

from jxai.ops import convolution

EXEMPT = {"with_fast_convolutions": "takes a function, whose convolutions it has looked at"}


def outcome(f, **given):
    """(answer, None), or (None, error)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, of overflow
        try:
            return f(**given), None
        except Exception as error:
            return None, error


def as_lax(**given):
    """The answer, compared with that of `lax`; an error where `lax` has one."""
    wanted, refusal = outcome(lax.conv_general_dilated, **given)
    found, own = outcome(convolution.convolution, **given)
    if refusal is not None:
        assert own is not None, "answered what lax refuses"
        raise ValueError(f"expected what lax takes, got {refusal}: give what lax takes") from own
    assert own is None, f"refused what lax answers: {own}"
    assert found.dtype == wanted.dtype
    numbers = [np.asarray(x, np.complex128) for x in (found, wanted, given["lhs"], given["rhs"])]
    if max(np.abs(x).max(initial=0) for x in numbers[2:]) < 1e30:  # beyond, the order of a sum decides
        scale = np.abs(numbers[1]).max(initial=1, where=np.isfinite(numbers[1]))
        np.testing.assert_allclose(*numbers[:2], rtol=0, atol=1e-2 * scale)
    return found


CASES = {
    "convolution": Case(
        as_lax,
        {
            "lhs": array("nhwc", strange=False),
            "rhs": array("231c", strange=False),
            "window_strides": one_of(
                (1, 1),
                (2, 1),
                bad=[Spoilt(v, refused=True) for v in ((0, 1), (-1, 1), (1,), (1.5, 1), None, "11")],
            ),
            "padding": one_of(
                "SAME",
                "VALID",
                ((1, 0), (0, 2)),
                bad=[
                    *(Spoilt(v, refused=True) for v in ("nonsense", ((1, 1),), None, 3, ((0.5, 0), (0, 0)))),
                    *map(Spoilt, ("same", ((-1, 0), (0, 0)), ((9, 9), (9, 9)), ((-9, 0), (0, 0)))),
                ],
            ),
            "feature_group_count": given_as(
                lambda size: size.c, *(Spoilt(v, refused=True) for v in (0, -1, 7, 1.5, None, "3"))
            ),
            "dimension_numbers": one_of(
                ("NHWC", "HWIO", "NHWC"),
                bad=[
                    *map(Spoilt, (("NCHW", "HWIO", "NHWC"), ("NHWC", "HWIO", "NCHW"), None)),
                    *(Spoilt(v, refused=True) for v in ("NHWC", (), ("NHWC", "HWIO"), 3)),
                ],
            ),
            "rhs_dilation": one_of(
                None, (1, 1), (2, 1), bad=[Spoilt(v, refused=True) for v in ((0, 1), (1,), "11")]
            ),
        },
        undefined="NaN and infinities give what `lax` makes of them",
    ),
}


@EFFORTS
@pytest.mark.parametrize("name", CASES)
def test_an_answer_or_a_clear_error(name, examples):
    search(name, CASES[name], examples)


def test_every_public_function_is_here():
    assert not unheard_of("ops.convolution", CASES, EXEMPT)
