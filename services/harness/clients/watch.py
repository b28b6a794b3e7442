"""A foreign WebSocket client for tests: prints what it receives as JSON lines, and obeys commands on stdin.

    watch.py URL [--origin ORIGIN] [--header NAME:VALUE]...

Prints {"t": seconds since 1970, ...} with one of: "open": true; "text": the message; "close": code, "reason": text
(1006 when the connection broke); "refused": HTTP status; "failed": why the connection could not be opened.
Commands, one a line: "send TEXT", "close".
"""

import argparse
import asyncio
import json
import sys
import time

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus


def say(**what):
    print(json.dumps({"t": time.time(), **what}), flush=True)


async def obey(socket):
    """Follows the commands on stdin. Its end is no command: the connection stays."""
    lines = asyncio.StreamReader(limit=64 * 1024 * 1024)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := (await lines.readline()).decode():
        command, _, text = line.rstrip("\n").partition(" ")
        if command == "send":
            await socket.send(text)
        elif command == "close":
            await socket.close()
        else:
            print(f"unknown command: {command}", file=sys.stderr)


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--origin")
    parser.add_argument("--header", action="append", default=[])
    args = parser.parse_args()
    headers = [tuple(header.split(":", 1)) for header in args.header]
    try:
        # proxy=None: the environment's proxy is not for this machine's own servers.
        socket = await connect(
            args.url, origin=args.origin, additional_headers=headers, proxy=None, max_size=64 * 1024 * 1024
        )
    except InvalidStatus as error:
        return say(refused=error.response.status_code)
    except Exception as error:
        return say(failed=f"{type(error).__name__}: {error}")
    say(open=True)
    commands = asyncio.create_task(obey(socket))
    try:
        while True:
            message = await socket.recv()
            say(text=message if isinstance(message, str) else message.decode(errors="replace"))
    except ConnectionClosed:
        say(close=socket.close_code, reason=socket.close_reason or "")
    commands.cancel()


asyncio.run(main())
