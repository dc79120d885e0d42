"""``make bench``: every benchmark, one after another. ``--quick`` for a short run."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BENCHES = (
    "bench_decide.py",
    "bench_exchange.py",
    "bench_scrape.py",
    "bench_request.py",
    "bench_memory.py",
    "bench_transport.py",
    "bench_informer.py",
    "bench_churn.py",
)


def main() -> int:
    """Run them all; the exit status is the worst one."""
    worst = 0
    for bench in BENCHES:
        sys.stdout.write(f"\n== {bench} {' '.join(sys.argv[1:])}\n")
        sys.stdout.flush()
        done = subprocess.run([sys.executable, str(HERE / bench), *sys.argv[1:]], check=False)  # noqa: S603
        worst = max(worst, done.returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main())
