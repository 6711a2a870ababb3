"""Feeds mutated index files to the readers of PLAID-family indexes.

python -m stress.index_files --mutants 1000000 --seed 1 --workers 2 --out findings

Starts from the indexes of tests/data/plaid. Most mutants are read only by the reader of their file; for one in twelve,
the whole index is opened and documents are read. Mutants that reach new lines, or are rejected at a new line, are
mutated further. The expected results are documents or an error of this library. Everything else is a finding: another
exception, a warning of another kind, a crash, a hang, memory over the limit, and any import, written file or process.
Findings are kept in --out, with the files that show them.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import gzip
import importlib
import itertools
import json
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from types import CodeType, FrameType
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import MuveraError
from muvera_adapters.plaid import IndexWarning, chunks, open_index
from muvera_adapters.plaid.files import read_json, read_lengths
from muvera_adapters.plaid.metadata_db import open_metadata
from muvera_adapters.plaid.numpy_file import load_array, load_object_array
from muvera_adapters.plaid.pickles import load_plain
from muvera_adapters.plaid.text_files import IdFile, JsonStrings, TextFile
from muvera_adapters.plaid.torch_file import load_lists, load_tensors
from stress.mutations import mutate

DATA = Path(__file__).parents[1] / "tests" / "data" / "plaid"
READERS = str(Path(chunks.__file__).parent)

# a mutant that a file's reader sees alone costs a tenth of one that goes through the whole index
_WHOLE = 1 / 12
_TRACED = 0.02
_POOL = 3_000
_UNICODE = [f"utf_{bits}{order}" for bits in (16, 32) for order in ("", "_be", "_le")]
_SLOW_SECONDS = 2.0
_SAME_KIND = 3
_WAIT = 30

Files = dict[str, bytes]


def bases(scratch: Path) -> dict[str, Files]:
    """Name -> files of every index to start from."""
    found = {}
    for index in sorted(DATA.glob("*/index")):
        inner = index / "colbert" if (index / "colbert").is_dir() else index
        found[index.parent.name] = _files(inner)
    first = found["stanford_nbits2"]
    open_index(_written(scratch / "first", first))
    n = len(load_tensors(scratch / "first" / "centroids.pt"))
    ids = gzip.compress(pickle.dumps([str(i) for i in range(n)], 4), 1)
    found["colbert_v1"] = {
        "0.pt": first["centroids.pt"], "doclens.0.json": json.dumps([1] * n).encode(), "docnos.pkl.gz": ids,
    }  # fmt: skip
    found["stanford_old"] = first | {"centroids.pt": _old_torch(load_tensors(scratch / "first" / "centroids.pt"))}
    return found


def _old_torch(values: npt.NDArray[Any]) -> bytes:
    """What torch.save wrote before 1.6, for a matrix of float16 or float32."""

    def plain(value: Any) -> bytes:
        return pickle.dumps(value, 2)[2:-1]

    head = b"".join(pickle.dumps(each, 2) for each in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    kind = {"f2": b"Half", "f4": b"Float"}[values.dtype.str[1:]]
    storage = (
        plain("storage") + b"ctorch\n" + kind + b"Storage\n" + plain("0") + plain("cpu") + plain(values.size) + b"N"
    )
    view = plain(0) + plain(values.shape) + plain((values.shape[1], 1)) + b"\x89ccollections\nOrderedDict\n)R"
    tensor = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((" + storage + b"tQ" + view + b"tR."
    return head + tensor + pickle.dumps(["0"], 2) + struct.pack("<q", values.size) + values.tobytes()


def _files(directory: Path) -> Files:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def _written(directory: Path, files: Files) -> Path:
    for name, data in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    return directory


def _readers(path: Path) -> list[Callable[[Path], Any]]:
    """Readers that a file of this name may meet."""
    return {
        ".pt": [load_tensors, load_lists],
        ".npy": [load_array, load_object_array],
        ".pkl": [lambda p: load_plain(p, p.read_bytes())],
        ".json": [read_json, read_lengths, lambda p: list(JsonStrings(p).read()), lambda p: IdFile(p, 98)],
        ".db": [lambda p: list(itertools.islice((open_metadata(p, 240) or (lambda: iter(())))(), 300))],
        ".jsonl": [lambda p: list(TextFile(p, 98).read())],
    }.get(path.suffix, [])


class Canary:
    """Notes what Python does while a file is read, and a reader has no business with."""

    _FORBIDDEN = ("os.", "subprocess", "socket", "shutil", "ctypes", "pickle.find_class", "exec", "compile", "marshal")
    _ALLOWED = frozenset({"os.listdir", "os.scandir", "os.fwalk", "os.walk"})

    def __init__(self) -> None:
        self.watching = False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.watching or event in self._ALLOWED:
            return
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if writes or event.startswith(self._FORBIDDEN) or event in ("import", "sqlite3.enable_load_extension"):
            self.seen.append(f"{event} {str(arguments)[:200]}")


class Lines:
    """Lines of the readers that nothing has reached yet."""

    def __init__(self) -> None:
        self._left: dict[CodeType, set[int]] = {}
        self.reached = 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        left = self._left.get(code)
        if left is None:
            own = code.co_filename.startswith(READERS)
            left = self._left[code] = {line for *_, line in code.co_lines() if line} if own else set()
        return self._line if left else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        left = self._left[frame.f_code]
        if frame.f_lineno in left:
            left.discard(frame.f_lineno)
            self.reached += 1
        return self._line


def check_documents(path: Path, rng: Random) -> None:
    """Opens the index and reads some documents, which must be as the reader promises."""
    index = open_index(path)
    n = len(index.lengths)
    starts = {0, rng.randrange(n) if n else 0}
    for start in starts:
        for document in itertools.islice(index.documents(start), 12):
            tokens = document.tokens
            assert tokens.dtype == np.float32, tokens.dtype
            assert tokens.shape == (index.lengths[document.position], index.dim), tokens.shape
            assert np.isfinite(tokens).all(), "values that are not finite"
            norms = np.linalg.norm(tokens, axis=1)
            assert index.format == "colbert-v1" or ((abs(norms - 1) < 1e-3) | (norms == 0)).all(), "not unit length"
            assert type(document.id) in (int, str), document.id
            dict(document.payload)


class Worker:
    """Makes mutants and reads them, in a process whose memory is limited."""

    def __init__(self, seed: int, number: int, scratch: Path, out: Path, memory: int) -> None:
        self._seed, self._number, self._scratch, self._out, self._memory = seed, number, scratch, out, memory
        self._canary, self._lines = Canary(), Lines()
        self._bases = bases(scratch)
        self._alone = scratch / "alone"
        self._alone.mkdir()
        self._pool: list[tuple[str, Files]] = []
        self._exits: set[Any] = set()
        self._kept: collections.Counter[str] = collections.Counter()
        self.counts: collections.Counter[str] = collections.Counter()
        chunks._SLICE_TOKENS = 512  # a few documents are read, and no more than these need be decoded
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", IndexWarning)

    def warm_up(self) -> None:
        """Reads every index as it is, so that nothing is imported later; then limits memory."""
        # what zipfile and json import when they need it
        for name in ("bz2", "lzma", *(f"encodings.{each}" for each in ("cp437", *_UNICODE))):
            importlib.import_module(name)

        for name, files in self._bases.items():
            check_documents(_written(self._scratch / name, files), Random(0))
            for each in files:
                for reader in _readers(Path(each)):
                    with contextlib.suppress(MuveraError):
                        reader(self._scratch / name / each)
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        self._limit = now + self._memory
        resource.setrlimit(resource.RLIMIT_AS, (self._limit, resource.RLIM_INFINITY))

    def one(self, number: int) -> None:
        """Makes and reads mutant ``number``."""
        rng = Random(f"{self._seed}.{self._number}.{number}")
        base, changed = rng.choice(self._pool) if self._pool and rng.random() < 0.4 else (self._any_base(rng), {})
        files, changed = self._bases[base], dict(changed)
        for _ in range(rng.choice((1, 1, 1, 2))):
            name = self._any_file(rng, files)
            data = changed.get(name, files[name])
            others = [files[self._any_file(rng, files)]]
            changed[name] = mutate(rng, name, data, others)
        path = self._alone / Path(name).name
        readers = _readers(path)
        if readers and rng.random() >= _WHOLE:
            reader = rng.choice(readers)
            path.unlink(missing_ok=True)  # what is still mapped of an earlier mutant stays as it was
            path.write_bytes(changed[name])
            self._read(rng, number, base, name, changed, lambda: reader(path))
            return
        directory = self._scratch / base
        _written(directory, changed)
        try:
            self._read(rng, number, base, None, changed, lambda: check_documents(directory, rng))
        finally:
            _written(directory, {each: files[each] for each in changed})

    def _any_base(self, rng: Random) -> str:
        return rng.choice(list(self._bases))

    @staticmethod
    def _any_file(rng: Random, files: Files) -> str:
        names = list(files)
        # a changed bit in values is one like any other; what describes them is small
        return rng.choices(names, [1.0 if len(files[name]) < 16_384 else 0.3 for name in names])[0]

    def _read(
        self, rng: Random, number: int, base: str, alone: str | None, changed: Files, read: Callable[[], Any]
    ) -> None:
        traced, reached = rng.random() < _TRACED, self._lines.reached
        outcome, exit_, problem = "read", None, ""
        began, peak = time.process_time(), _peak()
        self._canary.seen.clear()
        self._canary.watching = True
        if traced:
            sys.settrace(self._lines)
        try:
            read()
        except MuveraError as error:
            sys.settrace(None)
            self._canary.watching = False
            outcome = type(error).__name__
            frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
            own = [(code.co_name, line) for code, line in frames if code.co_filename.startswith(READERS)]
            exit_ = (*own, type(error.__cause__).__name__)
            if _of_memory(error) and self._traced_peak(read) > self._memory // 2:
                problem = "memory: " + traceback.format_exc()
        except BaseException as error:
            sys.settrace(None)
            self._canary.watching = False
            if isinstance(error, KeyboardInterrupt):
                raise
            outcome = "other error"
            problem = traceback.format_exc()
        finally:
            sys.settrace(None)
            self._canary.watching = False
        seconds = time.process_time() - began
        if self._canary.seen:
            problem += "executed: " + "; ".join(self._canary.seen)
        if _peak() - peak > self._memory // 2:
            problem += f"memory: {_peak() - peak} bytes more"
        if seconds > _SLOW_SECONDS:
            problem += f"slow: {seconds:.1f} s"
        self.counts["mutants"] += 1
        self.counts["alone" if alone else "whole"] += 1
        self.counts[outcome] += 1
        if problem:
            self._finding(number, base, alone, changed, problem)
        if (exit_ is not None and exit_ not in self._exits) or self._lines.reached > reached:
            self._exits.add(exit_)
            if sum(map(len, changed.values())) < 40_000:  # in all, a quarter of the memory that a worker may take
                self._pool.append((base, changed))
                if len(self._pool) > _POOL:
                    del self._pool[rng.randrange(len(self._pool))]
        self.counts["exits"] = len(self._exits)
        self.counts["lines"] = self._lines.reached

    def _traced_peak(self, read: Callable[[], Any]) -> int:
        """Bytes that a read takes without a limit: CPython's unpickler raises MemoryError for an empty stack too."""
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        tracemalloc.start()
        with contextlib.suppress(MuveraError, MemoryError):
            read()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        resource.setrlimit(resource.RLIMIT_AS, (self._limit, resource.RLIM_INFINITY))
        return peak

    def _finding(self, number: int, base: str, alone: str | None, changed: Files, problem: str) -> None:
        self.counts["findings"] += 1
        frames = [line for line in problem.splitlines() if READERS in line]
        kind = problem.partition(":")[0] + "".join(frames[-1:]) + problem.splitlines()[-1][:60]
        self._kept[kind] += 1
        if self._kept[kind] > _SAME_KIND:
            return
        place = self._out / f"{self._number}-{number}"
        _written(place / "files", changed)
        (place / "problem.txt").write_text(f"{base} {alone or 'whole'}\n{problem}\n")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _of_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _work(seed: int, number: int, begin: int, end: int, memory: int, out: Path, at: Any, since: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as scratch:
        worker = Worker(seed, number, Path(scratch), out, memory)
        worker.warm_up()
        parent = os.getppid()
        log = out / f"worker-{number}-{begin}.json"
        for k in range(begin, end):
            at.value, since.value = k, time.process_time()
            worker.one(k)
            if k % 1_000 == 999 or k == end - 1:
                log.write_text(json.dumps(worker.counts))
                if os.getppid() != parent:
                    return
        at.value = end


def _watched(seed: int, number: int, end: int, memory: int, limit: float, out: Path) -> Iterator[None]:
    """Runs one worker until all its mutants are read; starts it again after a crash or a hang."""
    context = multiprocessing.get_context("spawn")
    begin = 0
    while begin < end:
        at, since = context.Value("q", -1), context.Value("d", 0.0)
        process = context.Process(target=_work, args=(seed, number, begin, end, memory, out, at, since))
        process.start()
        progress = at.value, time.monotonic()
        while process.is_alive():
            yield
            if progress[0] != at.value:
                progress = at.value, time.monotonic()
            # by the processor's time, as other programs may leave none; by the clock, for one that waits
            if _seconds(process.pid) - since.value > limit or time.monotonic() - progress[1] > _WAIT * limit:
                _note(out, number, at.value, f"hang: more than {limit:g} s")
                process.kill()
                process.join()
        process.join()
        if at.value < 0:
            raise SystemExit(f"worker {number} did not read the indexes as they are")
        if at.value < end and process.exitcode != -signal.SIGKILL:
            _note(out, number, at.value, f"crash: exit status {process.exitcode}")
        begin = at.value + (at.value < end)


def _seconds(pid: int | None) -> float:
    """CPU seconds of a process, 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _note(out: Path, number: int, mutant: int, problem: str) -> None:
    print(f"worker {number}, mutant {mutant}: {problem}", flush=True)
    place = out / f"{number}-{mutant}"
    place.mkdir(parents=True, exist_ok=True)
    (place / "problem.txt").write_text(problem + "\n")


def _total(out: Path) -> collections.Counter[str]:
    total: collections.Counter[str] = collections.Counter()
    for log in out.glob("worker-*.json"):
        with contextlib.suppress(ValueError):
            counts = json.loads(log.read_text())
            for name, count in counts.items():
                total[name] = max(total[name], count) if name in ("exits", "lines") else total[name] + count
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=1_000_000, help="number of mutants of all workers together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--memory", type=int, default=512, help="megabytes that a worker may use in addition to those at its start"
    )
    parser.add_argument("--hang", type=float, default=60.0, help="CPU seconds after which a mutant counts as a hang")
    parser.add_argument("--minutes", type=float, default=60.0, help="end after this time, however many are done")
    parser.add_argument("--out", type=Path, default=Path("index-file-findings"))
    arguments = parser.parse_args()
    shutil.rmtree(arguments.out, ignore_errors=True)
    arguments.out.mkdir(parents=True)
    began, said = time.monotonic(), time.monotonic()
    each = arguments.mutants // arguments.workers
    runs = [
        _watched(arguments.seed, number, each, arguments.memory << 20, arguments.hang, arguments.out)
        for number in range(arguments.workers)
    ]
    while runs and time.monotonic() - began < arguments.minutes * 60:
        runs = [run for run in runs if next(run, _DONE) is not _DONE]
        time.sleep(0.5)
        if time.monotonic() - said > 30:
            said = time.monotonic()
            print(f"{said - began:.0f} s: {dict(_total(arguments.out))}", flush=True)
    for process in multiprocessing.active_children():
        process.terminate()
        process.join()
    total = _total(arguments.out)
    problems = sorted(path.parent.name for path in arguments.out.glob("*/problem.txt"))
    print(json.dumps({**total, "seconds": round(time.monotonic() - began), "seed": arguments.seed, "kept": problems}))


_DONE = object()

if __name__ == "__main__":
    main()
