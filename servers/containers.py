"""Servers in containers: official images at pinned versions, or those that NAME_IMAGE names (WEAVIATE_IMAGE, ...).

A container is started when a test first asks for it, and stopped by ``servers.stop()``. It is ready when its server
says so, in its log or at its health check; an open port says nothing, as Docker's proxy accepts before anyone listens.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from muvera_adapters.testing import CannotStart
from servers import shared

IMAGES = {
    "qdrant": "qdrant/qdrant:v1.18.0",
    "weaviate": "semitechnologies/weaviate:1.39.0",
    "milvus": "milvusdb/milvus:v3.0.1",
}


class Address(NamedTuple):
    """Where a server listens; ``grpc_port`` is that of its other protocol, or the same."""

    host: str
    port: int
    grpc_port: int


def address(name: str) -> Address:
    """Address of the shared container of ``qdrant``, ``weaviate`` or ``milvus``.

    Raises:
        CannotStart: Docker does not answer, testcontainers is not installed, or the image is not there.
    """
    return shared(_running, name)


@contextmanager
def _running(name: str) -> Iterator[Address]:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "info"], capture_output=True, check=False, timeout=30).returncode:
        raise CannotStart("start a Docker engine that `docker info` reaches")
    image = os.environ.get(f"{name.upper()}_IMAGE") or IMAGES[name]
    try:
        container, ports = _MAKERS[name](image)
    except ImportError:
        raise CannotStart(f"pip install 'testcontainers[{name}]>=4.15'") from None
    try:
        container.start()
    except Exception as error:  # docker's, requests', and testcontainers' own for one that does not become ready
        container.stop()
        message = f"docker pull {image}, or set {name.upper()}_IMAGE to an image that is there: {error}"
        raise CannotStart(message) from None
    try:
        host = container.get_container_host_ip()
        yield Address(host, *(int(container.get_exposed_port(port)) for port in ports))
    finally:
        container.stop()


def _qdrant(image: str) -> tuple[Any, tuple[int, int]]:
    from testcontainers.community.qdrant import QdrantContainer

    return QdrantContainer(image=image), (6333, 6334)  # waits for a line of the log


def _weaviate(image: str) -> tuple[Any, tuple[int, int]]:
    from testcontainers.community.weaviate import WeaviateContainer

    environment = {"DISABLE_TELEMETRY": "true", "DISK_USE_READONLY_PERCENTAGE": "99"}
    return WeaviateContainer(image=image, env_vars=environment), (8080, 50051)  # waits for its health check


def _milvus(image: str) -> tuple[Any, tuple[int, int]]:
    from testcontainers.community.milvus import MilvusContainer

    return MilvusContainer(image=image), (19530, 19530)  # waits for a line of the log and its health check


_MAKERS: dict[str, Callable[[str], tuple[Any, tuple[int, int]]]] = {
    "qdrant": _qdrant,
    "weaviate": _weaviate,
    "milvus": _milvus,
}
