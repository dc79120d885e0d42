"""A program that does not outlive whoever started it."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from epp.testing.bound_program import bound
from epp.testing.stack import eventually

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part is Linux's")

STARTER = """
import subprocess, sys, time
from epp.testing.bound_program import bound
process = subprocess.Popen(bound(["/bin/sleep", "60"]))
print(process.pid, flush=True)
time.sleep(60)
"""


def test_it_becomes_the_program_under_the_same_process_id():
    with subprocess.Popen(bound(["/bin/sh", "-c", "echo $$ $0"]), stdout=subprocess.PIPE) as made:
        said, _ = made.communicate()

    assert said.decode().split() == [str(made.pid), "/bin/sh"]


def test_a_program_that_is_not_there_is_named():
    done = subprocess.run(bound(["/no/such/program"]), capture_output=True, text=True)

    assert done.returncode == 1
    assert done.stderr == "/no/such/program: No such file or directory\n"


@LINUX
async def test_it_is_gone_with_its_starter():
    argv = [sys.executable, "-c", STARTER]
    starter = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE)
    assert starter.stdout is not None
    child = int(await starter.stdout.readline())
    assert is_running(child)

    starter.send_signal(signal.SIGKILL)
    await starter.wait()

    await eventually(lambda: not is_running(child), what="the program to be gone")


@LINUX
def test_whose_starter_is_gone_already_does_not_start():
    argv = bound(["/bin/echo", "started"])
    argv[argv.index(str(os.getpid()))] = "1"

    done = subprocess.run(argv, capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (1, "")


def is_running(process_id):
    try:
        stat = Path(f"/proc/{process_id}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
