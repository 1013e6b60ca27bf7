"""The examples in the docstrings of the method say what the code says."""

import doctest

import pytest

from patsim_utils.method import features, losses, ordinal
from patsim_utils.method.weights import adapters


@pytest.mark.parametrize("module", [ordinal, losses, features, adapters], ids=lambda module: module.__name__)
def test_examples(module) -> None:
    names = {"torch": __import__("torch")}
    result = doctest.testmod(module, extraglobs=names)
    assert result.attempted > 0
    assert result.failed == 0
