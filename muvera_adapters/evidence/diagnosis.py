"""``diagnose``: properties of a sample of token vectors, and the kind of encoding that fits them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import InvalidInput
from muvera_adapters.evidence.encoder_choices import default_encoders, squared_mean_norm
from muvera_adapters.evidence.measuring import Interval, positions, queries_of, recalls
from muvera_adapters.evidence.queries import Queries
from muvera_adapters.evidence.recommendation import SAMPLE, drawn, queries_for
from muvera_adapters.evidence.target_recall import MAX_PREFETCH
from muvera_adapters.evidence.tuning_trials import Setting, Trials, best_setting
from muvera_adapters.progress import progress_bar
from muvera_adapters.stores.shared_direction import FIT_FROM
from muvera_core import FDEConfig, FDEEncoder, TokenBatch, maxsim
from muvera_core._draws import draw
from muvera_core.tokens import to_batch

Float64 = npt.NDArray[np.float64]
Verdict = Literal["fde", "fit", "pool", "regression"]

# eight tokens in each of 32 partitions. Pooling by 2 then cost .01 to .02 of recall and halved what reranking reads. It
# did not raise recall (measured on documents joined to 300 to 900 tokens, docs/tuning.md)
POOL_FROM = 256
_CANDIDATES = 100
# correlations and recall at a fixed number of candidates are measured with at most this number of queries
_QUERIES = 100
_PAIRS = 100_000


@dataclass(frozen=True, slots=True)
class Spread:
    """Quantiles of a quantity."""

    min: float
    p5: float
    median: float
    mean: float
    p95: float
    max: float

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> Spread:
        """The quantiles of numbers."""
        low, p5, median, p95, high = np.percentile(values, (0, 5, 50, 95, 100))
        return cls(float(low), float(p5), float(median), float(values.mean()), float(p95), float(high))


@dataclass(frozen=True, slots=True)
class Occupancy:
    """How evenly a hash distributes tokens over the 32 partitions of a repetition; means over 20 repetitions.

    Attributes:
        fullest: share of all tokens in the fullest partition (1/32 if the distribution is even).
        effective: effective number of partitions, the exponential of the entropy (32 if the distribution is even).
        occupied: number of partitions with tokens of a document.
    """

    fullest: float
    effective: float
    occupied: float


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Result of :func:`diagnose`.

    Attributes:
        documents: number of documents in the sample.
        tokens: number of tokens in the sample.
        dim: width of a token vector.
        token_counts: quantiles of the number of tokens of a document.
        empty_rows: number of all-zero tokens (padding), which encoders reject.
        bad_rows: number of tokens with a NaN or infinite value, which encoders reject.
        duplicate_rows: number of tokens that equal an earlier token of the same document.
        norms: quantiles of the norms of tokens.
        unit_norm: whether all norms are 1, to a thousandth.
        mean_cosine: mean cosine of pairs of tokens of different documents.
        mean_norm2: squared norm of the mean of the normalised tokens, 0 to 1: a measure of anisotropy.
        mean_share: share of the variance around the origin in the direction of the mean.
        dims_for: numbers of dimensions that hold 50, 90 and 99 % of the variance around the mean.
        effective_dims: effective number of dimensions, (sum of variances)**2 / (sum of squared variances).
        plain: occupancy of the partitions of a plain FDE.
        fitted: occupancy of the partitions of a fitted FDE.
        queries: number of queries used.
        queries_are: ``"given"``, or ``"pseudo"`` if they were drawn from documents.
        maxsim_spread: standard deviation over documents of MaxSim per query token, mean over queries. Differences of
            this size decide the ranking.
        fde_correlation: correlation over documents of MaxSim with its estimate by a plain FDE of 20 x 32 x 16 = 10,240
            dimensions, mean over queries.
        fitted_correlation: correlation of MaxSim with its estimate by a fitted FDE of this size.
        candidates: number of candidates for the next two values: 100, or half of the sample.
        fde_recall: recall of the exact top 10 among the candidates of the plain FDE.
        fitted_recall: recall of the exact top 10 among the candidates of the fitted FDE.
        target: recall of the exact top 10 that the verdict is based on.
        scanned: the FDEs that :func:`recommend` tries, compared in float32 without an index; ``prefetch`` of each is
            the number of candidates that it needs for the target.
        verdict: ``"fde"``, ``"fit"``, ``"pool"`` or ``"regression"``.
        advice: the verdict in words.
        reasons: reasons for the verdict.
        problems: problems of the data itself.
        notes: remarks that are needed to interpret the results.
        seed: seed of all sampling.
    """

    documents: int
    tokens: int
    dim: int
    token_counts: Spread
    empty_rows: int
    bad_rows: int
    duplicate_rows: int
    norms: Spread
    unit_norm: bool
    mean_cosine: float
    mean_norm2: float
    mean_share: float
    dims_for: dict[int, int]
    effective_dims: float
    plain: Occupancy
    fitted: Occupancy
    queries: int
    queries_are: str
    maxsim_spread: float
    fde_correlation: float
    fitted_correlation: float
    candidates: int
    fde_recall: Interval
    fitted_recall: Interval
    target: float
    scanned: list[Setting]
    verdict: Verdict
    advice: str
    reasons: list[str]
    problems: list[str]
    notes: list[str]
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def diagnose(
    documents: Any,
    queries: Any = None,
    *,
    recall: float = 0.95,
    max_prefetch: int = MAX_PREFETCH,
    sample: int = SAMPLE,
    seed: int = 42,
    progress: bool = False,
) -> Diagnosis:
    """Examines a sample of documents, and queries if there are any, and says which kind of encoding fits.

    The verdict is the first step of :func:`recommend` with the same arguments, by the same rule: an encoding that
    misses the target in float32 without an index is not tried with codes. With codes and an index, the encoding may
    need more candidates or a larger size.

    Args:
        documents: token matrices, in any form that encoders take; all-zero and non-finite tokens are counted, and left
            out of everything else.
        queries: at least 4 queries, in any form that encoders take or as :class:`Queries`; None: pseudo-queries drawn
            from the documents.
        recall: target recall of the exact top 10.
        max_prefetch: maximum number of candidates to rerank; never more than half of the documents.
        sample: number of documents, drawn from those given, to measure on, at least 20; only counts use all documents.
        seed: seed of all sampling.
        progress: whether to show progress bars.

    Raises:
        InvalidInput: fewer than 20 documents with tokens that can be encoded, too few queries, or a target that is not
            above 0 and at most 1.
    """
    batch = to_batch(documents)
    rng = np.random.default_rng(seed)
    counts = batch.lengths
    values = batch.values
    bad, empty = ~np.isfinite(values).all(axis=1), ~values.any(axis=1)
    duplicates = _duplicates(batch)
    taken = drawn(batch, sample, seed)
    usable = [m for m in (_clean(taken[i]) for i in range(len(taken))) if len(m)]
    if len(usable) < 20:
        raise InvalidInput(f"a diagnosis needs at least 20 documents with usable tokens, there are {len(usable)}")
    clean = TokenBatch.from_list(usable)
    every = queries_for(clean, queries, seed)
    asked = every.choose(range(min(len(every), _QUERIES)))
    norms = np.linalg.norm(clean.values.astype(np.float64), axis=1)
    unit = clean.values / norms[:, None]
    mean = unit.mean(axis=0)
    spectrum = np.linalg.eigvalsh(np.cov(unit, rowvar=False))[::-1].clip(0)
    plain, fitted = _encoders(clean, seed)
    n = min(_CANDIDATES, len(clean) // 2)
    bar = progress_bar(queries_of(asked.tokens), desc="exact MaxSim", unit="query", disable=not progress)
    scores = np.stack([maxsim(query, clean) for query in bar]).astype(np.float64)
    exact: list[Any] = np.argsort(-scores, axis=1, kind="stable")[:, :10].tolist()
    found, correlations = [], []
    for encoder in progress_bar((plain, fitted), desc="encode", disable=not progress):
        estimates = encoder.encode_queries(asked.tokens) @ encoder.encode_documents(clean).T
        best = np.argsort(-estimates, axis=1, kind="stable")[:, :n].tolist()
        found.append(Interval.of(recalls(positions(best, exact), 10), seed))
        correlations.append(_correlation(estimates.astype(np.float64), scores))
    result = Diagnosis(
        documents=len(batch),
        tokens=len(values),
        dim=batch.dim,
        token_counts=Spread.of(counts),
        empty_rows=int(empty.sum()),
        bad_rows=int(bad.sum()),
        duplicate_rows=duplicates,
        norms=Spread.of(norms),
        unit_norm=bool(np.abs(norms - 1).max() < 1e-3),
        mean_cosine=_mean_cosine(unit, clean, rng),
        mean_norm2=squared_mean_norm(clean),
        mean_share=_share_of_mean(unit, mean),
        dims_for=_dims_for(spectrum),
        effective_dims=float(spectrum.sum() ** 2 / (spectrum**2).sum()),
        plain=_occupancy(clean, plain),
        fitted=_occupancy(clean, fitted),
        queries=len(asked),
        queries_are=asked.origin,
        maxsim_spread=float((scores.std(axis=1) / asked.tokens.lengths).mean()),
        fde_correlation=correlations[0],
        fitted_correlation=correlations[1],
        candidates=n,
        fde_recall=found[0],
        fitted_recall=found[1],
        target=recall,
        scanned=_scanned(clean, every, recall, max_prefetch, seed, progress),
        verdict="fde",
        advice="",
        reasons=[],
        problems=[],
        notes=list(asked.notes),
        seed=seed,
    )
    verdict, reasons = _verdict(result)
    advice = f"{_ADVICE[verdict]} recommend() chooses its size, codes and number of candidates."
    return replace(result, verdict=verdict, advice=advice, reasons=reasons, problems=_problems(result))


_ADVICE: dict[Verdict, str] = {
    "fde": "An FDE fits: FDEEncoder(FDEConfig(dim)), which needs nothing of your data.",
    "fit": "Use FDEEncoder.fit(config, sample): the vectors share a direction, so a plain FDE loses recall.",
    "pool": "Pool the tokens of each document first, and repeat the diagnosis: the documents are long, so reranking "
    "reads a lot, and pooling by 2 costs little recall.",
    "regression": "Use RegressionEncoder.fit(sample): no FDE of 10,240 dimensions or fewer ranks these vectors well.",
}


def _scanned(
    documents: TokenBatch, queries: Queries, target: float, max_prefetch: int, seed: int, progress: bool
) -> list[Setting]:
    trials = Trials(documents, queries, target, k=10, max_prefetch=max_prefetch, seed=seed, progress=progress)
    choices = [choice for choice in default_encoders(documents, seed) if choice.travels]
    return [trials.scan(choice, ()) for choice in progress_bar(choices, desc="scan", disable=not progress)]


def _verdict(d: Diagnosis) -> tuple[Verdict, list[str]]:
    shared = d.mean_norm2 >= FIT_FROM
    mean = (
        f"squared norm of the mean {d.mean_norm2:.2f}: "
        + (f"at least {FIT_FROM}, where fitting pays" if shared else f"below {FIT_FROM}, where fitting changes little")
        + f"; the fullest of 32 partitions has {d.plain.fullest:.0%} of the tokens, {d.fitted.fullest:.0%} when fitted"
    )
    asked = "queries" if d.queries_are == "given" else "pseudo-queries"
    correlation = (
        f"over documents, the correlation with MaxSim is {d.fde_correlation:.2f} for the estimate of a plain FDE and "
        f"{d.fitted_correlation:.2f} for that of a fitted one ({d.queries} {asked})"
    )
    needed = f"compared in float32, for a recall of {d.target:g} " + ", ".join(
        f"{s.encoder} {f'needs {s.prefetch} candidates' if s.prefetch else f'has {s.note}'}" for s in d.scanned
    )
    length = f"the median document has {d.token_counts.median:.0f} tokens"
    if d.token_counts.median >= POOL_FROM:
        crowd = d.token_counts.median / d.fitted.occupied
        return "pool", [f"{length}, {crowd:.0f} in each partition that they occupy", mean, needed, correlation]
    best = best_setting(d.scanned)
    if best is None or best.prefetch is None:
        return "regression", [needed, correlation, mean, length]
    return ("fit" if shared else "fde"), [mean, needed, correlation, length]


def _problems(d: Diagnosis) -> list[str]:
    found = []
    if d.bad_rows:
        found.append(f"{d.bad_rows:,} tokens have NaN or infinite values: encoders and databases reject them.")
    if d.empty_rows:
        found.append(f"{d.empty_rows:,} tokens are all zeros: padding; pass mask= with a padded batch, or drop them.")
    if d.duplicate_rows > 0.01 * d.tokens:
        found.append(
            f"{d.duplicate_rows:,} tokens ({d.duplicate_rows / d.tokens:.0%}) repeat a token of their document: MaxSim "
            "does not need them, and they distort the mean of their partition."
        )
    if not d.unit_norm:
        found.append(
            f"norms range from {d.norms.min:.3g} to {d.norms.max:.3g}: normalise the tokens if the model compares by "
            "cosine; with dot product, long tokens win."
        )
    return found


def _clean(matrix: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return matrix[np.isfinite(matrix).all(axis=1) & matrix.any(axis=1)].astype(np.float32)


def _duplicates(batch: TokenBatch) -> int:
    found = 0
    for i in range(len(batch)):
        rows = np.ascontiguousarray(batch[i])
        found += len(rows) - len(np.unique(rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))))
    return found


def _encoders(documents: TokenBatch, seed: int) -> tuple[FDEEncoder, FDEEncoder]:
    # the limits of the verdict were measured with these sizes
    config = FDEConfig(documents.dim, r_reps=20, k_sim=5, d_proj=min(16, documents.dim), seed=seed)
    # tokens of one dimension cannot be fitted: the mean's direction leaves nothing to project
    return FDEEncoder(config), FDEEncoder.fit(config, documents) if documents.dim > 1 else FDEEncoder(config)


def _mean_cosine(unit: Float64, documents: TokenBatch, rng: np.random.Generator) -> float:
    owner = np.repeat(np.arange(len(documents)), documents.lengths)
    a, b = rng.integers(len(unit), size=(2, _PAIRS))
    apart = owner[a] != owner[b]
    return float(np.einsum("ij,ij->i", unit[a[apart]], unit[b[apart]]).mean())


def _share_of_mean(unit: Float64, mean: Float64) -> float:
    norm = np.linalg.norm(mean)
    return float(((unit @ (mean / norm)) ** 2).mean()) if norm > 0 else 0.0


def _dims_for(spectrum: Float64) -> dict[int, int]:
    shares = np.cumsum(spectrum) / spectrum.sum()
    return {percent: int(np.searchsorted(shares, percent / 100 - 1e-12)) + 1 for percent in (50, 90, 99)}


def _occupancy(documents: TokenBatch, encoder: FDEEncoder) -> Occupancy:
    draws = draw(encoder.config, encoder.mean)
    r_reps, k_sim, dim = draws.hyperplanes.shape
    projected = documents.values @ draws.hyperplanes.reshape(-1, dim).T.astype(np.float32)
    bits = projected > draws.thresholds.reshape(-1).astype(np.float32)
    codes = (bits.reshape(-1, r_reps, k_sim) << np.arange(k_sim)).sum(axis=2)
    fullest, effective, occupied = [], [], []
    owner = np.repeat(np.arange(len(documents)), documents.lengths)
    for r in range(r_reps):
        shares = np.bincount(codes[:, r], minlength=1 << k_sim) / len(codes)
        present = shares[shares > 0]
        fullest.append(shares.max())
        effective.append(np.exp(-(present * np.log(present)).sum()))
        occupied.append(len(np.unique(owner * (1 << k_sim) + codes[:, r])) / len(documents))
    return Occupancy(float(np.mean(fullest)), float(np.mean(effective)), float(np.mean(occupied)))


def _correlation(estimates: Float64, scores: Float64) -> float:
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (estimates, scores))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / np.where(norms > 0, norms, 1)).mean())
