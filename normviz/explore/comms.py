"""Widget messages while a cell runs: what makes a Stop button work."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from functools import partial

_COMMS = ("comm_msg", "comm_open", "comm_close")


def deliver_comms(kernel=None) -> int:
    """Hands the widget messages that have arrived during the running cell to their widgets; says how many.

    A kernel answers messages between two cells.  JupyterLab 4.4 with ipykernel 7 has a thread (a subshell) for those of
    widgets, but ipykernel 7.4 sends them to the main thread again if that is where their widget last spoke; Colab's
    ipykernel 6 has no such thread.  So the cell reads them itself.  A cell that was asked to run meanwhile keeps its
    place in the kernel's queue.  Where no kernel runs, or outside of its main thread, nothing happens.

    kernel: by default the one that runs this code.
    """
    if kernel is None:
        from IPython import get_ipython

        kernel = getattr(get_ipython(), "kernel", None)
    if kernel is None or threading.current_thread() is not threading.main_thread():
        return 0
    try:
        stream, later = _channel(kernel)
    except AttributeError:  # a kernel of another make: its messages wait, as they do without us
        return 0
    delivered, taken = 0, False
    while stream.socket.poll(0):
        taken = True
        frames = stream.socket.recv_multipart(copy=False)
        _, parts = kernel.session.feed_identities(frames, copy=False)
        # After the signature comes the header.  It is only looked at: the session refuses what it has read before
        if json.loads(bytes(parts[1]))["msg_type"] in _COMMS:
            _dispatch(kernel, frames)
            delivered += 1
        else:
            later(frames)
    if taken:
        # The loop is told of new messages, not of old ones: have it look once more when the cell is done
        stream.io_loop.add_callback(stream.flush)
    return delivered


def _channel(kernel) -> tuple[object, Callable]:
    """The stream on which messages reach the kernel's main thread, and how to have one answered after this cell."""
    if thread := getattr(kernel, "shell_channel_thread", None):  # ipykernel 7: it reads the socket and passes them on
        stream = thread.manager.get_shell_channel_to_subshell_pair(None).to_stream
        return stream, partial(stream.io_loop.add_callback, kernel.shell_main, None)
    return kernel.shell_stream, partial(kernel.schedule_dispatch, kernel.dispatch_shell)


def _dispatch(kernel, frames) -> None:
    """Has the kernel answer one message here and now, then leaves it as it was: busy with this cell."""
    ident, parent = kernel._parent_ident["shell"], kernel.get_parent("shell")
    handler = getattr(kernel, "saved_sigint_handler", None)
    answer = kernel.dispatch_shell(frames)
    try:
        # The kernel's loop is busy with this cell, so nobody else can run the coroutine; a comm's waits for nothing
        answer.send(None)
    except StopIteration:
        pass
    else:
        answer.close()
        raise RuntimeError("the kernel put off a widget message that it should have answered at once")
    finally:
        kernel.saved_sigint_handler = handler
        kernel.set_parent(ident, parent, "shell")
