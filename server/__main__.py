"""`committee-server`, or `python -m server`."""

import sys

from server import cli


def main() -> None:
    sys.exit(cli.run(sys.argv[1:]))


if __name__ == "__main__":
    main()
