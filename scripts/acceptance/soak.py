#!/usr/bin/env python3
"""Many short turns on one server; its memory must stay flat.

usage: soak.py WS_URL SERVER_PID TURNS

Prints the server's resident memory after every tenth of the turns, and fails where the second half grew by more than 5 %.
Needs: websockets.
"""
import asyncio, json, sys

import websockets


def resident_mb(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


async def turn(socket, number):
    await socket.send(json.dumps({"type": "text_message", "text": f"Say one short sentence about the number {number}.", "client_message_id": f"turn-{number}"}))
    while True:
        message = json.loads(await asyncio.wait_for(socket.recv(), 120))
        if message["type"] == "error":
            sys.exit(f"turn {number}: {message}")
        if message["type"] == "turn_complete":
            return


async def main():
    url, pid, turns = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    sizes, step = [], max(1, turns // 10)
    for number in range(0, turns, step):
        # A conversation of its own for each tenth, as clients come and go.
        async with websockets.connect(url, max_size=2**24) as socket:
            await socket.recv()
            await socket.send(json.dumps({"type": "settings", "max_tokens": 24, "lead_ms": 2000}))
            for inner in range(number, min(number + step, turns)):
                await turn(socket, inner)
        sizes.append(resident_mb(pid))
        print(f"{min(number + step, turns)} turns: {sizes[-1]:.0f} MB", flush=True)
    middle = sizes[len(sizes) // 2]
    growth = sizes[-1] / middle - 1
    print(f"second half: {growth:+.1%}")
    sys.exit(growth > 0.05)


asyncio.run(main())
