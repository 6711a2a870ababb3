"""Programs that try to break the library for a bounded time: kills, damaged index files, mixed reads and writes."""
