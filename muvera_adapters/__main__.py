"""``python -m muvera_adapters`` is the command ``muvera``."""

from muvera_adapters.cli import app

if __name__ == "__main__":
    app()
