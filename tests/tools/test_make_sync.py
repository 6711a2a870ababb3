"""The generator of blocking stores."""

from __future__ import annotations

import subprocess
import sys

from tools.make_sync import ROOT, formatted, to_sync

SOURCE = '''"""AsyncThing: a store."""

from collections.abc import AsyncIterator

from things import OtherAsyncClient, run_async


class AsyncThing:
    """An ``AsyncThing`` is made by ``await AsyncThing.create(client)``."""

    async def scroll(self, client: OtherAsyncClient) -> AsyncIterator[int]:
        async with client.lock:  # await the lock
            async for page in client.pages():
                await run_async(page)
                yield page
'''

WANTED = '''"""Thing: a store."""

from collections.abc import Iterator

from things import OtherClient, run


class Thing:
    """A ``Thing`` is made by ``Thing.create(client)``."""

    def scroll(self, client: OtherClient) -> Iterator[int]:
        with client.lock:  # the lock
            for page in client.pages():
                run(page)
                yield page
'''


def test_keywords_and_names_go_in_code_and_in_docstrings():
    made = formatted(to_sync(SOURCE), ROOT / "muvera_adapters" / "thing" / "store.py")
    assert made.partition("\n")[2] == WANTED


def test_a_folder_of_another_distribution(tmp_path):
    (tmp_path / "async_store.py").write_text(SOURCE)

    def make_sync(*arguments):
        command = [sys.executable, ROOT / "tools" / "make_sync.py", *arguments, tmp_path]
        return subprocess.run(command, capture_output=True, text=True, check=False).returncode

    assert make_sync("--check") == 1
    assert make_sync() == 0
    assert (tmp_path / "store.py").read_text().partition("\n")[2] == WANTED
    assert make_sync("--check") == 0
