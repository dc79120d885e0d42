"""Become a program that the kernel kills when the thread that started it is gone, however it ends.

A program of its own, ``python bound_program.py PARENT PROGRAM [ARGUMENT …]``, and not a
``preexec_fn``: that runs in a fork of the test process, where gRPC's own fork handlers restart its
threads and may end the child before it becomes anything.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1


def bound(argv: Sequence[str]) -> list[str]:
    """The command that runs a program bound to the calling thread."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *argv]


def main() -> None:
    """Bind, then become the program."""
    parent, program = int(sys.argv[1]), sys.argv[2]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit("whoever started this is gone")
    try:
        os.execv(program, sys.argv[2:])  # noqa: S606 (what the caller asks for)
    except OSError as exc:
        sys.exit(f"{program}: {exc.strerror}")


if __name__ == "__main__":
    main()
