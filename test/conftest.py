"""Shared by every test."""

import hypothesis
import pytest
from _pytest.nodeid import coerce_node_id

# Imported before the first test: Hypothesis' plugin imports it lazily while a failure is being
# reported, deep in the stack, where CPython 3.11's parser may refuse the depth.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.load_profile("default")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Keep tests of one xdist group in one worker.

    xdist 3.8 marks a group in an attribute that pytest 9.2 does not read any more.
    """
    for item in items:
        grouped = getattr(item, "_nodeid", None)
        if grouped is not None:
            item._id = coerce_node_id(grouped)
