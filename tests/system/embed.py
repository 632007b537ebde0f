"""Runs in the container, on inferd's own Python: embeds a text in OpenAI's way and prints how long the vector is."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import sys

SOCKET = "/run/inferd/inferd.sock"


def main(model: str) -> None:
    """Ask once; an answer that has no vector is an error."""
    trusted = ssl.create_default_context(cafile=f"{SOCKET}.ca.pem")
    with socket.socket(socket.AF_UNIX) as plain:
        plain.settimeout(60)
        plain.connect(SOCKET)
        connection = http.client.HTTPConnection("localhost")
        connection.sock = trusted.wrap_socket(plain, server_hostname="localhost")
        asked = {"model": model, "input": "the cat sat on the mat"}
        connection.request("POST", "/v1/embeddings", json.dumps(asked), {"content-type": "application/json"})
        answer = json.load(connection.getresponse())
    assert "data" in answer, answer
    print(len(answer["data"][0]["embedding"]))


main(sys.argv[1])
