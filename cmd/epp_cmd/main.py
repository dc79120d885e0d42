"""``epp``: parse the command line, set up logging, run."""


def main() -> int:
    """Run the command line and return the exit status."""
    return 0
