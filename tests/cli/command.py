"""Runs ``muvera`` in a process of its own."""

import subprocess
import sys

MUVERA = [sys.executable, "-c", "from muvera_adapters.cli import app; app()"]


def run(*arguments, cwd=None):
    return subprocess.run([*MUVERA, *arguments], capture_output=True, text=True, cwd=cwd, check=False)
