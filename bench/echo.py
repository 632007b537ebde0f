"""The yardstick: a bare aiohttp and uvloop server that answers every POST with its own body, on a Unix socket, TLS 1.3.

python -m bench.echo --socket S --cert CERT.pem --key KEY.pem
"""

from __future__ import annotations

import argparse
import ssl

import uvloop
from aiohttp import web

LARGEST_BODY_BYTES = 64 << 20


async def echo(request: web.Request) -> web.Response:
    """The body, back."""
    data = await request.read()
    return web.Response(body=data)


def main() -> None:
    """Serve until SIGTERM."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--socket", required=True)
    arguments.add_argument("--cert", required=True)
    arguments.add_argument("--key", required=True)
    given = arguments.parse_args()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(given.cert, given.key)
    application = web.Application(client_max_size=LARGEST_BODY_BYTES)
    application.router.add_post("/{path:.*}", echo)
    uvloop.install()
    web.run_app(application, path=given.socket, ssl_context=context, access_log=None, print=None)


if __name__ == "__main__":
    main()
