"""S3 server in this process, for the tests of roots in object stores."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from moto.server import ThreadedMotoServer


@contextmanager
def s3_server() -> Iterator[tuple[ThreadedMotoServer, str]]:
    """Yield the server and its address, as `host:port`."""
    # It logs every request.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield server, f"{host}:{port}"
    finally:
        server.stop()
