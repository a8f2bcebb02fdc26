"""Other packages: each module here imports its own when it is installed.

`logging` configures what the library logs by itself; `structlog` sends that to structlog.
`opentelemetry` reports calls as spans and metrics, `prometheus` the same figures to be scraped.
"""
