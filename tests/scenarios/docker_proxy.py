"""A door to the Docker engine that slams shut: it passes everything through, and cuts the streams of execs after some bytes."""

from __future__ import annotations

import select
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ENGINE = "/var/run/docker.sock"


class Door:
    """Whoever comes is served beside the others, until the server is closed."""

    def __init__(self, server: socket.socket) -> None:
        self.server = server
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client: socket.socket) -> None:
        raise NotImplementedError


class Proxy(Door):
    def __init__(self, path: Path) -> None:
        self.path = path
        # How many more streams are cut, and after how many bytes of the engine's answer.
        self.cuts_left = 0
        self.after = 0
        self.cut = 0
        self.lock = threading.Lock()
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.listen()
        super().__init__(server)

    @property
    def address(self) -> str:
        return f"unix://{self.path}"

    def serve(self, client: socket.socket) -> None:
        engine = socket.socket(socket.AF_UNIX)
        engine.connect(ENGINE)
        is_exec = threading.Event()
        up = threading.Thread(target=self.pass_on, args=(client, engine, is_exec), daemon=True)
        up.start()
        self.pass_back(engine, client, is_exec)

    def pass_on(self, client: socket.socket, engine: socket.socket, is_exec: threading.Event) -> None:
        try:
            while piece := client.recv(1 << 16):
                if piece.startswith(b"POST /") and b"/start HTTP" in piece and b"/exec/" in piece:
                    is_exec.set()
                engine.sendall(piece)
            engine.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def pass_back(self, engine: socket.socket, client: socket.socket, is_exec: threading.Event) -> None:
        passed = 0
        try:
            while piece := engine.recv(1 << 16):
                passed += len(piece)
                if is_exec.is_set() and passed > self.after and self.may_cut():
                    break
                client.sendall(piece)
        except OSError:
            pass
        for end in (client, engine):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()

    def may_cut(self) -> bool:
        with self.lock:
            if self.cuts_left == 0:
                return False
            self.cuts_left -= 1
            self.cut += 1
            return True


@contextmanager
def proxy(folder: Path) -> Iterator[Proxy]:
    made = Proxy(folder / "docker.sock")
    try:
        yield made
    finally:
        made.server.close()


class TlsDoor(Door):
    """The engine behind TLS, to clients with a certificate, on a port of loopback. Each side may end before the other."""

    def __init__(self, authority: Path, certificate: Path, key: Path) -> None:
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority))
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.context.load_cert_chain(certificate, key)
        self.served = 0
        super().__init__(socket.create_server(("127.0.0.1", 0)))

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.server.getsockname()[1]}"

    def serve(self, client: socket.socket) -> None:
        encrypted, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self.context.wrap_bio(encrypted, to_send, server_side=True)
        with client, socket.socket(socket.AF_UNIX) as engine:
            engine.connect(ENGINE)
            try:
                self.pass_both_ways(client, engine, tls, encrypted, to_send)
            except OSError:
                pass

    def pass_both_ways(
        self, client: socket.socket, engine: socket.socket, tls: ssl.SSLObject, encrypted: ssl.MemoryBIO, to_send: ssl.MemoryBIO
    ) -> None:
        is_open, asks = False, True
        while True:
            try:
                if not is_open:
                    tls.do_handshake()
                    is_open = True
                    self.served += 1
                while asks:
                    if piece := tls.read(1 << 16):
                        engine.sendall(piece)
                    else:
                        asks = False
                        engine.shutdown(socket.SHUT_WR)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLZeroReturnError:
                asks = False
                engine.shutdown(socket.SHUT_WR)
            finally:
                if said := to_send.read():
                    client.sendall(said)
            ready, _, _ = select.select([*([client] if asks else []), *([engine] if is_open else [])], [], [])
            if client in ready:
                piece = client.recv(1 << 16)
                encrypted.write(piece) if piece else encrypted.write_eof()
            if engine in ready:
                piece = engine.recv(1 << 16)
                if not piece:
                    return
                tls.write(piece)
                client.sendall(to_send.read())


@contextmanager
def tls_door(authority: Path, certificate: Path, key: Path) -> Iterator[TlsDoor]:
    made = TlsDoor(authority, certificate, key)
    try:
        yield made
    finally:
        made.server.close()


if __name__ == "__main__":
    # For the double of Colima: an engine that answers at another address, until it is ended.
    Proxy(Path(sys.argv[1]))
    threading.Event().wait()
