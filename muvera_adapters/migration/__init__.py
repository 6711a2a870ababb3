"""Moves token embeddings from any source into any store, with a journal to resume by, and verifies the result."""

from muvera_adapters.migration.estimating import MigrationEstimate, estimate
from muvera_adapters.migration.journal import Failure, Journal, SourceChanged
from muvera_adapters.migration.pipeline import MigrationReport, migrate
from muvera_adapters.migration.rankings import read_rankings
from muvera_adapters.migration.selecting import Condition
from muvera_adapters.migration.verifying import Check, Verification, verify

__all__ = [
    "Check",
    "Condition",
    "Failure",
    "Journal",
    "MigrationEstimate",
    "MigrationReport",
    "SourceChanged",
    "Verification",
    "estimate",
    "migrate",
    "read_rankings",
    "verify",
]
