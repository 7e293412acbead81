"""`python -m sdekit_generative`, and the `sdekit-generative` command."""

import sys

from .cli import main as _main


def main() -> None:
    """Run the command line and exit with its status."""
    sys.exit(_main())


if __name__ == "__main__":
    main()
