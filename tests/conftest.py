"""Settings for every test: property tests have no deadline, as the machine may be busy; nobody asks another machine."""

import ipaddress
import os
import signal
import socket
import sys
import threading
import zlib

import pytest
from shortened import SHORTER, shorten

try:
    from hypothesis import settings
except ImportError:  # not every environment that drives a browser has it
    pass
else:
    settings.register_profile("normviz", deadline=None)
    settings.load_profile("normviz")


# A shell that starts pytest in the background has it ignore Ctrl-C, and so would every process that a test starts
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """The chapters' cells as nbval runs them: with short trainings where `NORMVIZ_RUN` asks for it."""
    short = os.environ.get("NORMVIZ_RUN") == "short"
    cells = [item for item in items if hasattr(item, "cell")]
    if not short:
        for item in cells:
            if item.path.name in (*SHORTER, "08_loss_crash.ipynb"):  # which is short by itself
                item.add_marker("long")
        return
    not_compared = [cell for file in {item.parent for item in cells} for cell in shorten(file.nb, file.path.name)]
    for item in cells:
        if any(item.cell is cell for cell in not_compared):
            item.options["check"] = False


def is_loopback(family: int, address) -> bool:
    """Whether a socket's address is of this machine alone."""
    if family not in (socket.AF_INET, socket.AF_INET6):
        return True  # a file, a pair of sockets
    host = address[0].partition("%")[0]
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # the name of another machine


@pytest.fixture(autouse=True)
def seeded(request):
    """Torch's generator starts from the test's own name: the same numbers alone, in any order, on any worker."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(autouse=True)
def asked_elsewhere(monkeypatch):
    """Connections to other machines are refused, and fail the test even if the code that asked takes it well.

    It covers this process; the pages of the browser tests are watched by Playwright (see browser/pages.py).
    """
    asked: list[str] = []

    def guarded(name: str):
        connect = getattr(socket.socket, name)

        def guard(self, address):
            # A datagram's connect sends nothing: libraries learn this machine's own address by it
            if self.type & socket.SOCK_STREAM and not is_loopback(self.family, address):
                asked.append(str(address))
                raise ConnectionRefusedError(f"tests stay on this machine; asked for {address}")
            return connect(self, address)

        return guard

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, guarded(name))
    look_up = socket.getaddrinfo

    def getaddrinfo(host, *arguments, **options):
        text = host.decode() if isinstance(host, bytes) else host
        if text and not is_loopback(socket.AF_INET, (text,)) and text != socket.gethostname():
            asked.append(text)
            raise socket.gaierror(socket.EAI_NONAME, f"tests stay on this machine; asked for {text}")
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield asked
    assert not asked, f"asked elsewhere: {', '.join(asked)}"
