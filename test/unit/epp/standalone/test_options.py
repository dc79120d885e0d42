"""Flags of ``epp standalone``."""

import argparse
from pathlib import Path

import pytest

from epp.errors import ConfigError
from epp.standalone.options import StandaloneOptions, add_arguments, flag_names, options_from


def parse(*arguments: str) -> StandaloneOptions:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_arguments(parser)
    namespace, rest = parser.parse_known_args(arguments)
    return options_from(namespace, rest)


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        pytest.param(["--demo"], StandaloneOptions(demo=True), id="demo"),
        pytest.param(["--demo", "--once"], StandaloneOptions(demo=True, once=True), id="once"),
        pytest.param(
            ["--manifests", "/", "--path", "gateway", "--no-envoy"],
            StandaloneOptions(manifests=Path("/"), path="gateway", envoy=False),
            id="manifests-gateway-no-envoy",
        ),
        pytest.param(
            ["--endpoint", "10.0.0.1:8000", "--endpoint", "[::1]:8000", "--port", "0"],
            StandaloneOptions(endpoints=("10.0.0.1:8000", "[::1]:8000"), port=0),
            id="endpoints",
        ),
        pytest.param(
            ["--demo", "--unknown-model=reject", "-poolName", "x"],
            StandaloneOptions(demo=True, serve_args=("--unknown-model=reject", "-poolName", "x")),
            id="the-rest-is-for-serve",
        ),
    ],
)
def test_flags_become_options(arguments, want):
    assert parse(*arguments) == want


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        pytest.param([], "say what to run: --demo, --manifests DIR or --endpoint", id="nothing"),
        pytest.param(["--demo", "--manifests", "d"], "--demo --manifests", id="two-sources"),
        pytest.param(["--manifests", "d", "--once"], "--once: needs --demo", id="once-alone"),
        pytest.param(["--demo", "--drain-seconds=-1"], "--drain-seconds", id="negative-drain"),
        pytest.param(["--demo", "--drain-seconds=inf"], "--drain-seconds", id="endless-drain"),
        pytest.param(
            ["--demo", "--once", "--no-envoy"],
            r"--once: needs Envoy.*\(got '--no-envoy'\)",
            id="once-without-envoy",
        ),
        pytest.param(
            ["--demo", "--host", "localhost"],
            r"--host: must be an IP address.*\(got 'localhost'\)",
            id="host-name",
        ),
        pytest.param(
            ["--manifests", "/nowhere"],
            r"--manifests: no such directory \(got '/nowhere'\)",
            id="no-directory",
        ),
        pytest.param(["--manifests", "/dev/null"], "--manifests: is no directory", id="a-file"),
    ],
)
def test_contradictions_are_errors_that_name_the_flags(arguments, text):
    with pytest.raises(ConfigError, match=text):
        parse(*arguments)


def test_the_names_of_all_flags_are_known():
    assert {"--demo", "--no-envoy", "--drain-seconds", "--path"} <= set(flag_names())
