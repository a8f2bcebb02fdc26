"""Real clients of databases that fail: Valkey and PostgreSQL as they are, and a MongoDB of a few
lines.

Each module has `FAULTS`, functions that make its client raise, and `serving()`, the server that
they are given; `expected/<module>.csv` has what each error is to be read as.
"""
