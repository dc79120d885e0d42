"""Images of the manifests, as programs of this machine."""

import sys

import pytest

from epp.standalone.plan import find_envoy
from epp.testing.pod_images import UnknownImageError, local_command

ADDRESS = "127.1.2.3"
OURS = "endpoint-picker:0.1.0"
ENVOY = "envoyproxy/envoy:distroless-v1.40.0"


@pytest.mark.parametrize(
    ("image", "words", "want"),
    [
        pytest.param(
            OURS,
            ["epp", "serve", "--pool-name", "p"],
            [sys.executable, "-m", "epp", "serve", "--pool-name", "p", f"--bind-address={ADDRESS}"],
            id="serve-is-told-its-address",
        ),
        pytest.param(
            OURS,
            ["epp", "modelsim", "-x"],
            [sys.executable, "-m", "epp", "modelsim", "-x"],
            id="sim",
        ),
        pytest.param(OURS, ["python", "-c", "1"], [sys.executable, "-c", "1"], id="python"),
    ],
)
def test_a_command_becomes_one_of_this_machine(image, words, want):
    assert local_command(image, words, address=ADDRESS) == want


@pytest.mark.envoy
def test_envoy_is_the_packaged_one():
    words = ["/usr/local/bin/envoy", "--version"]

    assert local_command(ENVOY, words, address=ADDRESS) == [find_envoy(None), "--version"]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        pytest.param("nginx:1", ["nginx"], id="image"),
        pytest.param(OURS, ["bash"], id="command"),
        pytest.param(OURS, [], id="no-command"),
    ],
)
def test_what_is_not_there_is_named(image, words):
    with pytest.raises(UnknownImageError, match=image):
        local_command(image, words, address=ADDRESS)
