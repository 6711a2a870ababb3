"""A retriever and a vector store for LangChain."""

from muvera_adapters.errors import MissingExtra

try:
    import langchain_core  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtra("langchain-core", "langchain") from error

from muvera_adapters.frameworks.langchain.opening import TokenEmbeddings
from muvera_adapters.frameworks.langchain.retriever import MuveraRetriever
from muvera_adapters.frameworks.langchain.vector_store import MuveraVectorStore

__all__ = ["MuveraRetriever", "MuveraVectorStore", "TokenEmbeddings"]
