"""Write an SDK's table anew from what its client raises, to be read by a person before it is kept.

python tests/providers/table.py openai
"""

from __future__ import annotations

import csv
import importlib
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # not this folder: its modules have the names of SDKs


def main(name: str) -> None:
    from providers.faults import FAULTS
    from providers.server import serving
    from test_providers import COLUMNS, EXPECTED, told

    module = importlib.import_module(f"providers.{name}")
    with serving(module) as server, (EXPECTED / f"{name}.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["fault", "error", *COLUMNS], lineterminator="\n")
        table.writeheader()
        for fault in FAULTS:
            try:
                result = module.fail(server.url(fault), streaming=fault.how == "stream")
            except Exception as error:
                table.writerow({"fault": fault.name, **told(error)})
            else:
                table.writerow({"fault": fault.name, "error": f"({type(result).__name__})"})


if __name__ == "__main__":
    main(sys.argv[1])
