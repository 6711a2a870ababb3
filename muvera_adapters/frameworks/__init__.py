"""Retrievers and vector stores over any store, for ``langchain``, ``llamaindex`` and ``haystack`` (extras)."""
