#!/usr/bin/env python3
"""A long recording over POST /v1/audio/transcriptions, beside the short clips that it is made of.

usage: long_file.py BASE_URL CLIPS_FOLDER [--minutes 30] [--pid SERVER_PID] [--model NAME] [--pause 0.7]

CLIPS_FOLDER: 16-bit mono WAVs and their texts in `transcription`, one "<s> text </s> (name)" a line, as Debian's
pocketsphinx-testdata has them in test/data/librivox. Checks: the word error rate of the long file is within 0.5 points
of the short clips'; times of segments and words never run back and stay inside the file; with --pid, the server's memory
in the second half of the work is at most 64 MB above that of the first. Needs only Python's standard library.
"""
import argparse, json, os, pathlib, re, sys, threading, time, urllib.request, uuid, wave

from sound import key_header, word_errors, words

WER_POINTS = 0.5
FLAT_MB = 64


def transcribe(base, path, model, **fields):
    """Sends the file as it is read: the client's memory stays flat too."""
    boundary = uuid.uuid4().hex
    fields = {"model": model, "language": "en", "response_format": "verbose_json", **fields}
    head = "".join(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items())
    head += f'--{boundary}\r\nContent-Disposition: form-data; name="timestamp_granularities[]"\r\n\r\nword\r\n'
    head += f'--{boundary}\r\nContent-Disposition: form-data; name="timestamp_granularities[]"\r\n\r\nsegment\r\n'
    head += f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{path.name}"\r\nContent-Type: audio/wav\r\n\r\n'
    tail = f"\r\n--{boundary}--\r\n"

    def body():
        yield head.encode()
        with open(path, "rb") as file:
            while block := file.read(1 << 16):
                yield block
        yield tail.encode()

    length = len(head.encode()) + path.stat().st_size + len(tail.encode())
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Content-Length": str(length), **key_header()}
    request = urllib.request.Request(f"{base}/v1/audio/transcriptions", body(), headers)
    with urllib.request.urlopen(request, timeout=4 * 3600) as answer:
        return json.load(answer)


def resident_mb(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def clips_of(folder):
    texts = {}
    for line in open(folder / "transcription"):
        if match := re.match(r"<s>\s*(.*?)\s*</s>\s*\((.*)\)", line):
            texts[match[2]] = match[1]
    clips = [(folder / f"{name}.wav", text) for name, text in texts.items()]
    assert clips, f"{folder}/transcription names no clip"
    return clips


def join(clips, minutes, pause, target):
    """One file of the clips in turn, until it is long enough; gives its text and its seconds."""
    parts = []
    for path, text in clips:
        with wave.open(str(path)) as clip:
            shape = (clip.getnchannels(), clip.getsampwidth(), clip.getframerate())
            parts.append((clip.readframes(clip.getnframes()), text))
    channels, width, rate = shape
    silence = bytes(int(pause * rate) * channels * width)
    texts, frames = [], 0
    with wave.open(str(target), "wb") as whole:
        whole.setnchannels(channels), whole.setsampwidth(width), whole.setframerate(rate)
        while frames < minutes * 60 * rate:
            frame, text = parts[len(texts) % len(parts)]
            whole.writeframes(frame + silence)
            frames += (len(frame) + len(silence)) // (channels * width)
            texts.append(text)
    return " ".join(texts), frames / rate


def time_problems(answer, seconds):
    problems = []
    for kind in ("segments", "words"):
        items = answer[kind]
        if not items:
            problems.append(f"no {kind}")
        for before, after in zip(items, items[1:]):
            if after["start"] < before["start"] or after["end"] < before["end"]:
                problems.append(f"{kind} run back: {before} {after}")
        if any(item["start"] > item["end"] or item["end"] > seconds + 0.05 for item in items):
            problems.append(f"{kind} outside the file, or ending before they begin")
    return problems


def main():
    options = argparse.ArgumentParser()
    options.add_argument("base")
    options.add_argument("clips", type=pathlib.Path)
    options.add_argument("--minutes", type=float, default=30)
    options.add_argument("--pid", type=int)
    options.add_argument("--model", default="whisper-1")
    options.add_argument("--pause", type=float, default=0.7, help="seconds of silence between two clips")
    options.add_argument("--keep", type=pathlib.Path, help="write the long transcript here")
    o = options.parse_args()
    clips = clips_of(o.clips)
    wrong = total = 0
    for path, text in clips:
        heard = transcribe(o.base, path, o.model)["text"]
        wrong += word_errors(words(text), words(heard))
        total += len(words(text))
    short = 100 * wrong / total
    target = pathlib.Path(f"/tmp/long_file_{os.getpid()}.wav")
    memory, done = [], threading.Event()

    def watch():
        while not done.wait(1.0):
            memory.append(resident_mb(o.pid))

    try:
        text, seconds = join(clips, o.minutes, o.pause, target)
        if o.pid:
            threading.Thread(target=watch, daemon=True).start()
        started = time.monotonic()
        answer = transcribe(o.base, target, o.model)
        took = time.monotonic() - started
    finally:
        done.set()
        target.unlink(missing_ok=True)
    if o.keep:
        o.keep.write_text(json.dumps(answer, indent=1))
    reference, heard = words(text), words(answer["text"])
    long = 100 * word_errors(reference, heard) / len(reference)
    problems = time_problems(answer, seconds)
    if long > short + WER_POINTS:
        problems.append(f"word error rate {long:.2f} % against {short:.2f} %")
    if abs(answer["duration"] - seconds) > 0.1:
        problems.append(f"duration {answer['duration']} of {seconds:.2f} s")
    shown = ""
    if memory:
        half = len(memory) // 2
        early, late = max(memory[:half] or memory), max(memory[half:])
        shown = f", memory {min(memory):.0f} to {max(memory):.0f} MB (second half {late - early:+.0f})"
        if late > early + FLAT_MB:
            problems.append("memory grows")
    print(f"{seconds / 60:.1f} min in {took:.0f} s ({seconds / took:.1f} times real time): word error rate {long:.2f} %, short clips {short:.2f} %,"
          f" {len(answer['segments'])} segments, {len(answer['words'])} words{shown}: {'; '.join(problems[:5]) or 'ok'}")
    sys.exit(bool(problems))


main()
