"""Serve a folder that prepare.py wrote, with the headers that WebAssembly threads need.

python examples/web/serve.py build/web
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",  # both: threads need a cross-origin isolated page
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cache-Control": "no-cache",
}


class Handler(SimpleHTTPRequestHandler):
    """Files of one folder, with HEADERS."""

    extensions_map = {  # noqa: RUF012  # as the base class declares it
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


class Server(ThreadingHTTPServer):
    """Says nothing where a browser closes its connection early."""

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # typeshed names sockets


def main() -> int:
    """Serve until interrupted; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("build/web"))
    parser.add_argument("--port", type=int, default=8000, help="0: any free port")
    parser.add_argument("--address", default="127.0.0.1", help="0.0.0.0: every network of this machine")
    args = parser.parse_args()
    if not (args.folder / "index.html").is_file():
        print(f"error: {args.folder} has no index.html; write the folder with prepare.py", file=sys.stderr)
        return 2
    try:
        server = Server((args.address, args.port), partial(Handler, directory=str(args.folder)))
    except OSError as error:
        print(f"error: port {args.port}: {error.strerror}; choose another with --port", file=sys.stderr)
        return 2
    host = "localhost" if args.address == "127.0.0.1" else args.address
    print(f"http://{host}:{server.server_port}/  (Ctrl-C ends it)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
