"""A name server for namespaces of a test's own: every name is 127.0.0.1. A program: its argument is the address to listen on."""

import socket
import sys

NO_ERROR_AND_NO_RECURSION = b"\x84\x00"
# A pointer to the name of the question; type A, class IN, no caching, four bytes.
LOOPBACK = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04" + bytes([127, 0, 0, 1])


def answer(query: bytes) -> bytes:
    """The answer to a query of one question; to one for anything but an address of IPv4, that there is none."""
    end = query.index(b"\0", 12) + 5
    wanted = query[end - 4 : end] == b"\x00\x01\x00\x01"
    counts = b"\x00\x01" + (b"\x00\x01" if wanted else b"\x00\x00") + b"\x00\x00\x00\x00"
    return query[:2] + NO_ERROR_AND_NO_RECURSION + counts + query[12:end] + (LOOPBACK if wanted else b"")


if __name__ == "__main__":
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind((sys.argv[1], 53))
        while True:
            query, client = server.recvfrom(512)
            server.sendto(answer(query), client)
