"""Chunks bound what is in flight, and change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai.batches.chunks import map_chunks, rows_in_flight


@pytest.mark.parametrize(
    ("num_rows", "chunk_size", "widest"),
    [(7, 3, 2), (7, 100, 7), (7, 1, 1), (17, 16, 9), (100, 16, 10), (50, 16, 10)],
)
def test_every_row_once_in_even_chunks(num_rows, chunk_size, widest):
    widths = []

    def function(rows):
        widths.append(len(rows))
        return {"square": rows**2, "pair": jnp.stack([rows, -rows], axis=1)}

    result = map_chunks(function, num_rows, chunk_size)
    assert set(widths) == {widest}
    np.testing.assert_array_equal(result["square"], np.arange(num_rows) ** 2)
    np.testing.assert_array_equal(result["pair"], np.arange(num_rows)[:, None] * [1, -1])


def test_the_default_goes_by_size_and_backend(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert rows_in_flight(jnp.zeros((1, 224, 224, 3)), None) == 16
    assert rows_in_flight(jnp.zeros((1, 4_000_000)), None) == 1
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert rows_in_flight(jnp.zeros((1, 224, 224, 3)), None) == 256
    assert rows_in_flight(jnp.zeros((1, 2)), 7) == 7


@pytest.mark.parametrize(("num_rows", "chunk_size"), [(0, 1), (1, 0)])
def test_counts_below_one(num_rows, chunk_size):
    with pytest.raises(ValueError, match="at least 1"):
        map_chunks(lambda rows: rows, num_rows, chunk_size)
