"""Shared by every test."""

import hypothesis

# Imported before the first test: Hypothesis' plugin imports it lazily while a failure is being
# reported, deep in the stack, where CPython 3.11's parser may refuse the depth.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.load_profile("default")
