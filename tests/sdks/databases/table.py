"""Write a client's table anew from what it raises, to be read by a person before it is kept.

python tests/sdks/databases/table.py psycopg
"""

from __future__ import annotations

import csv
import importlib
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[0] = str(HERE.parent)  # not this folder: its modules have the names of clients
sys.path.insert(1, str(HERE.parents[1]))


def main(name: str) -> None:
    from databases import postgres
    from test_sdk_databases import COLUMNS, EXPECTED, told

    module = importlib.import_module(f"databases.{name}")
    try:
        with (
            module.serving() as server,
            (EXPECTED / f"{name}.csv").open("w", newline="", encoding="utf-8") as file,
        ):
            table = csv.DictWriter(file, ["fault", "error", *COLUMNS], lineterminator="\n")
            table.writeheader()
            for fault, way in module.FAULTS.items():
                try:
                    way(server)
                except Exception as error:
                    table.writerow({"fault": fault, **told(error)})
                else:
                    raise AssertionError(f"{fault}: nothing was raised")
    finally:
        postgres.close_shared()


if __name__ == "__main__":
    main(*sys.argv[1:])
