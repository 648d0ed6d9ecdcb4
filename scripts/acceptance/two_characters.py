#!/usr/bin/env python3
"""Two characters on two models and with two voices talk in one call: in order, never at once, and without a long gap.

usage: two_characters.py AICHAT_BINARY [--rounds N] [--voices]

Starts two servers of its own on free ports, with starter models: one stands in for OpenAI, the other has a character on its
own model and one on `openai/local` of the first. In each round the user calls on both by name. Checks, per round: two replies
in the order of the names, no audio of one among the other's, the one's `served_by` local and the other's remote, nobody is
charged for the local one (/api/usage), and the time between the end of the first voice's playback and the first sample of the
second. With --voices the two voices are compared by speaker embeddings. Needs: websockets; --voices: resemblyzer.
"""
import argparse, asyncio, base64, json, os, pathlib, socket, sqlite3, statistics, subprocess, sys, tempfile, time, urllib.request

import websockets

CAST = [("max-001", "Max", "am_michael", None), ("olivia-001", "Olivia", "af_heart", "openai/local")]
QUESTIONS = [
    "Max and Olivia, what do you like about the sea?",
    "Max, Olivia, which animal would you like to be?",
    "Hey Max and Olivia, what is a good breakfast?",
    "Max and Olivia: what did you read last?",
]
RATE = 24000
LONGEST_GAP = 0.15
REPLY_SECONDS = 90


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(binary, folder, settings):
    port = free_port()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OPENAI_", "OPENROUTER_", "LLM_", "AICHAT_"))}
    environment |= {"PORT": str(port), "DATA_DIR": str(folder), "DATABASE_URL": f"sqlite://{folder}/aichat.db", "PROFILE": "starter", **settings}
    log = open(folder / "log", "w")
    server = subprocess.Popen([binary, "serve"], env=environment, stdout=log, stderr=log, cwd=folder)
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
                if answer.status == 200:
                    return server, port
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.2)
    sys.exit(f"a server did not start:\n{(folder / 'log').read_text()}")


def engage(folder):
    with sqlite3.connect(folder / "aichat.db", timeout=10) as database:
        for id, name, voice, model in CAST:
            database.execute(
                "INSERT INTO characters (id, name, system_prompt, voice, model, created_at, updated_at) VALUES (?, ?, ?, ?, ?, '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z')",
                (id, name, f"You are {name}. You answer in one short sentence.", voice, model),
            )


async def one_round(call, question):
    """What came, with the time of each message."""
    await call.send(json.dumps({"type": "text_message", "text": question}))
    came, complete = [], 0
    while complete < len(CAST):
        message = json.loads(await asyncio.wait_for(call.recv(), REPLY_SECONDS))
        came.append((time.monotonic(), message))
        complete += message["type"] == "turn_complete"
        if message["type"] == "error":
            sys.exit(f"error: {message}")
    return came


def judge(came):
    audio = [(at, m["character_id"], len(base64.b64decode(m["audio_data"])) / 2 / RATE) for at, m in came if m["type"] == "audio_chunk"]
    order = [id for _, id, _ in audio]
    expected = [id for id, *_ in CAST]
    problems = []
    if [id for i, id in enumerate(order) if i == 0 or order[i - 1] != id] != expected:
        problems.append(f"voices in the order {order}")
    served = {m["character_id"]: m["served_by"]["llm"] for _, m in came if m["type"] == "turn_complete"}
    if served.get("max-001", "").startswith("openai/") or not (served.get("olivia-001") or "").startswith("openai/"):
        problems.append(f"served by {served}")
    # When a loudspeaker that begins at the first sample is done with all of the first voice.
    first = [(at, length) for at, id, length in audio if id == expected[0]]
    second = [at for at, id, _ in audio if id == expected[1]]
    gap = None
    if first and second:
        done = first[0][0]
        for at, length in first:
            done = max(done, at) + length
        gap = second[0] - done
    texts = {m["character_id"]: m["text"] for _, m in came if m["type"] == "text_done"}
    return problems, gap, texts


def similarities(clips):
    import numpy
    from resemblyzer import VoiceEncoder, preprocess_wav

    encoder = VoiceEncoder("cpu", verbose=False)
    embed = lambda pcm: encoder.embed_utterance(preprocess_wav(numpy.frombuffer(pcm, "<i2").astype("float32") / 32768, source_sr=RATE))
    vectors = {id: [embed(clip) for clip in clips[id]] for id in clips}
    one, two = (vectors[id] for id, *_ in CAST)
    within = [float(a @ b) for group in (one, two) for i, a in enumerate(group) for b in group[i + 1 :]]
    between = [float(a @ b) for a in one for b in two]
    return within, between


async def main():
    options = argparse.ArgumentParser()
    options.add_argument("binary", type=lambda path: str(pathlib.Path(path).resolve()))
    options.add_argument("--rounds", type=int, default=4)
    options.add_argument("--voices", action="store_true")
    o = options.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as there, tempfile.TemporaryDirectory() as here:
        there, here = pathlib.Path(there), pathlib.Path(here)
        remote, remote_port = start(o.binary, there, {})
        local, port = start(o.binary, here, {"OPENAI_API_KEY": "sk-stand-in", "OPENAI_BASE_URL": f"http://127.0.0.1:{remote_port}/v1"})
        try:
            engage(here)
            gaps, clips = [], {id: [] for id, *_ in CAST}
            ids = ",".join(id for id, *_ in CAST)
            async with websockets.connect(f"ws://127.0.0.1:{port}/ws?character_ids={ids}", max_size=2**24) as call:
                hello = json.loads(await call.recv())
                assert [c["id"] for c in hello["characters"]] == ids.split(","), hello
                await call.send(json.dumps({"type": "settings", "max_tokens": 40}))
                for number in range(o.rounds):
                    came = await one_round(call, QUESTIONS[number % len(QUESTIONS)])
                    problems, gap, texts = judge(came)
                    failed |= bool(problems)
                    if gap is not None:
                        gaps.append(gap)
                    for id in clips:
                        clips[id].append(b"".join(base64.b64decode(m["audio_data"]) for _, m in came if m["type"] == "audio_chunk" and m["character_id"] == id))
                    print(f"round {number + 1}: gap {gap and round(gap, 3)} s | {texts} | {'; '.join(problems) or 'ok'}", flush=True)
            short = sum(gap <= LONGEST_GAP for gap in gaps) / max(1, len(gaps))
            print(f"gaps: median {statistics.median(gaps):.3f} s, {short:.0%} of {len(gaps)} at most {LONGEST_GAP} s")
            failed |= short < 0.8
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/usage?group_by=provider") as answer:
                usage = {item["group"]: item for item in json.load(answer)["items"]}
            print("usage:", {group: (item["requests"], item["cost_usd"]) for group, item in usage.items()})
            failed |= usage["local"]["cost_usd"] != 0 or "openai" not in usage
            if o.voices:
                within, between = similarities(clips)
                print(f"voices: within at least {min(within):.2f}, between at most {max(between):.2f}")
                failed |= min(within) <= 0.8 or max(between) >= 0.75
        finally:
            for server in (local, remote):
                server.terminate()
                server.wait(40)
    print("FAILED" if failed else "ok")
    sys.exit(failed)


asyncio.run(main())
