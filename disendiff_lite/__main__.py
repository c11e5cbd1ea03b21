"""python -m disendiff_lite {train,generate,score,report,sweep} --help"""

import sys

from disendiff_lite.cli.options import main

if __name__ == "__main__":
    sys.exit(main())
