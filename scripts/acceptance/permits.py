#!/usr/bin/env python3
"""MAX_CONCURRENT_TTS=1 with three clients: speech is never generated twice at once, and who leaves frees the permit.

usage: permits.py WS_URL METRICS_URL

The server must run already, with MAX_CONCURRENT_TTS=1 and nobody else talking to it. Three clients ask at once; one hangs
up in the middle of its reply; the other two must end. Then a client that alone holds the permit hangs up, and the next
one must get audio and end. Meanwhile /metrics is read every 20 ms; its peak also knows what falls between two readings.
Needs: websockets.
"""
import argparse, asyncio, json, re, sys, time, urllib.request

import websockets

PROMPT = "Tell me a long story about a lighthouse keeper, in many sentences."
POLL_SECONDS = 0.02
REPLY_SECONDS = 180
NAMES = ("permits", "generating", "generating_peak", "waiting")


def read_figures(url):
    text = urllib.request.urlopen(url, timeout=5).read().decode()
    figures = {}
    for name in NAMES:
        values = re.findall(rf"^aichat_speech_{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
        if not values:
            sys.exit(f"no aichat_speech_{name} at {url}")
        figures[name] = sum(float(value) for value in values)
    return figures


class Watch:
    """Reads /metrics until stopped."""

    def __init__(self, url):
        self.url, self.readings = url, []

    async def run(self):
        while True:
            self.readings.append(await asyncio.to_thread(read_figures, self.url))
            await asyncio.sleep(POLL_SECONDS)

    def most(self, name):
        return max(reading[name] for reading in self.readings)

    async def until(self, what, seconds=10):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.readings and what(self.readings[-1]):
                return True
            await asyncio.sleep(POLL_SECONDS)
        return False


class Client:
    def __init__(self, name):
        self.name, self.audio_chunks, self.complete, self.errors = name, 0, False, []
        self.first_audio = asyncio.Event()

    async def converse(self, url):
        async with websockets.connect(url, max_size=2**24) as self.socket:
            hello = json.loads(await self.socket.recv())
            assert hello["type"] == "session_started", hello
            await self.socket.send(json.dumps({"type": "settings", "max_tokens": 80}))
            await self.socket.send(json.dumps({"type": "text_message", "text": PROMPT}))
            async for text in self.socket:
                message = json.loads(text)
                if message["type"] == "error":
                    self.errors.append(message)
                elif message["type"] == "audio_chunk":
                    self.audio_chunks += 1
                    self.first_audio.set()
                elif message["type"] == "turn_complete":
                    self.complete = True
                    return

    def start(self, url):
        self.task = asyncio.create_task(asyncio.wait_for(self.converse(url), REPLY_SECONDS))
        return self

    def hang_up(self):
        """No close frame: the connection is simply gone."""
        self.socket.transport.abort()

    async def end(self):
        (outcome,) = await asyncio.gather(self.task, return_exceptions=True)
        return outcome

    def problems(self):
        if self.complete and self.audio_chunks and not self.errors:
            return []
        return [f"{self.name}: complete {self.complete}, {self.audio_chunks} audio chunks, errors {self.errors}"]


async def three_at_once(url, watch):
    clients = [Client(name).start(url) for name in ("first", "second", "third")]
    # Whoever is heard first is in the middle of its reply.
    await asyncio.wait([asyncio.create_task(client.first_audio.wait()) for client in clients],
                       return_when=asyncio.FIRST_COMPLETED, timeout=REPLY_SECONDS)
    gone = next((client for client in clients if client.first_audio.is_set()), None)
    if gone is None:
        return ["nobody was heard"]
    gone.hang_up()
    others = [client for client in clients if client is not gone]
    for client in others:
        await client.end()
    await gone.end()
    problems = [problem for client in others for problem in client.problems()]
    if gone.complete:
        problems.append(f"{gone.name} was to hang up but had ended")
    if not watch.most("waiting"):
        problems.append("nobody ever waited: this proves nothing")
    print(f"three at once: {gone.name} hung up after {gone.audio_chunks} chunks; "
          + ", ".join(f"{client.name} got {client.audio_chunks} chunks" for client in others), flush=True)
    return problems


async def holder_hangs_up(url, watch):
    if not await watch.until(lambda figures: not figures["generating"]):
        return ["speech is still generated after the last client has left"]
    holder = Client("holder").start(url)
    if not await watch.until(lambda figures: figures["generating"] == 1, REPLY_SECONDS):
        return ["the holder never got the permit"]
    holder.hang_up()
    hung_up = time.monotonic()
    if not await watch.until(lambda figures: not figures["generating"]):
        return ["the permit was still held 10 s after its client had left"]
    freed = time.monotonic() - hung_up
    await holder.end()
    heir = Client("heir").start(url)
    await heir.end()
    print(f"holder hung up: its permit was free within {freed:.2f} s; heir got {heir.audio_chunks} chunks", flush=True)
    return heir.problems() + (["holder was to hang up but had ended"] if holder.complete else [])


async def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("ws_url")
    options.add_argument("metrics_url")
    o = options.parse_args()
    before = read_figures(o.metrics_url)
    if before["permits"] != 1:
        sys.exit(f"the server has {before['permits']:.0f} permits; start it with MAX_CONCURRENT_TTS=1")
    watch = Watch(o.metrics_url)
    watching = asyncio.create_task(watch.run())
    problems = await three_at_once(o.ws_url, watch) + await holder_hangs_up(o.ws_url, watch)
    if not await watch.until(lambda figures: not figures["generating"] and not figures["waiting"]):
        problems.append(f"at the end: {watch.readings[-1]}")
    if watching.done():
        problems.append(f"/metrics could not be read: {watching.exception()}")
    watching.cancel()
    peak, seen, waited = watch.most("generating_peak"), watch.most("generating"), watch.most("waiting")
    if peak != 1 or seen != 1:
        problems.append(f"{peak:.0f} were generated at once at the peak, {seen:.0f} as seen")
    print(f"{len(watch.readings)} readings: at most {seen:.0f} generated at once (peak by the server {peak:.0f}), at most {waited:.0f} waited")
    print("; ".join(problems) or "ok")
    sys.exit(bool(problems))


asyncio.run(main())
