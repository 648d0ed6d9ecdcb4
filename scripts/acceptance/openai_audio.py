#!/usr/bin/env python3
"""Speech through OpenAI's own client: every format, voice and speed, heard again.

usage: openai_audio.py BASE_URL [--key KEY] [--within SECONDS]     e.g. openai_audio.py http://127.0.0.1:8000

The server must run already, with a speech and a transcription model. Every format is decoded by ffmpeg and transcribed by
the same server: at most a tenth of its words may be wrong, all taken together. A sentence must be complete within
--within seconds (2), the best of three. Then the six voices, speeds from 0.25 to 4 (slower and faster than speech ever is
only by their length), events, the playable address with its ranges, and the errors that clients turn into exceptions.
Needs: ffmpeg, and the packages openai and jiwer.
"""
import argparse, base64, io, json, re, subprocess, sys, time, urllib.error, urllib.request

import jiwer, openai

SENTENCES = [
    "The quick brown fox jumps over the lazy dog behind the old barn.",
    "Please call the station and ask when the next train leaves for the city.",
    "My sister bought fresh bread and a bottle of milk on her way home.",
]
TEXT = " ".join(SENTENCES)
FORMATS = {"mp3": "mp3", "opus": "ogg", "aac": "aac", "flac": "flac", "wav": "wav", "pcm": None}
VOICES = ["alloy", "echo", "fable", "onyx", "nova", "shimmer"]
failed = 0


def check(name, good, detail=""):
    global failed
    failed += not good
    print(f"{'ok  ' if good else 'FAIL'} {name}{': ' if detail else ''}{detail}", flush=True)


def decode(data, container):
    """Any format to a 16 kHz WAV, by ffmpeg; its bytes and length in seconds."""
    source = ["-f", container] if container else ["-f", "s16le", "-ar", "24000", "-ac", "1"]
    done = subprocess.run(
        ["ffmpeg", "-v", "error", *source, "-i", "pipe:0", "-ar", "16000", "-ac", "1", "-f", "s16le", "pipe:1"],
        input=data, capture_output=True, check=False)
    if done.returncode or done.stderr:
        raise ValueError(done.stderr.decode(errors="replace")[:200])
    wav = subprocess.run(
        ["ffmpeg", "-v", "error", "-f", "s16le", "-ar", "16000", "-ac", "1", "-i", "pipe:0", "-f", "wav", "pipe:1"],
        input=done.stdout, capture_output=True, check=True).stdout
    return wav, len(done.stdout) / 32000


def words(text):
    return " ".join(re.findall(r"[a-z']+", text.lower()))


def hear(client, wav):
    file = io.BytesIO(wav)
    file.name = "speech.wav"
    return client.audio.transcriptions.create(model="whisper-1", file=file, language="en").text


def errors(client, wav, text=TEXT):
    heard = hear(client, wav)
    return jiwer.wer(words(text), words(heard)), heard


def fetch(base, path, key, body=None, headers=None):
    request = urllib.request.Request(base + path, headers={**(headers or {}), "Content-Type": "application/json"})
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    if body is not None:
        request.data = json.dumps(body).encode()
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def formats(client):
    lengths = {}
    for name, container in FORMATS.items():
        answer = client.audio.speech.with_raw_response.create(
            model="tts-1", voice="nova", input=TEXT, response_format=name)
        wav, lengths[name] = decode(answer.content, container)
        wer, heard = errors(client, wav)
        check(f"format {name}", wer <= 0.1 and answer.headers.get("x-served-by"),
              f"{lengths[name]:.2f} s, {len(answer.content)} bytes, WER {wer:.1%}" + ("" if wer <= 0.1 else f" {heard!r}"))
    spread = max(lengths.values()) - min(lengths.values())
    check("formats are equally long", spread < 0.3, f"{spread:.3f} s apart")
    return lengths["pcm"]


def latency(client, within):
    best = []
    for _ in range(3):
        started = time.monotonic()
        with client.audio.speech.with_streaming_response.create(
                model="tts-1", voice="alloy", input=SENTENCES[0], response_format="mp3") as answer:
            first = None
            for _ in answer.iter_bytes():
                first = first or time.monotonic() - started
        best.append((time.monotonic() - started, first))
    whole, first = min(best)
    check("a sentence is complete in time", whole < within, f"{whole:.2f} s, the first bytes after {first:.2f} s")


def voices(client):
    sounds = {}
    for voice in VOICES:
        data = client.audio.speech.create(model="tts-1", voice=voice, input=SENTENCES[0], response_format="flac").content
        wav, _ = decode(data, "flac")
        wer, heard = errors(client, wav, SENTENCES[0])
        sounds[voice] = wav
        check(f"voice {voice}", wer <= 0.1, f"WER {wer:.1%}" + ("" if wer <= 0.1 else f" {heard!r}"))
    check("six voices are six", len(set(sounds.values())) == len(VOICES))


def speeds(client, natural):
    for speed in (0.25, 0.4, 0.5, 0.75, 1.5, 2.0, 2.5, 3.0, 4.0):
        data = client.audio.speech.create(
            model="tts-1", voice="nova", input=TEXT, response_format="wav", speed=speed).content
        wav, seconds = decode(data, "wav")
        ratio = natural / seconds / speed
        # Pauses do not shrink with the rest.
        good, detail = 0.8 < ratio < 1.25, f"{seconds:.2f} s, {natural / seconds:.2f} times as fast"
        if 0.4 <= speed <= 2.0:
            wer, heard = errors(client, wav)
            good, detail = good and wer <= 0.1, f"{detail}, WER {wer:.1%}" + ("" if wer <= 0.1 else f" {heard!r}")
        check(f"speed {speed}", good, detail)


def events(client, base, key):
    body = {"model": "gpt-4o-mini-tts", "voice": "echo", "input": TEXT, "response_format": "mp3", "stream_format": "sse",
            "instructions": "Speak like a pirate."}
    status, headers, data = fetch(base, "/v1/audio/speech", key, body)
    found = [json.loads(event[6:]) for event in data.decode().split("\n\n") if event]
    sound = b"".join(base64.b64decode(event["audio"]) for event in found[:-1])
    wav, _ = decode(sound, "mp3")
    wer, _ = errors(client, wav)
    usage = found[-1].get("usage", {})
    check("events", status == 200 and headers["content-type"] == "text/event-stream" and wer <= 0.1
          and found[-1]["type"] == "speech.audio.done" and usage.get("input_tokens") == len(TEXT)
          and usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] and usage["output_tokens"] > 0,
          f"{len(found)} events, WER {wer:.1%}, {usage}")


def playable(client, base, key):
    for name, container in FORMATS.items():
        status, _, data = fetch(base, "/api/speech", key, {"text": TEXT, "voice": "onyx", "format": name, "speed": 1.0})
        speech = json.loads(data)
        if status != 200:
            check(f"playable {name}", False, str(speech))
            continue
        _, headers, sound = fetch(base, speech["url"], key)
        wav, seconds = decode(sound, container)
        wer, _ = errors(client, wav)
        status, part_headers, part = fetch(base, speech["url"], key, headers={"Range": "bytes=10-19"})
        check(f"playable {name}", wer <= 0.1 and abs(seconds - speech["seconds"]) < 0.3 and status == 206
              and part == sound[10:20] and part_headers["content-range"] == f"bytes 10-19/{len(sound)}"
              and headers["x-content-type-options"] == "nosniff",
              f"{speech['seconds']} s, {headers['content-type']}, WER {wer:.1%}")


def refusals(client):
    for name, options in {
        "unknown voice": {"voice": "nobody"},
        "too fast": {"speed": 5.0},
        "unknown format": {"response_format": "tape"},
        "nothing to say": {"input": "\U0001F600"},
        "too long": {"input": "a " * 6000},
    }.items():
        try:
            client.audio.speech.create(**{"model": "tts-1", "voice": "alloy", "input": "Hello.", **options})
            check(name, False, "it was answered")
        except openai.BadRequestError as error:
            check(name, bool(error.message), error.message[:100])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("--key", default="")
    parser.add_argument("--within", type=float, default=2.0)
    options = parser.parse_args()
    base = options.base.rstrip("/")
    client = openai.OpenAI(base_url=f"{base}/v1", api_key=options.key or "none", max_retries=0, timeout=180)
    latency(client, options.within)
    natural = formats(client)
    voices(client)
    speeds(client, natural)
    events(client, base, options.key)
    playable(client, base, options.key)
    refusals(client)
    sys.exit(bool(failed))


main()
