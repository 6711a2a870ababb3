"""Retrievers and vector stores over any store: ``langchain``, ``llamaindex`` and ``haystack``, extras of these names."""
