"""Compiled inner loops of the stores, called through `nmfstream.machine_code`."""
