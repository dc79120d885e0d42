"""A supervised child: ready, restarted, stopped, and deaf to the terminal's Ctrl-C."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from epp.errors import TransportError
from epp.standalone.child import Child, ChildFailedError, ChildSpec


def spec(tmp_path: Path, program: str, **changes) -> ChildSpec:
    settings = {"stop_seconds": 2.0, "ready_seconds": 10.0, **changes}
    return ChildSpec(
        name="c",
        argv=[sys.executable, "-u", "-c", program],
        log_path=tmp_path / "c.log",
        **settings,
    )


async def until(condition, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


FOREVER = "import time\nprint('up')\nwhile True: time.sleep(60)"


async def test_it_runs_in_a_session_of_its_own(tmp_path):
    child = Child(spec(tmp_path, FOREVER))

    await child.start()

    assert child.pid is not None
    assert os.getsid(child.pid) == child.pid
    await child.stop()


async def test_a_killed_child_comes_back_with_a_new_process(tmp_path):
    child = Child(spec(tmp_path, FOREVER))
    await child.start()
    first = child.pid
    assert first is not None

    os.kill(first, signal.SIGKILL)
    await until(lambda: child.pid not in {None, first})

    assert child.restarts == 1
    await child.stop()
    assert child.pid is None


async def test_what_it_prints_is_kept_logged_and_passed_on(tmp_path):
    lines: list[str] = []
    child = Child(spec(tmp_path, FOREVER, on_line=lines.append))

    await child.start()
    await until(lambda: lines == ["up"])

    assert list(child.last_lines) == ["up"]
    assert (tmp_path / "c.log").read_text() == "up\n"
    await child.stop()


async def test_a_child_that_dies_while_starting_is_an_error_with_its_last_words(tmp_path):
    async def never(_pid: int) -> bool:
        return False

    child = Child(spec(tmp_path, "print('bad flag'); raise SystemExit(2)", is_ready=never))

    with pytest.raises(ChildFailedError, match="bad flag") as caught:
        await child.start()

    await child.stop()
    assert child.pid is None
    assert (caught.value.name, caught.value.status) == ("c", 2)
    assert caught.value.lines == ("bad flag",)


async def test_the_last_words_are_all_there_however_slowly_they_are_read(tmp_path):
    """The process is gone long before its output is read: the error waits for the output."""

    async def never(_pid: int) -> bool:
        return False

    words = "import sys\nfor n in range(20000): print('word', n)\nsys.exit(3)"
    child = Child(spec(tmp_path, words, is_ready=never, on_line=lambda _: time.sleep(1e-5)))

    with pytest.raises(ChildFailedError) as caught:
        await child.start()

    assert caught.value.lines[-1] == "word 19999"
    await child.stop()


async def test_a_child_that_never_was_ready_is_not_restarted(tmp_path):
    async def never(_pid: int) -> bool:
        return False

    child = Child(spec(tmp_path, "raise SystemExit(2)", is_ready=never))

    with capture_logs() as logs, pytest.raises(ChildFailedError):
        await child.start()
    await child.stop()

    assert child.restarts == 0
    assert logs == []


async def test_a_child_that_is_never_ready_is_an_error_that_says_so(tmp_path):
    async def never(_pid: int) -> bool:
        return False

    child = Child(spec(tmp_path, FOREVER, is_ready=never, ready_seconds=0.2))

    with pytest.raises(TransportError, match=r"not ready within 0\.2 s"):
        await child.start()

    await child.stop()


async def test_a_child_that_ignores_the_polite_signal_is_killed(tmp_path):
    stubborn = "import signal,time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up')\nwhile True: time.sleep(60)"
    lines: list[str] = []
    child = Child(spec(tmp_path, stubborn, stop_seconds=0.2, on_line=lines.append))
    await child.start()
    await until(lambda: bool(lines))

    await child.stop()

    assert child.process is not None
    assert child.process.returncode == -signal.SIGKILL


async def test_stopping_twice_is_harmless_and_never_restarts(tmp_path):
    child = Child(spec(tmp_path, FOREVER))
    await child.start()

    await child.stop()
    await child.stop()

    assert child.restarts == 0


async def test_a_line_longer_than_the_buffer_does_not_stop_the_supervision(tmp_path):
    long_line = f"print('x' * {3 << 20})\n" + FOREVER
    child = Child(spec(tmp_path, long_line))
    await child.start()

    await until(lambda: "up" in child.last_lines)

    await child.stop()
