"""`python -m sdekit_generative`, and the `sdekit-generative` command."""

import signal
import sys

from .cli import main as _main


def main() -> None:
    """Run the command line and exit with its status; outside of training SIGTERM has nothing to save, and gives 0."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    sys.exit(_main())


if __name__ == "__main__":
    main()
