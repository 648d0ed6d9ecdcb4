#!/usr/bin/env python3
"""Whether coughs, "mhm" and the server's own voice leave a reply alone, and a word stops it.

usage: barge_in.py HTTP_URL [--rounds 20] [--only SCENE]

Asks for a long reply over /ws, and while it is heard plays into the microphone, in real time: coughs (bursts of noise), "mhm"
(hummed: a voice through a closed mouth, with a dip), "stop, please", the same over the reply's echo, 20 dB softer and 200 ms late,
and, for a whole reply and 3 s beyond, that echo alone. The first two must leave no `interrupted` behind, and no duck without its
unduck; the next two must interrupt; the last must not, nor be answered. "Mhm" as the server's own voices read it, which Whisper takes for words, is played too, for information.
It prints how long after a sound's onset the reply was ducked and interrupted, and how much of a reply came too late. Needs: numpy, websockets.
"""
import argparse, asyncio, base64, json, statistics, sys, time

import numpy, websockets

from sound import FRAME, RATE, ROOM_NOISE, microphone, speak

STORY = "Tell me a long story about a lighthouse keeper, in many sentences."
ECHO_GAIN, ECHO_DELAY = 0.1, 0.2
AFTER = 3
# Seconds of a reply before a sound.
BEFORE, BEFORE_OVER_ECHO = 0.6, 2.5


def cough(seed):
    """Two or three bursts of coloured noise, 90 to 200 ms each."""
    draw, pieces = numpy.random.default_rng(seed), []
    for _ in range(draw.integers(2, 4)):
        length = int(draw.uniform(0.09, 0.2) * RATE)
        noise = numpy.convolve(draw.normal(0, 1, length), numpy.ones(4) / 4, "same")
        pieces += [0.15 * noise * numpy.exp(-numpy.linspace(0, 4, length)), numpy.zeros(int(0.12 * RATE))]
    return numpy.concatenate(pieces).astype(numpy.float32)


def hum(seed):
    """"Mhm": harmonics of 95 to 210 Hz below a nasal resonance, rising at the end, nearly silent in the middle."""
    draw = numpy.random.default_rng(seed)
    length = int(draw.uniform(0.42, 0.6) * RATE)
    place = numpy.arange(length) / length
    pitch = draw.uniform(95, 210) * (1 + 0.25 * numpy.clip((place - 0.4) / 0.6, 0, 1))
    phase = 2 * numpy.pi * numpy.cumsum(pitch) / RATE
    voice = sum(numpy.sin(k * phase) * (numpy.exp(-(((k * pitch - 250) / 300) ** 2)) / k**1.3 + 0.08 / k) for k in range(1, 16))
    seconds = place * length / RATE
    edges = numpy.minimum(1, numpy.minimum(seconds / 0.04, (seconds[-1] - seconds) / 0.08))
    dip = 1 - 0.85 * numpy.exp(-(((seconds - 0.45 * seconds[-1]) / 0.035) ** 2))
    return (voice * edges * dip).astype(numpy.float32)


class Call:
    def __init__(self, socket):
        self.socket, self.started = socket, time.monotonic()
        self.messages, self.heard = [], asyncio.Event()
        # What the loudspeaker plays, at 24 kHz from the first piece on: each piece when it comes, or when the last one ends.
        self.played, self.first, self.gaps = numpy.zeros(0, numpy.float32), None, 0.0

    def now(self):
        return time.monotonic() - self.started

    async def listen(self):
        async for text in self.socket:
            message = json.loads(text)
            self.messages.append((self.now(), message))
            if message["type"] == "audio_chunk":
                self.first = self.first or self.now()
                late = max(0, int((self.now() - self.first) * 24000) - len(self.played))
                self.gaps += late / 24000
                sound = numpy.frombuffer(base64.b64decode(message["audio_data"]), "<i2").astype(numpy.float32) / 32768
                self.played = numpy.concatenate([self.played, numpy.zeros(late, numpy.float32), sound])
                self.heard.set()

    def of(self, *kinds):
        return [(at, m["type"]) for at, m in self.messages if m["type"] in kinds]

    async def play(self, samples_at, until):
        """Sends what `samples_at(first, last)` gives, 20 ms at a time, until `until()`."""
        begun, sent = time.monotonic(), 0
        while not until():
            frame = samples_at(sent, sent + FRAME) + numpy.random.default_rng(sent).normal(0, ROOM_NOISE, FRAME)
            await self.socket.send(microphone(frame))
            sent += FRAME
            await asyncio.sleep(max(0, begun + sent / RATE - time.monotonic()))


def piece(samples, first, last):
    part = samples[max(0, first) : max(0, last)] if last > 0 else samples[:0]
    return numpy.pad(part, (last - first - len(part), 0) if first < 0 else (0, last - first - len(part)))


async def reply(server, sound, echo=False):
    """One reply with `sound` in it, or, where there is none, with nothing but its `echo`. Gives the call and the sound's onset."""
    async with websockets.connect(server.replace("http", "ws", 1) + "/ws", max_size=2**24) as socket:
        assert json.loads(await socket.recv())["type"] == "session_started"
        call = Call(socket)
        ear = asyncio.create_task(call.listen())
        await socket.send(json.dumps({"type": "settings", "max_tokens": 80, "languages": ["en"]}))
        await socket.send(json.dumps({"type": "text_message", "text": STORY}))
        await asyncio.wait_for(call.heard.wait(), 60)
        before = BEFORE_OVER_ECHO if echo else BEFORE
        onset, begin = call.now() + before, int(before * RATE)
        ended = lambda: [at for at, _ in call.of("turn_complete", "interrupted")]

        def microphone_hears(first, last):
            heard = numpy.zeros(last - first) if sound is None else piece(sound, first - begin, last - begin)
            if echo:
                at = lambda sample: int((sample / RATE - ECHO_DELAY) * 24000)
                part = piece(call.played, at(first), at(last))
                heard = heard + ECHO_GAIN * numpy.interp(numpy.linspace(0, len(part) - 1, last - first), numpy.arange(len(part)), part)
            return heard

        if sound is None:
            await call.play(microphone_hears, lambda: ended() and call.now() > ended()[0] + AFTER)
        else:
            end = onset + len(sound) / RATE + 4
            await call.play(microphone_hears, lambda: ended() or call.now() > end)
        ear.cancel()
        return call, onset


async def main():
    options = argparse.ArgumentParser()
    options.add_argument("server")
    options.add_argument("--rounds", type=int, default=20)
    options.add_argument("--only", default="", help="the scenes whose names have this in them")
    o = options.parse_args()
    server = o.server.rstrip("/")
    stop = speak(server, "am_adam", "Stop, please! That is enough.")
    agree = [speak(server, voice, text) for voice in ("af_heart", "bm_george") for text in ("Mhm.", "Uh-huh.", "Mm.")]
    level = lambda samples: samples * (0.1 / float(numpy.sqrt((samples**2).mean())))
    few = max(1, o.rounds // 4)
    # Name, sounds, with an echo, whether they must interrupt.
    scenes = [
        ("cough", [cough(seed) for seed in range(o.rounds)], False, False),
        ("mhm", [level(hum(seed)) for seed in range(o.rounds)], False, False),
        ("stop, please", [level(stop)] * few, False, True),
        ("stop, please, over an echo", [level(stop)] * few, True, True),
        ("its own voice", [None] * few, True, False),
        ("mhm, read aloud", [level(sound) for sound in agree], False, None),
    ]
    failed = False
    for name, sounds, echo, stops in [scene for scene in scenes if o.only in scene[0]]:
        stopped, unpaired, gaps, ducks, stops_after, texts = 0, 0, [], [], [], []
        for sound in sounds:
            call, onset = await reply(server, sound, echo)
            answered = len({m["turn"] for _, m in call.messages if m["type"] == "text_chunk"}) > 1
            stopped += bool(call.of("interrupted")) or sound is None and answered
            duck, unduck = call.of("duck"), call.of("unduck")
            gaps.append(call.gaps)
            stops_after += [at - onset for at, _ in call.of("interrupted")[:1]]
            unpaired += len(duck) > len(unduck) and not call.of("interrupted") and not call.of("turn_complete")
            ducks += [at - onset for at, _ in duck[:1]]
            texts += [m["text"] for _, m in call.messages if m["type"] == "transcription_chunk" and m["text"]][-1:]
        wanted = stopped == len(sounds) if stops else stopped == 0 and unpaired == 0
        failed |= not wanted and stops is not None
        after = lambda times: f" {round(1000 * statistics.median(times))} ms after the onset" if times and sounds[0] is not None else ""
        verdict = "told" if stops is None else "ok" if wanted else "FAILED"
        print(f"{name}: {stopped} of {len(sounds)} interrupted{after(stops_after)}, {len(ducks)} ducked{after(ducks)}, {unpaired} left ducked, {statistics.mean(gaps):.2f} s ({max(gaps):.2f} at most) of silence within a reply: {verdict} {texts}", flush=True)
    sys.exit(failed)


asyncio.run(main())
