"""List the programs: `python -m tools`."""

import sys
from pathlib import Path

from common import programs

if __name__ == "__main__":
    sys.exit(programs.run(Path(__file__).parent))
