#!/usr/bin/env python3
"""REST under load: mixed requests at a steady pace, four fifths of them reads; how long each takes.

usage: rest_load.py http://127.0.0.1:PORT [--rate 300] [--seconds 60] [--limit-ms 50] [--long 20000] [--key KEY]

Fills the server with conversations, one of them long, then sends requests at times that were set beforehand, so that a slow
answer delays no other request and waiting for one's turn counts. Ends with 1 where a request failed, where the 99th
percentile is above the limit, or where a page of the long conversation takes more than 10 ms or a search in it more than
50 ms. Plain sockets and no package: a client that needs more than the server would measure itself.
"""
import argparse, asyncio, json, random, statistics, sys, time
from urllib.parse import quote, urlsplit

CONNECTIONS = 32
CONVERSATIONS = 200
# As in any language, a few words are in most texts and most words in few.
WORDS = [first + second + third for first in ("ta", "lo", "mi", "re", "su", "ka") for second in ("ne", "ru", "la", "to", "vi", "so", "pa", "du", "fe", "gi")
         for third in ("", "n", "r", "l", "st", "ra", "ko", "mu", "de", "ling")]
OFTEN = [1 / (place + 1) for place in range(len(WORDS))]


class Failure(Exception):
    pass


class Connection:
    """One kept-alive connection, one request at a time."""

    def __init__(self, host, port, key):
        self.host, self.port, self.reader, self.writer = host, port, None, None
        self.key = f"Authorization: Bearer {key}\r\n" if key else ""

    async def send(self, method, path, body=None):
        kept = self.writer is not None
        try:
            return await self.exchange(method, path, body)
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            # The server closes a connection that nothing came on for ten seconds: then it has heard nothing of this.
            if not kept or getattr(error, "partial", b""):
                raise
            self.writer = None
            return await self.exchange(method, path, body)

    async def exchange(self, method, path, body):
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port, limit=2**20)
        data = b"" if body is None else json.dumps(body).encode()
        kind = "Content-Type: application/json\r\n" if body is not None else ""
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n{self.key}{kind}Content-Length: {len(data)}\r\n\r\n"
        self.writer.write(head.encode() + data)
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = int(head.split(" ", 2)[1])
        length = 0
        for line in head.split("\r\n"):
            if line.startswith("content-length:"):
                length = int(line.split(":")[1])
        answer = await self.reader.readexactly(length) if length else b""
        if "connection: close" in head:
            self.writer.close()
            self.writer = None
        return status, answer


async def made(connection, path, body):
    status, answer = await connection.send("POST", path, body)
    if status != 201:
        raise Failure(f"POST {path}: {status} {answer[:300]}")
    return json.loads(answer)


def text(chance):
    return " ".join(chance.choices(WORDS, OFTEN, k=20))


async def fill(connection, chance, long):
    conversations, messages = [], []
    for _ in range(CONVERSATIONS):
        talk = (await made(connection, "/api/conversations", {"title": text(chance)}))["id"]
        batch = [{"conversation_id": talk, "role": "user", "content": text(chance)} for _ in range(30)]
        messages += [message["id"] for message in (await made(connection, "/api/messages/batch", {"messages": batch}))["messages"]]
        conversations.append(talk)
    longest = (await made(connection, "/api/conversations", {"title": "the long one"}))["id"]
    for _ in range(0, long, 500):
        batch = [{"conversation_id": longest, "role": "user", "content": text(chance)} for _ in range(500)]
        await made(connection, "/api/messages/batch", {"messages": batch})
    return conversations, messages, longest


def request(chance, conversations, messages):
    """A name, and what to send."""
    talk, message = chance.choice(conversations), chance.choice(messages)
    if chance.random() < 0.8:
        return chance.choice([
            ("conversations", "GET", "/api/conversations?limit=20", None),
            ("conversation", "GET", f"/api/conversations/{talk}", None),
            ("messages", "GET", f"/api/messages?conversation_id={talk}", None),
            ("recent", "GET", f"/api/messages/recent?conversation_id={talk}&n=10", None),
            ("last", "GET", f"/api/messages/last?conversation_id={talk}", None),
            ("message", "GET", f"/api/messages/{message}", None),
            ("search", "GET", f"/api/conversations/search?query={quote(' '.join(chance.choices(WORDS, OFTEN, k=2)))}", None),
            ("characters", "GET", "/api/characters", None),
        ])
    said = {"conversation_id": talk, "role": "user", "content": text(chance)}
    return chance.choice([
        ("new message", "POST", "/api/messages", said),
        ("new message", "POST", "/api/messages", said),
        ("edit", "PUT", f"/api/messages/{message}", {"content": text(chance)}),
        ("rename", "PUT", f"/api/conversations/{talk}", {"title": text(chance)}),
        ("new conversation", "POST", "/api/conversations", {"title": text(chance)}),
        ("batch", "POST", "/api/messages/batch", {"messages": [said] * 5}),
    ])


async def load(connect, chance, rate, seconds, conversations, messages):
    idle = asyncio.Queue()
    for _ in range(CONNECTIONS):
        idle.put_nowait(connect())
    times, failures = {}, []

    async def one(due, name, method, path, body):
        connection = await idle.get()
        try:
            status, answer = await connection.send(method, path, body)
            if not 200 <= status < 300:
                failures.append(f"{method} {path}: {status} {answer[:200]}")
            times.setdefault(name, []).append(time.perf_counter() - due)
        except (OSError, EOFError, asyncio.IncompleteReadError) as error:
            failures.append(f"{method} {path}: {error!r}")
            connection = connect()
        idle.put_nowait(connection)

    begun, tasks = time.perf_counter(), []
    for number in range(int(rate * seconds)):
        due = begun + number / rate
        await asyncio.sleep(max(0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due, *request(chance, conversations, messages))))
    await asyncio.gather(*tasks)
    return times, failures, time.perf_counter() - begun


async def alone(connection, path, rounds=20):
    """The median of what a request takes while nothing else happens, in milliseconds."""
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        status, answer = await connection.send("GET", path)
        times.append(1000 * (time.perf_counter() - begun))
        if status != 200:
            raise Failure(f"GET {path}: {status} {answer[:300]}")
    return statistics.median(times)


def share(times, part):
    times = sorted(times)
    return 1000 * times[min(len(times) - 1, int(part * len(times)))]


async def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("url")
    options.add_argument("--rate", type=float, default=300)
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--limit-ms", type=float, default=50)
    options.add_argument("--long", type=int, default=20000)
    options.add_argument("--key")
    options = options.parse_args()
    place = urlsplit(options.url)
    connect = lambda: Connection(place.hostname, place.port, options.key)
    chance, connection = random.Random(5), connect()
    conversations, messages, longest = await fill(connection, chance, options.long)
    times, failures, took = await load(connect, chance, options.rate, options.seconds, conversations, messages)
    everything = [one for some in times.values() for one in some]
    for name, some in sorted(times.items()):
        print(f"{name:18} {len(some):6}  p50 {share(some, 0.5):7.1f} ms  p99 {share(some, 0.99):7.1f} ms")
    p99 = share(everything, 0.99)
    print(f"{'all':18} {len(everything):6}  p50 {share(everything, 0.5):7.1f} ms  p99 {p99:7.1f} ms  max {share(everything, 1):7.1f} ms")
    print(f"{len(everything) / took:.0f} requests/s for {took:.0f} s, {len(failures)} errors")
    for failure in failures[:5]:
        print("  ", failure)
    page = await alone(connection, f"/api/messages?conversation_id={longest}&limit=50")
    found = await alone(connection, "/api/conversations/search?query=tane+tarun")
    common = await alone(connection, "/api/conversations/search?query=t")
    print(f"{options.long} messages: a page of 50 {page:.1f} ms, a search {found:.1f} ms, one for a letter {common:.1f} ms")
    sys.exit(1 if failures or p99 > options.limit_ms or page > 10 or max(found, common) > 50 else 0)


if __name__ == "__main__":
    asyncio.run(main())
