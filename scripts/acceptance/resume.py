#!/usr/bin/env python3
"""kill -9 in the middle of replies: a client that comes back must miss nothing and hear nothing twice.

usage: resume.py BINARY ROUNDS [SERVE ARGUMENTS…]

Each round asks for a story over /ws, kills the server at a random moment with SIGKILL, starts it again on the same database,
and resumes at the last number that was read, at 0, and at a random number. What had been told must be told again, word for
word, once, but for audio, and but for numbers that were given out in the last second before the kill; the resumed
session must speak the reply to its end, under its item_id, and at last answer something new. Needs: websockets.
"""
import asyncio, json, random, signal, subprocess, sys, tempfile, time

import websockets

from kill import free_port, wait_ready

JOURNAL_SECONDS = 1.0
STORY = "Tell me a long story about a lighthouse keeper, in many sentences."


def start(binary, folder, extra):
    port = free_port()
    server = subprocess.Popen([binary, "serve", "--port", str(port), "--data-dir", folder, *extra], stderr=subprocess.DEVNULL)
    wait_ready(port, server)
    return port, server


async def read(socket, until, patience=60):
    """Messages with when they came, up to and with the first that is `until`."""
    told, deadline = [], time.monotonic() + patience
    while not told or not until(told[-1][1]):
        message = json.loads(await asyncio.wait_for(socket.recv(), deadline - time.monotonic()))
        assert message["type"] != "error", message
        told.append((time.monotonic(), message))
    return told


async def until_killed(port, server, chance):
    told = []
    async with websockets.connect(f"ws://127.0.0.1:{port}/ws", max_size=2**24) as socket:
        started = (await read(socket, lambda message: True))[0]
        told.append(started)
        await socket.send(json.dumps({"type": "settings", "max_tokens": 100, "seed": 1}))
        await socket.send(json.dumps({"type": "text_message", "text": STORY}))
        kill_at = time.monotonic() + chance.uniform(0.1, 6)
        try:
            while True:
                told += await read(socket, lambda message: True, kill_at - time.monotonic())
        except TimeoutError:
            pass
        server.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        server.wait()
        # What had been sent and not read yet.
        try:
            while True:
                told += await read(socket, lambda message: True, 1)
        except (websockets.ConnectionClosed, TimeoutError):
            pass
    return started[1], [(at, message) for at, message in told if "seq" in message], killed


async def resumed(port, started, last_seq):
    socket = await websockets.connect(f"ws://127.0.0.1:{port}/ws?resume=1", max_size=2**24)
    token = {name: started[name] for name in ("session_id", "resume_token")}
    await socket.send(json.dumps({"type": "resume", **token, "last_seq": last_seq}))
    answer = (await read(socket, lambda message: True))[0][1]
    assert answer == {"type": "resumed", "from_seq": last_seq + 1}, answer
    return socket


async def come_back(port, started, told, killed, chance):
    """How many messages were told again, and how many of the last second were not."""
    known = {message["seq"]: message for _, message in told}
    assert sorted(known) == list(range(1, len(known) + 1)), f"numbers with gaps or twice: {sorted(known)}"
    last, recent = max(known), {message["seq"] for at, message in told if at > killed - JOURNAL_SECONDS}
    again = unwritten = 0
    items = {message["item_id"] for _, message in told if message["type"] == "text_chunk"}
    over = {message["item_id"] for _, message in told if message["type"] in ("turn_complete", "interrupted")}
    for last_seq in (last, 0, chance.randrange(last)):
        socket = await resumed(port, started, last_seq)
        await socket.send(json.dumps({"type": "ping", "ref": "end"}))
        replayed = [message for _, message in await read(socket, lambda message: message["type"] == "pong") if "seq" in message]
        numbers = [message["seq"] for message in replayed]
        assert numbers == sorted(set(numbers)), f"not once each, in order: {numbers}"
        for message in replayed:
            assert message["seq"] > last or message == known.get(message["seq"]), f"{message} was {known.get(message['seq'])}"
        missing = set(range(last_seq + 1, last + 1)) - set(numbers)
        assert missing <= recent, f"after {last_seq} of {last}: {sorted(missing - recent)} are missing"
        again, unwritten = again + len(set(numbers) & set(known)), max(unwritten, len(missing))
        # Cut off, not closed: the session waits.
        socket.transport.abort()
    socket = await resumed(port, started, last)
    rest = []
    for item_id in items - over:
        ended = lambda message: message["type"] == "turn_complete" and message["item_id"] == item_id
        while not any(ended(message) for message in rest):
            rest += [message for _, message in await read(socket, lambda message: True)]
    await socket.send(json.dumps({"type": "text_message", "text": "Thank you. Say yes.", "output": "text"}))
    more = await read(socket, lambda message: message["type"] == "turn_complete" and message["item_id"] not in items)
    numbers = [message["seq"] for message in rest + [message for _, message in more] if "seq" in message]
    assert numbers == sorted(set(numbers)) and (not numbers or numbers[0] > last), numbers
    await socket.close()
    return again, unwritten, len(items - over)


def main():
    binary, rounds, extra = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    spoken_on = 0
    for seed in range(rounds):
        chance = random.Random(seed)
        with tempfile.TemporaryDirectory() as folder:
            port, server = start(binary, folder, extra)
            started, told, killed = asyncio.run(until_killed(port, server, chance))
            port, server = start(binary, folder, extra)
            try:
                again, unwritten, open_replies = asyncio.run(come_back(port, started, told, killed, chance))
            finally:
                server.kill()
                server.wait()
        spoken_on += open_replies
        print(f"round {seed + 1}: {len(told)} messages told, {again} told again in 3 resumes, at most {unwritten} of the last second not; {open_replies} cut-off replies spoken on", flush=True)
    sys.exit(not spoken_on)


main()
