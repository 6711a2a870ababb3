"""Retrievers and vector stores over any store: ``langchain``, ``llamaindex``, ``haystack``, extras of these names."""
