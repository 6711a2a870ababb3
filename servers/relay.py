"""A TCP relay on loopback that falls silent on command: what a hanging server looks like from a client."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading


class Relay:
    """Accepts connections on :attr:`port`, and passes on what either side sends until :meth:`fall_silent`.

    Args:
        target: port of the server on 127.0.0.1; None: silent from the start.
        limit: number of bytes to pass on, in both directions together, before it falls silent; None: no limit.

    Attributes:
        port: port of 127.0.0.1 that clients connect to.
    """

    def __init__(self, target: int | None = None, limit: int | None = None) -> None:
        self._target = target
        self._left = limit
        self._silent = target is None
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def fall_silent(self) -> None:
        """Connections stay open and new ones are accepted, and nothing is answered."""
        self._silent = True

    def close(self) -> None:
        """Ends all connections, and refuses new ones."""
        # a thread that waits in accept() or select() keeps a closed socket open
        for each in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            self._sockets.append(client)
            if not self._silent and self._target is not None:
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets.append(server)
                threading.Thread(target=self._pass_on, args=(client, server), daemon=True).start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        other = {client: server, server: client}
        with selectors.DefaultSelector() as ready:
            for each in other:
                ready.register(each, selectors.EVENT_READ)
            while True:
                try:
                    for key, _ in ready.select():
                        data = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                        if not data:
                            client.close()
                            server.close()
                            return
                        if self._left is not None:
                            self._left -= len(data)
                            self._silent = self._silent or self._left < 0
                        if not self._silent:
                            other[key.fileobj].sendall(data)  # type: ignore[index]
                except (OSError, ValueError):  # closed by either side
                    return
