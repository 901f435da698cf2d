"""`python -m rlkit` is `rlkit`, which does not look for packages in the current folder first either."""

import sys

from rlkit.processes import search_path

sys.path[:] = search_path()

from rlkit.cli.main import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
