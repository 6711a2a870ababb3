"""Backfills, refreshes and verifications, over documents in a dictionary."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from muvera_adapters.errors import EncoderMismatch, InvalidInput, MuveraError
from muvera_adapters.results import BackfillReport
from muvera_adapters.stores.backfilling import (
    BackfillAccess,
    Stored,
    backfill_passes,
    check_adopted,
    fill,
    refresh_all,
    verify,
    verify_all,
)
from muvera_adapters.stores.checks import check_encodable, encode_stored
from muvera_adapters.stores.collection import Seen
from muvera_adapters.stores.operations import Retry, run
from muvera_core import FDEConfig, FDEEncoder
from tests.drawn import gaussian

ENCODER = FDEEncoder(FDEConfig(8, d_proj=None, r_reps=4, k_sim=3))
PAGE = 7


@dataclass
class Documents:
    """A database: tokens and FDEs by id."""

    tokens: dict = field(default_factory=dict)
    fdes: dict = field(default_factory=dict)
    problems: dict = field(default_factory=dict)
    name: str = "docs"
    encoder: object = ENCODER
    fde: str = "fde"
    has_fde: bool = True
    cosine: bool = False
    token_error: float = 0.0
    seen: Seen = field(default_factory=Seen)

    def access(self):
        async def sample(size):
            return [self.stored(key) for key in list(self.tokens)[:size]]

        async def read(keys):
            return [self.stored(key) for key in keys]

        async def write(fdes):
            self.fdes.update(dict(fdes))
            return len(fdes)

        async def page(cursor):
            keys = list(self.tokens)
            end = (cursor or 0) + PAGE
            return [self.stored(key) for key in keys[end - PAGE : end]], end if end < len(keys) else None

        return BackfillAccess(self, check_encodable, sample, read, write, page)

    def stored(self, key):
        return Stored(key, key, self.tokens[key], self.fdes.get(key), self.problems.get(key, ""))

    def one_pass(self, report):
        async def go(bar):
            lacking = [self.stored(key) for key in self.tokens if key not in self.fdes]
            wrote = await fill(self.access(), lacking, report)
            report.written += wrote
            return wrote

        return go


def documents(n=100, **options):
    return Documents({i: gaussian(i, 6, 8) for i in range(n)}, **options)


def go(operation):
    return run(operation, None, Retry(attempts=1))


def backfill(database, **options):
    report = BackfillReport()
    go(backfill_passes(database.access(), database.one_pass(report), report, False, **options))
    return report


def right(database, keys=None):
    """Whether the FDEs are those of the tokens."""
    keys = list(database.tokens) if keys is None else keys
    expected = encode_stored(ENCODER, [database.tokens[key] for key in keys], cosine=database.cosine)
    return np.allclose([database.fdes[key] for key in keys], expected, atol=1e-6)


def test_a_refresh_finds_every_stale_document():
    database = documents()
    backfill(database)
    for i in (80, 99):  # behind the sample
        database.tokens[i] = gaussian(1000 + i, 6, 8)
    assert backfill(database).refreshed == 0
    report = backfill(database, refresh=True)
    assert (report.refreshed, report.written, report.failed) == (2, 0, {})
    assert right(database)


def test_a_stale_document_of_the_sample_leads_to_a_refresh_of_all():
    database = documents()
    backfill(database)
    for i in (3, 80):
        database.tokens[i] = gaussian(1000 + i, 6, 8)
    assert backfill(database).refreshed == 2
    assert right(database)


def test_what_changes_for_ever_is_an_error_with_advice():
    database = documents()
    backfill(database)
    database.fdes[3] = ENCODER.encode_document(gaussian(5000, 6, 8))
    access = database.access()

    async def lost(fdes):
        return len(fdes)

    stubborn = BackfillAccess(database, access.check, access.sample, access.read, lost, access.page)
    with pytest.raises(MuveraError, match=r"3.*backfill\(refresh=True\)"):
        go(verify(stubborn, BackfillReport()))


def test_verifying_reads_only():
    database = documents()
    backfill(database)
    database.tokens[80] = gaussian(1080, 6, 8)
    del database.fdes[81]
    database.tokens[82] = np.full((3, 8), np.nan, np.float32)
    database.tokens[83] = np.vstack([database.tokens[83], np.zeros((1, 8), np.float32)])
    report = go(verify_all(database.access(), None, False))
    assert (report.checked, report.stale, report.without_fde, report.zero_rows) == (98, [80], 1, 1)
    assert list(report.unreadable) == [82]
    assert not report.passed
    assert 81 not in database.fdes
    assert go(verify_all(database.access(), 20, False)).checked == 20
    with pytest.raises(InvalidInput):
        go(verify_all(database.access(), 0, False))


def test_tokens_that_cannot_be_read_are_told_with_the_reason():
    database = documents(10)
    database.tokens[4], database.problems[4] = np.empty((0, 8), np.float32), "cut off"
    report = backfill(database)
    assert (report.written, report.failed, report.without_tokens) == (9, {4: "cut off"}, 0)
    assert go(verify_all(database.access(), None, False)).unreadable == {4: "cut off"}


def test_tokens_that_were_rounded_after_encoding_are_not_stale():
    exact = [gaussian(i, 30, 8) for i in range(100)]
    database = Documents({i: matrix.astype(np.float16).astype(np.float32) for i, matrix in enumerate(exact)})
    database.fdes = dict(enumerate(ENCODER.encode_documents(exact)))
    assert not right(database)
    assert go(verify_all(database.access(), None, False)).stale == []
    before = dict(database.tokens)
    database.tokens.update({i: np.vstack([before[i][:28], before[i + 50][:2]]) for i in range(50)})
    stale = go(verify_all(database.access(), None, False)).stale
    assert len(stale) >= 45  # two of 30 tokens were replaced
    assert max(stale) < 50


@pytest.mark.parametrize("cosine", [False, True])
def test_zero_rows_are_left_out_and_counted(cosine):
    database = documents(20, cosine=cosine)
    zeros = np.zeros((2, 8), np.float32)
    for i in (3, 4):
        database.tokens[i] = np.vstack([zeros, database.tokens[i]])
    database.tokens[5] = zeros
    database.tokens[6] = np.full((2, 8), np.inf, np.float32)
    report = backfill(database)
    assert (report.written, report.zero_rows, report.without_tokens) == (18, 2, 1)
    assert list(report.failed) == [6]
    assert right(database, [i for i in range(20) if i not in (5, 6)])
    report = BackfillReport()
    go(refresh_all(database.access(), report, False))
    assert (report.refreshed, report.written, report.without_tokens) == (0, 0, 0)


class TestAdopted:
    def test_the_same_encoder(self):
        database = documents()
        backfill(database)
        assert go(check_adopted(database.access())) == 64

    def test_another_seed(self):
        database = documents()
        backfill(database)
        database.encoder = FDEEncoder(FDEConfig(8, d_proj=None, r_reps=4, k_sim=3, seed=7))
        with pytest.raises(EncoderMismatch, match="another seed"):
            go(check_adopted(database.access()))

    @pytest.mark.parametrize("normalize", [False, True])
    def test_another_length(self, normalize):
        database = documents()
        database.encoder = FDEEncoder(FDEConfig(8, d_proj=None, r_reps=4, k_sim=3, normalize=normalize))
        backfill(database)
        database.encoder = FDEEncoder(FDEConfig(8, d_proj=None, r_reps=4, k_sim=3, normalize=not normalize))
        with pytest.raises(EncoderMismatch, match=f"normalize={normalize}"):
            go(check_adopted(database.access()))
        assert go(check_adopted(database.access(), by_cosine=True)) == 64

    def test_zero_rows_and_unreadable_documents_are_no_mismatch(self):
        database = documents()
        backfill(database)
        database.tokens[3] = np.vstack([database.tokens[3], np.zeros((1, 8), np.float32)])
        database.tokens[4] = np.full((2, 8), np.nan, np.float32)
        assert go(check_adopted(database.access())) == 63
