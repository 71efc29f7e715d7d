"""Draw a run's picture again from its results.json: python benchmarks/picture.py RUN_FOLDER OUT.png"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ra3kit.reports.ra3 import picture

if __name__ == "__main__":
    run, out = Path(sys.argv[1]), Path(sys.argv[2])
    picture(json.loads((run / "results.json").read_text()), out)
    print(f"drew {out} from {run / 'results.json'}")
