"""The command ``mailtwist``: it works on the store directly, beside a running server too."""


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed (one line on stderr), 2 wrong usage."""
    from mailtwist.cli.app import run

    run()


def send_test() -> None:
    """The program ``mailtwist-send-test``: the command send-test by itself."""
    from mailtwist.cli.app import alone, run

    run(command=alone("send-test"), name="mailtwist-send-test")
