"""Out-of-core, streaming, resumable non-negative matrix factorization."""

__version__ = "0.1.0"
