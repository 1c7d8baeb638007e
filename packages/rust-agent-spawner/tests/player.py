"""Responsible for a program that says exactly the bytes of a vector, in exactly its pieces.

Its argument is JSON: ``pieces`` (text, each byte one of its characters), ``exit``, and whether it
``greets`` as the Claude CLI does before a prompt comes.
"""

from __future__ import annotations

import json
import os
import sys
import time


def main() -> None:
    play = json.loads(sys.argv[1])
    if play["greets"]:
        greeting = json.loads(sys.stdin.buffer.readline())
        answer = {"subtype": "success", "request_id": greeting["request_id"], "response": {}}
        line = json.dumps({"type": "control_response", "response": answer})
        os.write(1, line.encode() + b"\n")
        sys.stdin.buffer.readline()
    for piece in play["pieces"]:
        os.write(1, piece.encode("latin-1"))
        # The next piece is a read of its own most of the time; the events are the same always.
        time.sleep(0.002)
    if play["exit"] is not None:
        os._exit(play["exit"])
    sys.stdin.buffer.read()


main()
