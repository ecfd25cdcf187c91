"""The examples in docstrings."""

import doctest
import importlib
import pkgutil

import pytest

import jaxstyle

MODULES = [
    module.name
    for module in pkgutil.walk_packages(jaxstyle.__path__, "jaxstyle.")
    if module.name != "jaxstyle.__main__"
]


@pytest.fixture(scope="module")
def examples():
    """Return the examples of each module that has some."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = {}
    for name in MODULES:
        tests = [t for t in finder.find(importlib.import_module(name), name) if t.examples]
        if tests:
            found[name] = tests
    return found


def test_examples(examples):
    assert len(examples) > 10
    runner = doctest.DocTestRunner()
    for tests in examples.values():
        for test in tests:
            runner.run(test)
    results = runner.summarize(verbose=False)
    assert results.attempted > 30
    assert results.failed == 0
