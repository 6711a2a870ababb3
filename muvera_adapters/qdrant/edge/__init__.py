"""The embedded engine Qdrant Edge.

- ``store.py``: QdrantEdgeMuvera
- ``client.py``: a shard that carries out the requests of ``qdrant/requests.py``, its schema, and its errors
- ``files.py``: the shard's directory, and the file beside it that stores the encoder
"""
