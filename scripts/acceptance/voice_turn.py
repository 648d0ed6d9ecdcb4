#!/usr/bin/env python3
"""One voice turn after another over /ws, as a browser would: a clip in 100 ms chunks in real time, then silence.

usage: voice_turn.py WS_URL CLIP.wav WORD [--turns N] [--interrupt] [--no-long]

Checks, per turn: a partial with WORD before 60 % of the clip is sent; message_saved for the user's words; text deltas;
audio_chunks in the order of their sequence numbers; turn_complete with timings. Prints the time from the labelled end of
speech (the last 20 ms frame within 26 dB of the loudest) to the first audio byte. Then it asks for a long story by
text_message until a reply has 40 words, and checks that its first audio_chunk came before its last text_chunk; that gets
a line of its own. Needs: websockets.
"""
import argparse, array, asyncio, json, statistics, sys, time, wave

import websockets

from sound import audio_chunk

CHUNK_SECONDS = 0.1
LONG_WORDS = 40
LONG_PROMPT = "Tell me a long story about a lighthouse keeper, in many sentences."
LONG_TOKENS = 120
LONG_TRIES = 5


def read_clip(path):
    with wave.open(path) as clip:
        assert clip.getsampwidth() == 2 and clip.getnchannels() == 1, "a 16-bit mono clip is needed"
        return array.array("h", clip.readframes(clip.getnframes())), clip.getframerate()


def end_of_speech(samples, rate):
    """Seconds from the start to the end of the last loud frame."""
    step = rate // 50
    power = [sum(s * s for s in samples[i : i + step]) / step for i in range(0, len(samples) - step, step)]
    floor = max(power) / 400
    return (max(i for i, p in enumerate(power) if p >= floor) + 1) / 50


class Turn:
    def __init__(self, word):
        self.word, self.messages, self.clip_sent = word.lower(), [], 0.0
        self.first_audio = self.partial_at = None
        self.partials = []
        self.done = asyncio.Event()

    def hear(self, message, sent_share):
        self.messages.append((time.monotonic(), message))
        kind = message["type"]
        if kind == "transcription_chunk" and not message["is_final"]:
            self.partials.append((round(sent_share, 2), message["text"]))
        if kind == "transcription_chunk" and not message["is_final"] and self.partial_at is None:
            if self.word in message["text"].lower():
                self.partial_at = sent_share
        if kind == "audio_chunk" and self.first_audio is None:
            self.first_audio = time.monotonic()
        if kind in ("turn_complete", "interrupted"):
            self.done.set()

    def of(self, kind):
        return [(at, m) for at, m in self.messages if m["type"] == kind]


async def speak(socket, samples, rate, turn, state):
    step = int(rate * CHUNK_SECONDS)
    started = time.monotonic()
    sent = 0
    silence = array.array("h", bytes(2 * step))
    while not turn.done.is_set():
        chunk = samples[sent * step : (sent + 1) * step] or silence
        await socket.send(audio_chunk(chunk.tobytes(), format="pcm", sample_rate=rate, channels=1))
        sent += 1
        state["share"] = min(1.0, sent * step / len(samples))
        await asyncio.sleep(max(0, started + sent * CHUNK_SECONDS - time.monotonic()))
    return started


async def one_turn(socket, samples, rate, word, interrupt):
    turn, state = Turn(word), {"share": 0.0}
    started = time.monotonic()

    async def listen():
        async for text in socket:
            message = json.loads(text)
            turn.hear(message, state["share"])
            if message["type"] == "error":
                print("error:", message)
            if interrupt and message["type"] == "audio_chunk" and not state.get("interrupted"):
                state["interrupted"] = time.monotonic()
                await socket.send(json.dumps({"type": "interrupt", "ref": "stop"}))
            if turn.done.is_set():
                return

    ear = asyncio.create_task(listen())
    await asyncio.wait_for(speak(socket, samples, rate, turn, state), 60)
    await ear
    turn.started = started
    return turn


def check(turn, clip_end, interrupt):
    problems = []
    if turn.partial_at is None or turn.partial_at > 0.6:
        problems.append(f"no right word in a partial before 60 % (at {turn.partial_at})")
    if not turn.of("message_saved"):
        problems.append("no message_saved")
    texts, audios = turn.of("text_chunk"), turn.of("audio_chunk")
    if not texts or not audios:
        problems.append(f"{len(texts)} text_chunks, {len(audios)} audio_chunks")
    order = [m["sequence_number"] for _, m in audios]
    if order != sorted(order):
        problems.append(f"audio out of order: {order}")
    if not interrupt:
        timings = [m["timings"] for _, m in turn.of("turn_complete")]
        if not timings or any(key not in timings[0] for key in ("endpoint_ms", "stt_ms", "llm_first_token_ms", "tts_first_audio_ms", "total_ms")):
            problems.append(f"timings: {timings}")
    finals = [m["text"] for _, m in turn.of("transcription_chunk") if m["is_final"]]
    latency = turn.first_audio - (turn.started + clip_end) if turn.first_audio else None
    return problems, latency, finals


def words_of(turn):
    return len("".join(m["text"] for _, m in turn.of("text_chunk")).split())


def audio_lead(turn):
    """Seconds from the first audio to the last text; None where one of them is missing."""
    audios, texts = turn.of("audio_chunk"), turn.of("text_chunk")
    return texts[-1][0] - audios[0][0] if audios and texts else None


async def long_reply(url):
    """Whether a reply of LONG_WORDS or more is heard before it is written. Prints a line."""
    for attempt in range(1, LONG_TRIES + 1):
        turn = Turn("")
        async with websockets.connect(url, max_size=2**24) as socket:
            hello = json.loads(await socket.recv())
            assert hello["type"] == "session_started", hello
            await socket.send(json.dumps({"type": "settings", "max_tokens": LONG_TOKENS}))
            await socket.send(json.dumps({"type": "text_message", "text": LONG_PROMPT}))

            async def listen():
                async for text in socket:
                    turn.hear(json.loads(text), 0.0)
                    if turn.done.is_set():
                        return

            await asyncio.wait_for(listen(), 120)
        words, lead = words_of(turn), audio_lead(turn)
        if words >= LONG_WORDS:
            good = lead is not None and lead > 0
            shown = "no audio" if lead is None else f"first audio {lead:.2f} s before the last text"
            print(f"long reply ({words} words, try {attempt}): {shown}: {'ok' if good else 'FAILED'}", flush=True)
            return good
    print(f"long reply: none of {LONG_TRIES} had {LONG_WORDS} words (the last: {words}): FAILED", flush=True)
    return False


async def main():
    options = argparse.ArgumentParser()
    for name in ("url", "clip", "word"):
        options.add_argument(name)
    options.add_argument("--turns", type=int, default=1)
    options.add_argument("--interrupt", action="store_true")
    options.add_argument("--fresh", action="store_true", help="a new conversation for each turn")
    options.add_argument("--prompt", help="system prompt instead of the character's")
    options.add_argument("--no-long", action="store_true", help="do not ask for a long reply")
    options.add_argument("--verbose", action="store_true")
    o = options.parse_args()
    samples, rate = read_clip(o.clip)
    clip_end = end_of_speech(samples, rate)
    latencies, failed = [], False
    socket = None
    for number in range(o.turns):
        if socket is None or o.fresh:
            if socket:
                await socket.close()
            socket = await websockets.connect(o.url, max_size=2**24)
            hello = json.loads(await socket.recv())
            assert hello["type"] == "session_started", hello
            if o.prompt:
                await socket.send(json.dumps({"type": "settings", "system_prompt": o.prompt}))
        turn = await one_turn(socket, samples, rate, o.word, o.interrupt)
        problems, latency, finals = check(turn, clip_end, o.interrupt)
        failed |= bool(problems)
        text = "".join(m["text"] for _, m in turn.of("text_chunk"))
        words, lead = words_of(turn), audio_lead(turn)
        if words >= LONG_WORDS and (lead is None or lead <= 0):
            problems.append("the first audio came after the last text")
            failed = True
        after = 0
        if o.interrupt:
            stop = turn.of("interrupted")[0][0]
            after = sum(1 for at, _ in turn.of("audio_chunk") if at > stop)
        if latency is not None:
            latencies.append(latency)
        timings = [m["timings"] for _, m in turn.of("turn_complete")]
        print(f"turn {number + 1}: heard {finals} | {words} words | partial at {turn.partial_at} | first audio {latency and round(latency, 3)} s after speech"
              f" | {timings[:1]} | after interrupt {after} | {'; '.join(problems) or 'ok'}", flush=True)
        if o.verbose:
            print(turn.partials, text, sep="\n")
    print(f"clip {clip_end:.2f} s of speech; median of {len(latencies)}: {statistics.median(latencies):.3f} s")
    await socket.close()
    if not o.no_long:
        failed |= not await long_reply(o.url)
    sys.exit(failed)


asyncio.run(main())
