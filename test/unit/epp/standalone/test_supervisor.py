"""The supervisor: what it says when a child does not come up, and what it watches."""

import sys
from dataclasses import replace

import pytest

from epp.errors import ConfigError, TransportError
from epp.standalone.child import ChildSpec
from epp.standalone.options import StandaloneOptions
from epp.standalone.plan import make_plan
from epp.standalone.serve_flags import ServeFlags
from epp.standalone.supervisor import Supervisor


@pytest.fixture
def supervisor_of(tmp_path):
    """A supervisor whose EPP is a Python program that never is ready."""

    async def never(_pid: int) -> bool:
        return False

    def make(program: str, name: str = "epp") -> Supervisor:
        options = StandaloneOptions(endpoints=("10.0.0.1:8000",), envoy=False)
        plan = make_plan(options, ServeFlags(), tmp_path)
        argv = [sys.executable, "-c", program]
        spec = ChildSpec(name=name, argv=argv, log_path=tmp_path / "log", is_ready=never)
        parts = {"epp": spec} if name == "epp" else {"pods": [spec]}
        return Supervisor(plan=replace(plan, **parts), drain_seconds=0)

    return make


def ending(status: int, *lines: str) -> str:
    return f"print({chr(10).join(lines)!r}); raise SystemExit({status})"


@pytest.mark.parametrize(
    ("program", "kind", "text"),
    [
        pytest.param(
            ending(2, '{"event": "begins"}', "epp: --manifests: no pool"),
            ConfigError,
            "--manifests: no pool",
            id="refused-its-input",
        ),
        pytest.param(
            ending(1, "epp: cannot listen on 127.0.0.1:9002"),
            TransportError,
            "cannot listen on 127.0.0.1:9002",
            id="port-taken",
        ),
        pytest.param(
            ending(1, '{"event": "out of luck", "level": "error", "number": 7}'),
            TransportError,
            "error: out of luck number=7",
            id="last-line-is-a-log-line",
        ),
        pytest.param(
            ending(3, '{"event": "a"}', "Segmentation fault"),
            TransportError,
            "epp ended while starting; the last it said:\n    epp: a\n    epp: Segmentation fault",
            id="crashed",
        ),
        pytest.param(
            ending(2),
            TransportError,
            "epp ended while starting; the last it said:\n    (it printed nothing)",
            id="said-nothing",
        ),
    ],
)
async def test_a_child_that_refuses_to_start_is_quoted(supervisor_of, program, kind, text):
    supervisor = supervisor_of(program)

    with pytest.raises(kind) as caught:
        await supervisor.start()
    await supervisor.stop()

    assert str(caught.value) == text


async def test_a_pod_that_cannot_start_is_named(supervisor_of):
    supervisor = supervisor_of(ending(1, "epp: cannot listen on 127.0.1.2:8000"), name="pod sim-2")

    with pytest.raises(TransportError, match="^pod sim-2: cannot listen on 127.0.1.2:8000$"):
        await supervisor.start()
    await supervisor.stop()
