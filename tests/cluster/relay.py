"""A relay on loopback to the lab's API server that tests can cut, and the kubeconfig that leads through it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml


class Relay:
    """A relay to the API server that can be closed: then connections are cut, and new ones refused."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.port = 0
        self._sockets: list[socket.socket] = []

    def open(self) -> None:
        """Accept all connections."""
        listener = socket.create_server(("127.0.0.1", self.port), reuse_port=False)
        self.port = listener.getsockname()[1]
        self._sockets = [listener]
        threading.Thread(target=self._accept, args=[listener], daemon=True).start()

    def close(self) -> None:
        """Refuse new connections, and cut the open ones."""
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def cut(self) -> None:
        """Close all connections; new ones are accepted."""
        self.close()
        self.open()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(self.target)
                self._sockets += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def open_relay(kubeconfig: Path, copy: Path) -> Iterator[Relay]:
    """Yield an open relay; `copy` becomes the kubeconfig with it."""
    config = yaml.safe_load(kubeconfig.read_text("utf-8"))
    server = config["clusters"][0]["cluster"]["server"]
    host, _, port = server.removeprefix("https://").partition(":")
    link = Relay((host, int(port)))
    link.open()
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{link.port}"
    copy.write_text(yaml.safe_dump(config), "utf-8")
    try:
        yield link
    finally:
        link.close()
