"""Measurements on your own data: properties of the vectors, recall of encodings, recommended settings, and sizes."""

from muvera_adapters.evidence.diagnosis import Diagnosis, diagnose
from muvera_adapters.evidence.encoder_choices import EncoderChoice, default_encoders
from muvera_adapters.evidence.evaluation import Evaluation, evaluate, evaluate_store, sample_of
from muvera_adapters.evidence.judgements import read_judgements
from muvera_adapters.evidence.queries import Queries, pseudo_queries
from muvera_adapters.evidence.recommendation import Recommendation, recommend
from muvera_adapters.evidence.report import write_report
from muvera_adapters.evidence.sizes import Estimate, estimate
from muvera_adapters.evidence.tuning import Tuning, tune
from muvera_adapters.evidence.tuning_prefetch import PrefetchTuning, tune_prefetch

__all__ = [
    "Diagnosis",
    "EncoderChoice",
    "Estimate",
    "Evaluation",
    "PrefetchTuning",
    "Queries",
    "Recommendation",
    "Tuning",
    "default_encoders",
    "diagnose",
    "estimate",
    "evaluate",
    "evaluate_store",
    "pseudo_queries",
    "read_judgements",
    "recommend",
    "sample_of",
    "tune",
    "tune_prefetch",
    "write_report",
]
