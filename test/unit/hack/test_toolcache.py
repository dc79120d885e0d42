import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

HACK = Path(__file__).resolve().parents[3] / "hack"


@pytest.fixture
def entry(tmp_path):
    return tmp_path / "cache" / "tool" / "1.0"


def filler(program, calls):
    def fill(draft):
        calls.append(draft)
        program(draft / "tool", "#!/bin/sh\n")

    return fill


@pytest.mark.parametrize(
    ("env", "want"),
    [
        pytest.param({"XDG_CACHE_HOME": "/x"}, Path("/x/endpoint-picker"), id="named"),
        pytest.param({}, Path.home() / ".cache/endpoint-picker", id="home"),
        pytest.param({"XDG_CACHE_HOME": ""}, Path.home() / ".cache/endpoint-picker", id="empty"),
        pytest.param(
            {"XDG_CACHE_HOME": "x"}, Path.home() / ".cache/endpoint-picker", id="relative"
        ),
    ],
)
def test_the_cache_is_outside_the_tree(toolcache, env, want):
    assert toolcache.cache_directory(env) == want


def test_an_entry_is_filled_once(toolcache, program, entry):
    calls: list[Path] = []

    for _ in range(2):
        found = toolcache.cached(entry, ["tool"], filler(program, calls))
        assert found == entry

    assert len(calls) == 1
    assert os.access(entry / "tool", os.X_OK)


def test_an_entry_appears_only_when_it_is_complete(toolcache, program, entry):
    def fill(draft):
        program(draft / "tool", "")
        assert not entry.exists()

    toolcache.cached(entry, ["tool"], fill)

    assert [path.name for path in entry.parent.iterdir() if path.is_dir()] == ["1.0"]


def test_a_failure_leaves_nothing_and_can_be_tried_again(toolcache, program, entry):
    def fail(draft):
        program(draft / "tool", "")
        raise toolcache.ToolError("no")

    with pytest.raises(toolcache.ToolError, match="no"):
        toolcache.cached(entry, ["tool"], fail)

    assert [path for path in entry.parent.iterdir() if path.is_dir()] == []
    assert toolcache.cached(entry, ["tool"], filler(program, [])) == entry


def test_what_lacks_a_program_is_no_entry(toolcache, program, entry):
    with pytest.raises(toolcache.ToolError, match="other is missing"):
        toolcache.cached(entry, ["tool", "other"], filler(program, []))

    assert not entry.exists()


def test_leftovers_of_a_killed_run_are_removed(toolcache, program, entry):
    left_over = entry.parent / ".1.0.abc.partial"
    program(left_over / "tool", "")

    toolcache.cached(entry, ["tool"], filler(program, []))

    assert not left_over.exists()


def test_an_incomplete_entry_is_filled_again(toolcache, program, entry):
    entry.mkdir(parents=True)
    (entry / "half").write_text("")

    toolcache.cached(entry, ["tool"], filler(program, []))

    assert [path.name for path in entry.iterdir()] == ["tool"]


def test_runs_at_the_same_time_fill_it_once(toolcache, program, entry, capsys):
    calls: list[Path] = []
    entered, go_on = threading.Event(), threading.Event()

    def slow(draft):
        entered.set()
        assert go_on.wait(10)
        filler(program, calls)(draft)

    first = threading.Thread(target=toolcache.cached, args=(entry, ["tool"], slow))
    first.start()
    assert entered.wait(10)
    second = threading.Thread(
        target=toolcache.cached, args=(entry, ["tool"], filler(program, calls))
    )
    second.start()
    deadline = time.monotonic() + 10
    seen = ""
    while "another run fills" not in seen and time.monotonic() < deadline:
        time.sleep(0.01)
        seen += capsys.readouterr().err
    go_on.set()
    first.join(10)
    second.join(10)

    assert "another run fills" in seen
    assert len(calls) == 1


def test_the_lock_of_a_dead_run_is_free(toolcache, program, entry):
    entry.parent.mkdir(parents=True)
    lock = entry.with_name("1.0.lock")
    code = f"import fcntl, os; f = open({str(lock)!r}, 'w'); fcntl.flock(f, 2); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code], check=False)

    assert toolcache.cached(entry, ["tool"], filler(program, [])) == entry
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_step_says_what_it_does_and_how_long_it_took(toolcache, capsys):
    toolcache.run("Making tea", ["true"])

    first, last = capsys.readouterr().err.splitlines()
    assert first == "Making tea ..."
    assert last.startswith("Making tea: done in ")


def test_a_long_step_shows_progress(toolcache, monkeypatch, capsys):
    monkeypatch.setattr(toolcache, "PROGRESS_SECONDS", 0.05)

    toolcache.run("Making tea", ["sh", "-c", "echo boiling; echo steeping; sleep 0.5"])

    said = capsys.readouterr().err
    assert "2 steps, latest steeping" in said


def test_a_failed_step_shows_the_end_of_its_output(toolcache):
    with pytest.raises(toolcache.ToolError) as caught:
        toolcache.run("Making tea", ["sh", "-c", "seq 100; echo no water >&2; exit 3"])

    lines = str(caught.value).splitlines()
    assert lines[0] == "Making tea failed with status 3:"
    assert lines[-1].strip() == "no water"
    assert len(lines) == 31


def test_go_of_the_machine_is_taken(toolcache, go, env):
    assert toolcache.find_go((1, 25), env) == Path(go.path) / "go"


@pytest.mark.parametrize("version", ["go1.24.13", "devel"])
def test_too_old_a_go_is_not_taken(toolcache, go, env, version, program):
    go.install(version=version)
    entry = toolcache.cache_directory(env) / "go"
    name = f"{toolcache.GO_PACKAGE.replace('==', '-')}-{toolcache.platform_name()}"
    program(entry / name / "go" / "bin" / "go", "")

    assert toolcache.find_go((1, 25), env) == entry / name / "go" / "bin" / "go"


def test_a_script_prints_its_answer_alone_on_standard_output(toolcache, capsys):
    def main(_):
        toolcache.say("working")
        return Path("/found")

    status = toolcache.answer(main)

    assert (status, *capsys.readouterr()) == (0, "/found\n", "working\n")


def test_a_script_that_fails_says_why(toolcache, capsys):
    def main(_):
        raise toolcache.ToolError("no tool; set TOOL")

    status = toolcache.answer(main)

    assert (status, *capsys.readouterr()) == (1, "", "error: no tool; set TOOL\n")


def test_a_terminated_script_leaves_nothing(tmp_path, program):
    code = (
        f"import sys; sys.path.insert(0, {str(HACK)!r})\n"
        "import toolcache\nfrom pathlib import Path\n"
        f"fill = lambda d: toolcache.run('Sleeping', ['sleep', '60'])\n"
        f"entry = Path({str(tmp_path)!r}) / 'tool' / '1'\n"
        "sys.exit(toolcache.answer(lambda env: toolcache.cached(entry, ['tool'], fill)))\n"
    )
    script = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert script.stderr is not None
    assert script.stderr.readline() == "Sleeping ...\n"

    script.terminate()

    assert script.wait(10) == 143
    script.stderr.close()
    assert [path.name for path in (tmp_path / "tool").iterdir()] == ["1.lock"]
