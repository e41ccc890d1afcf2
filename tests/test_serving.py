"""The server of `make lab`: its connection to the browser does not hold small messages back."""

import re
import socket
from pathlib import Path

from jupyter_server.serverapp import ServerApp
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from tornado.iostream import IOStream

from normviz.serving import PromptConnection

MAKEFILE = Path(__file__).resolve().parents[1] / "Makefile"


def test_the_socket_is_told_before_the_first_message(monkeypatch):
    ours, theirs = socket.create_server(("127.0.0.1", 0)), socket.socket()
    with ours, theirs:
        theirs.connect(ours.getsockname())
        stream = IOStream(ours.accept()[0])
        before = []

        def connect(self):
            before.append(stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            return "connected"

        monkeypatch.setattr(ZMQChannelsWebsocketConnection, "connect", connect)
        connection = PromptConnection.__new__(PromptConnection)
        monkeypatch.setattr(PromptConnection, "websocket_handler", stream)  # tornado's handler hands it on
        assert stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
        assert connection.connect() == "connected" and before[0] != 0
        stream.close()


def test_make_lab_names_it_as_jupyter_server_takes_it():
    name, value = re.search(r"--ServerApp\.(\w+)=(\S+)", MAKEFILE.read_text(encoding="utf-8")).groups()
    app = ServerApp(**{name: value})
    assert getattr(app, name) is PromptConnection
