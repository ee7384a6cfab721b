"""`python -m tools` lists the programs beside training."""

import sys
from pathlib import Path

from common import programs

if __name__ == "__main__":
    sys.exit(programs.run(Path(__file__).parent))
