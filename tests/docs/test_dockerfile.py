"""What examples/Dockerfile copies is there, and its compiling step leaves nothing to compile; Docker is not needed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "examples" / "Dockerfile").read_text()

APPLICATION = """
import numpy as np
from muvera_core import FDEConfig, FDEEncoder, maxsim

encoder = FDEEncoder(FDEConfig(dim=128))
documents = [np.random.default_rng(n).normal(size=(n, 128)).astype(np.float32) for n in range(3, 30)]
assert encoder.encode_documents(documents).shape == (27, 2560)
assert encoder.encode_query(documents[0]).shape == (2560,)
maxsim(documents[0], documents)
"""


def compiled(cache):
    """Files of compiled kernels, with the time when they were written."""
    return {str(file): file.stat().st_mtime_ns for file in cache.rglob("*.nb*")}


def test_what_is_copied_is_there():
    copied = [name for line in re.findall(r"^COPY (.*)$", TEXT, re.MULTILINE) for name in line.split()[:-1]]
    assert "muvera_core" in copied
    assert not [name for name in copied if not (ROOT / name).exists()]


def test_precompiled_image_compiles_nothing_more(tmp_path):
    (variable, cache) = re.search(r"^ENV (\w+)=(\S+)$", TEXT, re.MULTILINE).groups()
    (script,) = re.findall(r"^RUN python /app/(\S+) && chmod -R a\+rwX (?:\S+)$", TEXT, re.MULTILINE)
    assert f"chmod -R a+rwX {cache}" in TEXT
    environment = {**os.environ, variable: str(tmp_path), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, ROOT / "examples" / script], env=environment, check=True, timeout=600)
    before = compiled(tmp_path)
    assert before
    subprocess.run([sys.executable, "-c", APPLICATION], env=environment, check=True, timeout=600)
    assert compiled(tmp_path) == before
