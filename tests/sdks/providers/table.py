"""Write an SDK's table anew from what its client raises, to be read by a person before it is kept.

python tests/sdks/providers/table.py openai
python tests/sdks/providers/table.py litellm 1.106    # only what is other with this version
"""

from __future__ import annotations

import csv
import importlib
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # not this folder: its modules have the names of SDKs


def main(name: str, version: str = "") -> None:
    from providers.faults import FAULTS
    from providers.server import serving
    from test_providers import COLUMNS, EXPECTED, rows, told

    module = importlib.import_module(f"providers.{name}")
    columns = ["fault", "error", *COLUMNS]
    common = rows(EXPECTED / f"{name}.csv") if version else {}
    path = EXPECTED / (f"{name}-{version}.csv" if version else f"{name}.csv")
    with serving(module) as server, path.open("w", newline="") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        for fault in FAULTS:
            row = dict.fromkeys(columns, "")
            try:
                result = module.fail(server.url(fault), streaming=fault.how == "stream")
            except Exception as error:
                row |= {"fault": fault.name, **told(error)}
            else:
                row |= {"fault": fault.name, "error": f"({type(result).__name__})"}
            if row != common.get(fault.name):
                table.writerow(row)


if __name__ == "__main__":
    main(*sys.argv[1:])
