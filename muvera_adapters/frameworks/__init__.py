"""Retrievers and vector stores over any store: modules ``langchain``, ``llamaindex``, ``haystack``, each with an extra of its name."""
