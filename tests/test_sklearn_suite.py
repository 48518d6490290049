"""scikit-learn's own tests of its MiniBatchNMF, with this package's class in its place."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable
from unittest import mock

import sklearn.decomposition

from nmfstream import MiniBatchNMF


def _their_tests() -> dict[str, Callable[..., None]]:
    """The functions of scikit-learn's module that name the class, made with ours under that name."""
    spec = importlib.util.find_spec("sklearn.decomposition.tests.test_nmf")
    module = importlib.util.module_from_spec(spec)
    with mock.patch.object(sklearn.decomposition, "MiniBatchNMF", MiniBatchNMF):
        spec.loader.exec_module(module)
    assert module.MiniBatchNMF is MiniBatchNMF
    tests = {name: value for name, value in vars(module).items() if name.startswith("test_")}
    return {name: test for name, test in tests.items() if "MiniBatchNMF" in inspect.getsource(test)}


globals().update(_their_tests())


def test_the_suite_is_there() -> None:
    """An empty collection must not pass in silence."""
    assert len(_their_tests()) >= 18
