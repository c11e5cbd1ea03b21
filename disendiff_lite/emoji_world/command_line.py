"""How the emoji world's own commands end: bad input is one sentence on stderr and exit status 2, as in the main command line."""

import sys
from collections.abc import Callable

from disendiff_lite.errors import UserError


def run_main(main: Callable[[], None]) -> None:
    """Run a module's `main`; after a UserError, print its sentence and exit with status 2."""
    try:
        main()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
