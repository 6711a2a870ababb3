"""Shared code of the encoding benchmarks: contestants in interleaved rounds, and documents of one length."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from muvera_core import TokenBatch


def rounds(contestants: dict[str, Callable[[], Any]], repeat: int) -> dict[str, float]:
    """Median over rounds of a contestant's seconds per call; in each round it is called for a tenth of a second."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for i in range(repeat + 1):
        for name, call in contestants.items():
            calls, start = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - start) < 0.1:
                call()
                calls += 1
            if i:  # the first round warms up
                times[name].append(elapsed / calls)
    return {name: float(np.median(t)) for name, t in times.items()}


def documents(tokens: Any, length: int, count: int) -> TokenBatch:
    """``count`` documents of ``length`` consecutive tokens, round and round the sample."""
    values = tokens[np.arange(count * length) % len(tokens)]
    return TokenBatch(values, np.arange(count + 1) * length)
