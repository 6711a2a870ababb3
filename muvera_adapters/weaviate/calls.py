"""Where a call goes: the collection of a tenant at a consistency level, or the client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from weaviate.classes.config import ConsistencyLevel

from muvera_adapters.stores.operations import Retry
from muvera_adapters.weaviate.requests import Call

#: the client repeats a query for a minute on its own
DEFAULT_RETRY = Retry(attempts=4)


@dataclass(frozen=True, slots=True)
class Target:
    """What all calls have in common.

    Attributes:
        name: of the collection.
        tenant: None in a collection without tenants.
        consistency_level: None: the collection's.
    """

    name: str
    tenant: str | None = None
    consistency_level: ConsistencyLevel | None = None

    def of_tenant(self, tenant: str) -> Target:
        """The same about another tenant."""
        return replace(self, tenant=tenant)


def method_of(client: Any, target: Target, call: Call[Any]) -> Callable[..., Any]:
    """The client's method for a call; synchronous and asynchronous clients name all of them alike."""
    owner = client
    if not call.of_client:
        owner = client.collections.use(target.name)
        if target.tenant is not None:
            owner = owner.with_tenant(target.tenant)
        if target.consistency_level is not None:
            owner = owner.with_consistency_level(target.consistency_level)
    found: Callable[..., Any] = reduce(getattr, call.method.split("."), owner)
    return found
