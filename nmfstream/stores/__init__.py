"""Readers and writers, one file a format. Knows no mathematics."""
