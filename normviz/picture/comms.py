"""Widget messages while a cell runs: what makes a Stop button work under ipykernel 6 too."""

from __future__ import annotations

import json
import threading

_COMMS = ("comm_msg", "comm_open", "comm_close")


def deliver_comms(kernel=None) -> int:
    """Hands the widget messages that have arrived during the running cell to their widgets; says how many.

    JupyterLab 4.6 with ipykernel 7 needs no help: its widgets talk to a thread of their own (a subshell), and there
    is nothing to deliver.  ipykernel 6, Colab's, reads its shell socket between two cells only: this reads it now.
    A cell that was asked to run meanwhile keeps its place in the kernel's queue.  Where no kernel runs, or outside
    of its main thread, nothing happens.

    kernel: by default the one that runs this code.
    """
    if kernel is None:
        from IPython import get_ipython

        kernel = getattr(get_ipython(), "kernel", None)
    stream = getattr(kernel, "shell_stream", None)
    own_thread = getattr(
        kernel, "shell_channel_thread", None
    )  # of ipykernel 7, which alone may read the socket
    if stream is None or own_thread or threading.current_thread() is not threading.main_thread():
        return 0
    delivered, taken = 0, False
    while stream.socket.poll(0):
        taken = True
        frames = stream.socket.recv_multipart(copy=False)
        _, parts = kernel.session.feed_identities(frames, copy=False)
        # Behind the signature comes the header.  It is only looked at: the session refuses what it has read before
        if json.loads(bytes(parts[1]))["msg_type"] in _COMMS:
            _dispatch(kernel, frames)
            delivered += 1
        else:
            kernel.schedule_dispatch(kernel.dispatch_shell, frames)
    if taken:
        # The loop is told of new messages, not of old ones: have it look once more when the cell is done
        stream.io_loop.add_callback(stream.flush)
    return delivered


def _dispatch(kernel, frames) -> None:
    """Has the kernel answer one message here and now, and go on as the parent of this cell's output."""
    ident, parent = kernel._parent_ident["shell"], kernel.get_parent("shell")
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
        kernel.set_parent(ident, parent, "shell")
