"""Fixtures of all tests."""

from __future__ import annotations

import numpy as np
import pytest

DTYPES = (np.float32, np.float64)


@pytest.fixture(params=DTYPES, ids=lambda dtype: dtype.__name__)
def dtype(request):
    return request.param


@pytest.fixture(params=["float16", "bfloat16"])
def half(request):
    return np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if request.param == "bfloat16" else np.float16)


@pytest.fixture
def rng():
    return np.random.default_rng(20180927)
