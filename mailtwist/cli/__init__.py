"""The command ``mailtwist``: it works on the store directly, beside a running server too."""


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed (one line on stderr), 2 wrong usage."""
    from mailtwist.cli.app import run

    run()
