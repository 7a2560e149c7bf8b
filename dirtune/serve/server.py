"""A server of the web view on this machine."""

import secrets
import socket
from collections.abc import Callable, Sequence

import uvicorn

from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.plugins import load_files
from dirtune.serve.app import TOKEN, make_app

HOST = "127.0.0.1"


def serve(
    results: str,
    *,
    port: int,
    on_start: Callable[[str], None],
    plugins: Sequence[str] = (),
    allow_plugins: bool = False,
) -> None:
    """Serve the results until Ctrl-C.

    Args:
        results: path or URL of the results.
        port: number of the port; 0 means a free one.
        on_start: called with the address, which contains the token.
        plugins: files with figures of your own.
        allow_plugins: run the code of the plug-ins that sweeps have recorded, which may have figures.

    Raises:
        InputError: the location is not usable, or the port is in use.
    """
    # Before anything is served
    Storage.open(results)
    given = load_files(plugins)
    token = secrets.token_urlsafe(24)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        raise InputError(Fault(where="--port", rule=f"cannot be used ({error.strerror})", got=port)) from None
    with listener:
        # No log of requests: the first one has the token.
        config = uvicorn.Config(
            make_app(results, token, given, allow_plugins=allow_plugins),
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            lifespan="off",
        )
        on_start(f"http://{HOST}:{listener.getsockname()[1]}/?{TOKEN}={token}")
        uvicorn.Server(config).run(sockets=[listener])
