"""JupyterLab that hands the kernel's messages on at once.

The kernel answers a slider with several small messages: busy, echo, new picture, idle.  Jupyter Server leaves
Nagle's algorithm on (RFC 896), so that the second of them waits for the browser to acknowledge the first, which may
take 40 ms, longer than drawing and painting the picture takes.  `make lab` therefore starts

    jupyter lab --ServerApp.kernel_websocket_connection_class=normviz.serving.PromptConnection

Other servers work too, with that delay.
"""

from __future__ import annotations

from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection


class PromptConnection(ZMQChannelsWebsocketConnection):
    """Jupyter Server's own connection between a browser and a kernel, with TCP_NODELAY set on its socket."""

    def connect(self):
        self.websocket_handler.set_nodelay(True)
        return super().connect()
