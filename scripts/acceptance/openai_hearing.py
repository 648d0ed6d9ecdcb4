#!/usr/bin/env python3
"""The official openai client against a server on real models: transcriptions, translations, embeddings, and their errors.

usage: openai_hearing.py BASE_URL CLIP.wav WORD [--no-embeddings]

CLIP.wav holds WORD. Each line is one check; any that fails makes the exit status 1. Needs: openai, and ffmpeg for the
other containers.
"""
import argparse, base64, io, math, os, pathlib, re, struct, subprocess, sys, tempfile, time, wave

import openai

FORMATS = {"wav": [], "mp3": [], "flac": [], "m4a": ["-c:a", "aac"], "ogg": ["-c:a", "libvorbis"], "opus": ["-c:a", "libopus", "-f", "ogg"], "webm": ["-c:a", "libopus"]}
STAMP = r"\d\d:\d\d:\d\d[,.]\d\d\d"
failed = []


def check(name):
    def run(body):
        try:
            said = body()
            print(f"ok      {name}{': ' + str(said) if said else ''}", flush=True)
        except Exception as error:
            failed.append(name)
            print(f"FAILED  {name}: {type(error).__name__}: {error}", flush=True)

    return run


def refuses(kind, call, param=None, status=None):
    """The error that the call must raise."""
    try:
        call()
    except kind as error:
        assert param is None or error.param == param, f"param is {error.param}: {error}"
        assert status is None or error.status_code == status, f"status is {error.status_code}"
        return str(error)[:100]
    raise AssertionError(f"it did not raise {kind.__name__}")


def encoded(clip, name, arguments, folder):
    target = folder / f"clip.{name}"
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", clip, *arguments, str(target)], check=True)
    return target


def silence(seconds, rate=8000):
    """A WAV of unsigned bytes: small for its length."""
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(1), file.setsampwidth(1), file.setframerate(rate)
        file.writeframes(b"\x80" * (seconds * rate))
    return ("silence.wav", data.getvalue())


def hearing(client, clip, word):
    audio = client.audio.transcriptions

    def ask(**more):
        with open(clip, "rb") as file:
            return audio.create(file=file, **{"model": "whisper-1", **more})

    def heard(text):
        assert word in text.lower(), f"{word!r} is not in {text!r}"
        return text.strip()

    for model in ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "local"):
        check(f"transcription json, {model}")(lambda: heard(ask(model=model).text))
    check("transcription text")(lambda: heard(ask(response_format="text")))

    @check("transcription srt")
    def _():
        text = ask(response_format="srt")
        assert re.match(rf"1\n{STAMP} --> {STAMP}\n\S", text), text
        heard(text)

    @check("transcription vtt")
    def _():
        text = ask(response_format="vtt")
        assert re.match(rf"WEBVTT\n\n(1\n)?{STAMP} --> {STAMP}\n\S", text), text
        heard(text)

    @check("transcription verbose_json with words and segments")
    def _():
        verbose = ask(response_format="verbose_json", timestamp_granularities=["word", "segment"], language="en", prompt="A test.", temperature=0.0)
        heard(verbose.text)
        with wave.open(clip) as file:
            seconds = file.getnframes() / file.getframerate()
        assert verbose.language == "english" and abs(float(verbose.duration) - seconds) < 0.1, verbose
        starts = [w.start for w in verbose.words]
        assert starts == sorted(starts) and all(w.end <= seconds + 0.05 for w in verbose.words), verbose.words
        segment = verbose.segments[0]
        assert segment.id == 0 and segment.avg_logprob < 0 and segment.compression_ratio > 0 and 0 <= segment.no_speech_prob <= 1, segment
        return f"{len(verbose.words)} words, {len(verbose.segments)} segments"

    @check("transcription streamed")
    def _():
        deltas, done = [], None
        for event in ask(model="gpt-4o-mini-transcribe", stream=True):
            if event.type == "transcript.text.delta":
                deltas.append(event.delta)
            elif event.type == "transcript.text.done":
                done = event.text
        assert done is not None and "".join(deltas) == done, (deltas, done)
        return heard(done)

    check("transcription at temperature 0.4")(lambda: ask(temperature=0.4).text)
    check("translation json")(lambda: heard(client.audio.translations.create(model="whisper-1", file=open(clip, "rb")).text))

    @check("translation verbose_json")
    def _():
        verbose = client.audio.translations.create(model="whisper-1", file=open(clip, "rb"), response_format="verbose_json")
        assert verbose.language == "english" and verbose.segments, verbose

    @check("x-served-by")
    def _():
        with open(clip, "rb") as file:
            raw = audio.with_raw_response.create(model="whisper-1", file=file)
        assert raw.headers.get("x-served-by"), dict(raw.headers)
        return raw.headers["x-served-by"]

    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in FORMATS.items():
            path = encoded(clip, name, arguments, pathlib.Path(folder))
            check(f"container {name}")(lambda: heard(audio.create(model="whisper-1", file=open(path, "rb")).text))

    bad = openai.BadRequestError
    check("refuses what is no audio")(lambda: refuses(bad, lambda: audio.create(model="whisper-1", file=("a.mp3", b"no sound " * 500)), "file"))
    check("refuses an empty file")(lambda: refuses(bad, lambda: audio.create(model="whisper-1", file=("a.wav", b"")), "file"))
    check("refuses an unknown language")(lambda: refuses(bad, lambda: ask(language="xx"), "language"))
    check("refuses a temperature of 2")(lambda: refuses(bad, lambda: ask(temperature=2), "temperature"))
    check("refuses an unknown format")(lambda: refuses(bad, lambda: ask(response_format="docx"), "response_format"))
    check("refuses words without verbose_json")(lambda: refuses(bad, lambda: ask(timestamp_granularities=["word"]), "timestamp_granularities"))

    @check("refuses more than four hours within 5 s")
    def _():
        file, started = silence(4 * 3600 + 60), time.monotonic()
        refuses(openai.APIStatusError, lambda: audio.create(model="whisper-1", file=file), "file", 413)
        took = time.monotonic() - started
        assert took < 5, f"{took:.1f} s"
        return f"{took:.1f} s"


def embeddings(client):
    texts = ["A man is eating food.", "Someone is having a meal.", "The stock market fell."]

    def floats(**more):
        answer = client.embeddings.create(model="local", input=texts, **more)
        assert [item.index for item in answer.data] == [0, 1, 2] and answer.usage.total_tokens > 0, answer.usage
        return [item.embedding for item in answer.data]

    def near(a, b):
        return sum(x * y for x, y in zip(a, b))

    @check("embeddings: what means the same is near")
    def _():
        vectors = floats(encoding_format="float")
        assert all(abs(near(v, v) - 1) < 1e-3 for v in vectors)
        assert near(vectors[0], vectors[1]) > near(vectors[0], vectors[2]) + 0.2
        return f"{len(vectors[0])} dimensions"

    @check("embeddings: base64, which the client asks for by itself, holds the same")
    def _():
        raw = client.embeddings.with_raw_response.create(model="local", input=texts, encoding_format="base64")
        shown = raw.http_response.json()["data"][0]["embedding"]
        vector = struct.unpack(f"<{len(base64.b64decode(shown)) // 4}f", base64.b64decode(shown))
        assert near(vector, floats()[0]) > 0.9999 and near(vector, floats(encoding_format="float")[0]) > 0.9999

    @check("embeddings: fewer dimensions, of length 1")
    def _():
        vectors = floats(dimensions=64)
        assert len(vectors[0]) == 64 and abs(math.sqrt(near(vectors[0], vectors[0])) - 1) < 1e-3

    bad = openai.BadRequestError
    create = client.embeddings.create
    check("embeddings: refuses token ids")(lambda: refuses(bad, lambda: create(model="local", input=[1, 2, 3]), "input"))
    check("embeddings: refuses an empty text")(lambda: refuses(bad, lambda: create(model="local", input=["a", ""]), "input[1]"))
    check("embeddings: refuses 5,000 dimensions")(lambda: refuses(bad, lambda: create(model="local", input="a", dimensions=5000), "dimensions"))
    check("embeddings: refuses a text that is too long")(lambda: refuses(bad, lambda: create(model="local", input=["a", "word " * 400]), "input"))


def main():
    options = argparse.ArgumentParser()
    for name in ("base", "clip", "word"):
        options.add_argument(name)
    options.add_argument("--no-embeddings", action="store_true")
    o = options.parse_args()
    client = openai.OpenAI(base_url=f"{o.base}/v1", api_key=os.environ.get("AICHAT_API_KEY", "none"), max_retries=0, timeout=300)
    hearing(client, o.clip, o.word.lower())
    if not o.no_embeddings:
        embeddings(client)
    print(f"{len(failed)} failed" + (f": {', '.join(failed)}" if failed else ""))
    sys.exit(bool(failed))


main()
