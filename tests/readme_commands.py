"""Runs a block of the README's commands as they stand there: `python -m tests.readme_commands powershell`.

Every line has to end well.  The one that opens JupyterLab does not end: it has to answer, then it is ended.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHELLS = {"powershell": ["powershell", "-NoProfile", "-Command"], "sh": ["sh", "-c"]}
PORT = 8899
WAIT_S = 180


def blocks(language: str, text: str) -> list[list[str]]:
    """The commands of every block of that language, without their comments."""
    found = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return [[line for raw in block.splitlines() if (line := raw.partition(" #")[0].strip())] for block in found]


def opens_jupyter(command: str) -> bool:
    return re.search(r"\bjupyter lab\b", command) is not None


def run(command: str, shell: list[str]) -> None:
    """Raises CalledProcessError, or TimeoutError for a JupyterLab that never answers."""
    print(f"> {command}", flush=True)
    if not opens_jupyter(command):
        subprocess.run([*shell, command], cwd=ROOT, check=True)
        return
    options = f"--no-browser --IdentityProvider.token= --ServerApp.ip=127.0.0.1 --ServerApp.port={PORT}"
    server = subprocess.Popen([*shell, f"{command} {options}"], cwd=ROOT)
    try:
        for _ in range(WAIT_S):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/api/status", timeout=5) as reply:
                    print(f"JupyterLab answers: {reply.status}", flush=True)
                    return
            except OSError:
                time.sleep(1)
        raise TimeoutError(f"{command} did not answer within {WAIT_S} s")
    finally:
        if sys.platform == "win32":  # the shell's children, too
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(server.pid)], check=False, capture_output=True)
        server.kill()
        server.wait()


def main(language: str) -> None:
    for command in blocks(language, (ROOT / "README.md").read_text(encoding="utf-8"))[0]:
        run(command, SHELLS[language])


if __name__ == "__main__":
    main(sys.argv[1])
