"""The library beside others: each module here imports its package when it is asked to.

`logging` configures what the library logs by itself; `structlog` says the same there.
`opentelemetry` reports calls as spans and metrics, `prometheus` the same figures to be scraped.
"""
