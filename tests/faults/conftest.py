"""The command line's model and data, for faults that a shell user makes."""

from tests.cli.conftest import H, W_npy, X, model, x_npy

__all__ = ["H", "W_npy", "X", "model", "x_npy"]
