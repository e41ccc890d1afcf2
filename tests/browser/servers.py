"""Jupyter servers for the browser tests: on loopback, on a copy of the notebooks, with nobody's settings."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
# A cell that can show an explorer as the tests start it: `start("axes")`
OPEN = f"import sys\nsys.path.insert(0, {str(ROOT / 'tests')!r})\nfrom starts import start\n"
START_TIMEOUT_S = 120  # a cold disk, a busy machine

# JupyterLab asks nobody for news or updates, opens no announcements and saves nothing behind our back.
LAB = [
    "-m",
    "jupyterlab",
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.extension_manager=readonly",
    "--LabApp.expose_app_in_browser=True",  # as window.jupyterapp: the tests can wait for what they start
    "--ServerApp.allow_root=True",
    "--ServerApp.open_browser=False",
    "--IdentityProvider.token=",
    "--ServerApp.password=",
    "--ServerApp.ip=127.0.0.1",
    "--ServerApp.kernel_websocket_connection_class=normviz.serving.PromptConnection",  # as `make lab` does
]
# The classic notebook 6.5 has its own spelling of the same.
CLASSIC = [
    "-m",
    "notebook",
    "--NotebookApp.allow_root=True",
    "--NotebookApp.open_browser=False",
    "--NotebookApp.token=",
    "--NotebookApp.password=",
    "--NotebookApp.ip=127.0.0.1",
]


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def copyfile(self, *files):
        with suppress(ConnectionError):  # a page that was closed before it was there in whole
            super().copyfile(*files)


@contextmanager
def static(folder: Path) -> Iterator[str]:
    """The address of a static host on loopback that serves a folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def copy_notebooks(target: Path) -> Path:
    """A scratch copy of notebooks/ in `target`: pages save themselves, and may not touch the real ones."""
    return Path(shutil.copytree(ROOT / "notebooks", target / "notebooks", ignore=shutil.ignore_patterns(".ipynb_*")))


def write_notebook(folder: Path, name: str, *sources: str) -> str:
    """A notebook of these code cells in `folder`; returns its name."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernelspec}), folder / name)
    return name


def environment(home: Path) -> dict[str, str]:
    """This process's environment with every Jupyter folder inside `home`, the repository importable, no GPU."""
    folders = {f"JUPYTER_{kind.upper()}_DIR": str(home / kind) for kind in ("config", "data", "runtime")}
    return (
        os.environ
        | folders
        | {
            "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
            "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
            "JUPYTER_PREFER_ENV_PATH": "1",
            "IPYTHONDIR": str(home / "ipython"),
            "PYTHONPATH": str(ROOT),
            "PIP_NO_INDEX": "1",  # a notebook that would install something fails
            "CUDA_VISIBLE_DEVICES": "",
            "NORMVIZ_RUN": "short",  # notebook 08 trains for seconds, not minutes
        }
    )


def write_settings(home: Path) -> None:
    """JupyterLab's settings for the pages that are opened from now on."""
    settings = {
        "apputils-extension/themes": {"theme": "JupyterLab Light"},
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
        # Every cell is in the page, whether scrolled into view or not.
        "notebook-extension/tracker": {"windowingMode": "none"},
        "docmanager-extension/plugin": {"autosave": False},
    }
    for plugin, values in settings.items():
        file = home / "settings" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))


@contextmanager
def jupyter(command: list[str], notebooks: Path, home: Path) -> Iterator[str]:
    """Run `command` (LAB or CLASSIC) over the folder `notebooks`; yields its address, ends it and its kernels.

    `home` is an empty folder for all of Jupyter's own files. Raises RuntimeError with the server's log when it
    does not come up.
    """
    port = free_port()
    app = "NotebookApp" if command is CLASSIC else "ServerApp"
    root = "notebook_dir" if command is CLASSIC else "root_dir"
    arguments = [f"--{app}.port={port}", f"--{app}.port_retries=0", f"--{app}.{root}={notebooks}"]
    log = home / "server.log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            [sys.executable, *command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment(home),
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_up(address, server, log)
        yield address
    finally:
        server.send_signal(signal.SIGTERM)  # it shuts its kernels down
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def wait_until_up(address: str, server: subprocess.Popen, log: Path) -> None:
    """Return when the server answers; RuntimeError with its log when it ended or takes too long."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/api", timeout=5) as reply:
                if reply.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"{address} did not come up:\n{log.read_text(errors='replace')[-4000:]}")
