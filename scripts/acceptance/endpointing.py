#!/usr/bin/env python3
"""How often a server cuts a speaker off, and how long it makes one wait, by mode of end-pointing.

usage: endpointing.py HTTP_URL [--set first|unseen] [--half tune|test|all] [--modes server300,...] [--keep FOLDER]

Plays the utterances of pauses.py over /ws in real time, 20 ms a frame, one after another, each in a session of its own. An
utterance is cut off where its end was decided (`speech_stopped`) before its speech was over. The wait runs from the end of
its speech to the last final transcript, the recogniser's time included; the decision to the last `speech_stopped`. The odd
utterances of the first set are for tuning, the even ones for figures; the unseen set is for figures alone. Nobody answers
(turn_taking manual): only hearing is measured. Needs: numpy, websockets, and a machine that does nothing else.
"""
import argparse, asyncio, json, os, statistics, sys, time

import websockets

import pauses
from sound import FRAME, microphone

MODES = {
    "server300": {"mode": "server", "silence_ms": 300},
    "server500": {"mode": "server", "silence_ms": 500},
    "server800": {"mode": "server", "silence_ms": 800},
    "semantic": {"mode": "semantic"},
}


async def play(server, utterance, vad):
    """(decisions, finals) as [(seconds of session time, text)]."""
    url = server.replace("http", "ws", 1) + "/ws"
    samples = utterance["samples"]
    decisions, finals = [], []
    async with websockets.connect(url, max_size=2**24) as socket:
        assert json.loads(await socket.recv())["type"] == "session_started"
        settings = {"type": "settings", "turn_taking": "manual", "output": "text", "vad": vad, "languages": ["en"]}
        await socket.send(json.dumps(settings))
        started = time.monotonic()

        async def listen():
            async for text in socket:
                now, message = time.monotonic() - started, json.loads(text)
                if message["type"] == "speech_stopped":
                    decisions.append((now, ""))
                if message["type"] == "transcription_chunk" and message["is_final"] and message["text"]:
                    finals.append((now, message["text"]))
                if message["type"] == "error":
                    print("error:", message, file=sys.stderr)

        ear = asyncio.create_task(listen())
        for number in range(len(samples) // FRAME):
            await asyncio.sleep(max(0, started + (number + 1) * 0.02 - time.monotonic()))
            await socket.send(microphone(samples[number * FRAME : (number + 1) * FRAME]))
            if finals and finals[-1][0] > utterance["end"]:
                break
        await asyncio.sleep(0.2)
        ear.cancel()
    return decisions, finals


def shown(values, share):
    return round(1000 * sorted(values)[min(len(values) - 1, int(share * len(values)))]) if values else None


async def main():
    options = argparse.ArgumentParser()
    options.add_argument("server")
    options.add_argument("--set", default="first", choices=pauses.SETS)
    options.add_argument("--half", default="test", choices=["tune", "test", "all"])
    options.add_argument("--modes", default=",".join(MODES))
    options.add_argument("--keep", help="a folder for the set's utterances: written once, then read")
    options.add_argument("--most-cut", type=float, default=5.0, help="percent that semantic may cut off")
    options.add_argument("--longest-wait", type=float, default=400.0, help="ms, the median of semantic, to the decision")
    o = options.parse_args()
    server = o.server.rstrip("/")
    chosen = pauses.kept(server, o.set, o.keep) if o.keep else pauses.utterances(server, o.set)
    chosen = [u for n, u in enumerate(chosen) if o.half == "all" or (n % 2 == 1) == (o.half == "tune")]
    print(f"{len(chosen)} utterances, {sum(len(u['pauses']) for u in chosen)} pauses; load {os.getloadavg()[0]:.1f}")
    print("| mode | cut off | of those with pauses inside a sentence | decision, median / p90 | transcript, median / p90 |\n|---|---|---|---|---|")
    failed = False
    for mode in o.modes.split(","):
        cut, waits, delays, details = [], [], [], []
        for utterance in chosen:
            decisions, finals = await play(server, utterance, MODES[mode])
            is_cut = any(at < utterance["end"] for at, _ in decisions)
            cut.append((is_cut, utterance["open"]))
            waits += [at - utterance["end"] for at, _ in finals[-1:]]
            delays += [at - utterance["end"] for at, _ in decisions[-1:]]
            details.append((round(waits[-1], 2) if finals else None, "CUT" if is_cut else "", utterance["text"], [text for _, text in finals]))
        whole, inside = [c for c, _ in cut], [c for c, is_open in cut if is_open]
        share = lambda these: f"{sum(these)} of {len(these)} ({100 * sum(these) / max(1, len(these)):.0f} %)"
        print(f"| {mode} | {share(whole)} | {share(inside)} | {shown(delays, 0.5)} / {shown(delays, 0.9)} ms | {shown(waits, 0.5)} / {shown(waits, 0.9)} ms |", flush=True)
        for detail in details:
            print("   ", *detail, file=sys.stderr, flush=True)
        if mode == "semantic":
            failed |= 100 * sum(whole) > o.most_cut * len(whole) or 1000 * statistics.median(delays) > o.longest_wait
    sys.exit(failed)


asyncio.run(main())
