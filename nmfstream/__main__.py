"""``python -m nmfstream``: the command line."""

from nmfstream.cli.entry import run

if __name__ == "__main__":
    run()
