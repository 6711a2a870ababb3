"""Tests of everything that every store must do; answers are compared with numpy on the same vectors.

Import everything into a test module that has a fixture ``session`` (see :mod:`muvera_adapters.testing`).
"""

from muvera_adapters.testing.contract.adoption import TestAdoption, TestInAndOutAgain
from muvera_adapters.testing.contract.collections import (
    TestCollections,
    TestEncoderKeptInAFile,
    TestErrors,
    TestOwnership,
)
from muvera_adapters.testing.contract.conditions import TestConditions
from muvera_adapters.testing.contract.documents import (
    TestDocuments,
    TestSpellingsOfIds,
    TestStoredTokens,
    test_large_loads_are_split_and_complete,
)
from muvera_adapters.testing.contract.explaining import TestExplanations
from muvera_adapters.testing.contract.guests import TestDocumentsOfOthers, TestWritesTouchOnlyWhatTheyName
from muvera_adapters.testing.contract.hybrid import (
    TestEarlyEnd,
    TestGroups,
    TestSeveralLists,
    TestTimings,
    TestWeights,
)
from muvera_adapters.testing.contract.payloads import TestPayloadsComeOutAsTheyWentIn
from muvera_adapters.testing.contract.query_fits import TestQueryFits
from muvera_adapters.testing.contract.searching import (
    TestDocumentsWithoutTokens,
    TestPartlyIndexed,
    TestSearch,
    test_results_are_plain_values,
)
from muvera_adapters.testing.contract.shared import filled, native_scoring
from muvera_adapters.testing.contract.token_models import TestSharedDirection, TestTokenModel
from muvera_adapters.testing.contract.token_presets import TestTokenPresets

__all__ = [
    "TestAdoption",
    "TestCollections",
    "TestConditions",
    "TestDocuments",
    "TestDocumentsOfOthers",
    "TestDocumentsWithoutTokens",
    "TestEarlyEnd",
    "TestEncoderKeptInAFile",
    "TestErrors",
    "TestExplanations",
    "TestGroups",
    "TestInAndOutAgain",
    "TestOwnership",
    "TestPartlyIndexed",
    "TestPayloadsComeOutAsTheyWentIn",
    "TestQueryFits",
    "TestSearch",
    "TestSeveralLists",
    "TestSharedDirection",
    "TestSpellingsOfIds",
    "TestStoredTokens",
    "TestTimings",
    "TestTokenModel",
    "TestTokenPresets",
    "TestWeights",
    "TestWritesTouchOnlyWhatTheyName",
    "filled",
    "native_scoring",
    "test_large_loads_are_split_and_complete",
    "test_results_are_plain_values",
]
