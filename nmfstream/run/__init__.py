"""Drivers: from stores through the engine to stores."""
