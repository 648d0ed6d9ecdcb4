#!/usr/bin/env python3
"""Whether coughs, "mhm" and the server's own voice leave a reply alone, and a word stops it.

usage: barge_in.py HTTP_URL [--rounds 20]

Asks for a long reply over /ws, and while it is heard plays into the microphone, in real time: coughs (bursts of noise), "mhm"
(the server's own voice), "stop, please" and, for a whole reply, that reply itself, 20 dB softer and 200 ms late. The first
two must leave no `interrupted` behind, and no duck without its unduck; the third must interrupt; the last must not. For each
duck it prints how long after the sound's onset it came. Needs: numpy, websockets.
"""
import argparse, asyncio, base64, json, statistics, sys, time

import numpy, websockets

import pauses

FRAME = pauses.RATE // 50
STORY = "Tell me a long story about a lighthouse keeper, in many sentences."
ECHO_GAIN, ECHO_DELAY = 0.1, 0.2


def cough(seed):
    """Two or three bursts of coloured noise, 90 to 200 ms each."""
    draw, pieces = numpy.random.default_rng(seed), []
    for _ in range(draw.integers(2, 4)):
        length = int(draw.uniform(0.09, 0.2) * pauses.RATE)
        noise = numpy.convolve(draw.normal(0, 1, length), numpy.ones(4) / 4, "same")
        pieces += [0.15 * noise * numpy.exp(-numpy.linspace(0, 4, length)), numpy.zeros(int(0.12 * pauses.RATE))]
    return numpy.concatenate(pieces).astype(numpy.float32)


class Call:
    def __init__(self, socket):
        self.socket, self.started = socket, time.monotonic()
        self.messages, self.speech, self.heard = [], [], asyncio.Event()
        self.first_audio = None

    def now(self):
        return time.monotonic() - self.started

    async def listen(self):
        async for text in self.socket:
            message = json.loads(text)
            self.messages.append((self.now(), message))
            if message["type"] == "audio_chunk":
                self.first_audio = self.first_audio or self.now()
                self.speech.append(numpy.frombuffer(base64.b64decode(message["audio_data"]), "<i2").astype(numpy.float32) / 32768)
                self.heard.set()

    def of(self, *kinds):
        return [(at, m["type"]) for at, m in self.messages if m["type"] in kinds]

    async def play(self, samples_at, until):
        """Sends what `samples_at(first, last)` gives, 20 ms at a time, until `until()`."""
        begun, sent = time.monotonic(), 0
        while not until():
            frame = samples_at(sent, sent + FRAME) + numpy.random.default_rng(sent).normal(0, pauses.NOISE, FRAME)
            data = base64.b64encode((numpy.clip(frame, -1, 1) * 32767).astype("<i2").tobytes()).decode()
            await self.socket.send(json.dumps({"type": "audio_chunk", "audio_data": data, "format": "pcm", "sample_rate": pauses.RATE, "channels": 1}))
            sent += FRAME
            await asyncio.sleep(max(0, begun + sent / pauses.RATE - time.monotonic()))


def piece(samples, first, last):
    part = samples[max(0, first) : max(0, last)] if last > 0 else samples[:0]
    return numpy.pad(part, (last - first - len(part), 0) if first < 0 else (0, last - first - len(part)))


async def reply(server, sound):
    """One reply with `sound` in it; None: with itself. Gives the call and the sound's onset."""
    async with websockets.connect(server.replace("http", "ws", 1) + "/ws", max_size=2**24) as socket:
        assert json.loads(await socket.recv())["type"] == "session_started"
        call = Call(socket)
        ear = asyncio.create_task(call.listen())
        await socket.send(json.dumps({"type": "settings", "max_tokens": 80, "languages": ["en"]}))
        await socket.send(json.dumps({"type": "text_message", "text": STORY}))
        await asyncio.wait_for(call.heard.wait(), 60)
        onset = call.now() + 0.6
        over = lambda: bool(call.of("turn_complete", "interrupted"))
        if sound is None:
            own = lambda: numpy.concatenate(call.speech)

            def echo(first, last):
                at = lambda sample: int((sample / pauses.RATE - ECHO_DELAY) * 24000)
                part = piece(own(), at(first), at(last))
                return ECHO_GAIN * numpy.interp(numpy.linspace(0, len(part) - 1, last - first), numpy.arange(len(part)), part)

            await call.play(echo, over)
        else:
            begin = int(0.6 * pauses.RATE)
            end = onset + len(sound) / pauses.RATE + 4
            await call.play(lambda first, last: piece(sound, first - begin, last - begin), lambda: over() or call.now() > end)
        ear.cancel()
        return call, onset


async def main():
    options = argparse.ArgumentParser()
    options.add_argument("server")
    options.add_argument("--rounds", type=int, default=20)
    o = options.parse_args()
    server = o.server.rstrip("/")
    stop = pauses.speak(server, "am_adam", "Stop, please! That is enough.")
    agree = [pauses.speak(server, voice, text) for voice in ("af_heart", "bm_george") for text in ("Mhm.", "Uh-huh.", "Mm.")]
    level = lambda samples: samples * (0.1 / float(numpy.sqrt((samples**2).mean())))
    scenes = [("cough", [cough(seed) for seed in range(o.rounds)], False), ("mhm", [level(agree[n % len(agree)]) for n in range(o.rounds)], False)]
    scenes += [("stop, please", [level(stop)] * max(1, o.rounds // 4), True), ("its own voice", [None] * max(1, o.rounds // 4), False)]
    failed = False
    for name, sounds, stops in scenes:
        stopped, unpaired, ducks, texts = 0, 0, [], []
        for sound in sounds:
            call, onset = await reply(server, sound)
            stopped += bool(call.of("interrupted"))
            duck, unduck = call.of("duck"), call.of("unduck")
            unpaired += len(duck) > len(unduck) and not call.of("interrupted") and not call.of("turn_complete")
            ducks += [at - onset for at, _ in duck[:1]]
            texts += [m["text"] for _, m in call.messages if m["type"] == "transcription_chunk" and m["text"]][-1:]
        wanted = stopped == len(sounds) if stops else stopped == 0 and unpaired == 0
        failed |= not wanted
        median = f", the first {round(1000 * statistics.median(ducks))} ms after the onset" if ducks and sounds[0] is not None else ""
        print(f"{name}: {stopped} of {len(sounds)} interrupted, {len(ducks)} ducked{median}, {unpaired} left ducked: {'ok' if wanted else 'FAILED'} {texts}", flush=True)
    sys.exit(failed)


asyncio.run(main())
