#!/usr/bin/env python3
"""kill -9 in the middle of turns: what message_saved named must be in the database afterwards.

usage: kill.py BINARY ROUNDS [SERVE ARGUMENTS…]

Starts `BINARY serve` on a port of its own with a temporary database, sends text messages, kills it at a random moment, and
looks into the database with python's sqlite3. Needs: websockets.
"""
import asyncio, json, os, random, signal, socket, sqlite3, subprocess, sys, tempfile, time, urllib.request

import websockets


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_ready(port, server):
    for _ in range(600):
        if server.poll() is not None:
            sys.exit(f"the server ended with {server.returncode}")
        try:
            if urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1).status == 200:
                return
        except OSError:
            time.sleep(0.1)
    sys.exit("the server did not get ready")


async def talk(port, server, seed):
    chance, saved = random.Random(seed), {}
    async with websockets.connect(f"ws://127.0.0.1:{port}/ws", max_size=2**24) as connection:
        await connection.recv()
        kill_at = time.monotonic() + chance.uniform(0.05, 4)
        await connection.send(json.dumps({"type": "text_message", "text": f"Hello {seed}", "client_message_id": f"m-{seed}"}))
        try:
            while time.monotonic() < kill_at:
                message = json.loads(await asyncio.wait_for(connection.recv(), max(0.01, kill_at - time.monotonic())))
                if message["type"] == "message_saved":
                    saved[message["message_id"]] = message["status"]
                if message["type"] == "turn_complete":
                    await connection.send(json.dumps({"type": "text_message", "text": "And again?"}))
        except TimeoutError:
            pass
        server.send_signal(signal.SIGKILL)
        server.wait()
    return saved


def main():
    binary, rounds, extra = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    lost = total = 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(rounds):
            port = free_port()
            server = subprocess.Popen([binary, "serve", "--port", str(port), "--data-dir", folder, *extra], stderr=subprocess.DEVNULL)
            wait_ready(port, server)
            saved = asyncio.run(talk(port, server, seed))
            database = sqlite3.connect(os.path.join(folder, "aichat.db"))
            assert database.execute("pragma integrity_check").fetchone()[0] == "ok"
            present = {row[0] for row in database.execute("select id from messages")}
            database.close()
            total += len(saved)
            lost += len(set(saved) - present)
            print(f"round {seed + 1}: {len(saved)} acknowledged, {len(set(saved) - present)} lost", flush=True)
    print(f"{total} acknowledged, {lost} lost")
    sys.exit(bool(lost) or not total)


if __name__ == "__main__":
    main()
