#!/usr/bin/env python3
"""Bad and odd sound files through the command line: a right answer or one clear error, never a panic.

usage: bad_input.py BINARY CLIP.wav

CLIP is a few seconds of clear speech. Needs: ffmpeg.

Makes each case with python and ffmpeg in a temporary folder, runs `BINARY transcribe` (and `talk` for the short ones), and
checks exit code and output: exit 0 with the expected kind of text, or exit 1 with one line that begins with "error:". The
clip's words in another encoding are right where at most a quarter of them differs from those of the clip itself.
"""
import array, difflib, math, os, random, re, subprocess, sys, tempfile, wave

binary, clip = sys.argv[1], sys.argv[2]
PATIENCE_SECONDS = 600


def ffmpeg(*arguments):
    subprocess.run(["ffmpeg", "-y", "-loglevel", "error", *arguments], check=True)


def write_wav(path, samples, rate=16000):
    with wave.open(path, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(array.array("h", samples).tobytes())


def cases(folder):
    """(name, path, kind): kind is text (the clip's words), empty (no words), or error."""
    at = lambda name: os.path.join(folder, name)
    yield "no file", at("nothing.wav"), "error"
    open(at("empty.wav"), "w").close()
    yield "empty file", at("empty.wav"), "error"
    with open(at("text.wav"), "w") as out:
        out.write("This is a text, not a sound.\n" * 50)
    yield "text called .wav", at("text.wav"), "error"
    yield "a folder", folder, "error"
    for name, arguments in {
        "8-bit": ["-c:a", "pcm_u8"],
        "24-bit": ["-c:a", "pcm_s24le"],
        "32-bit": ["-c:a", "pcm_s32le"],
        "float": ["-c:a", "pcm_f32le"],
        "5.1": ["-ac", "6"],
        "192kHz": ["-ar", "192000"],
        "44.1kHz-stereo": ["-ar", "44100", "-ac", "2"],
    }.items():
        path = at(name.replace(".", "_") + ".wav")
        ffmpeg("-i", clip, *arguments, path)
        yield name, path, "text"
    for name, arguments in {
        "mp3": ["-c:a", "libmp3lame"],
        "flac": [],
        "ogg": ["-c:a", "libopus"],
        "webm": ["-c:a", "libopus"],
        "m4a": ["-c:a", "aac"],
    }.items():
        path = at("clip." + name)
        ffmpeg("-i", clip, *arguments, path)
        yield name, path, "text"
    write_wav(at("short.wav"), [int(8000 * math.sin(i / 5)) for i in range(800)])
    yield "0.05 s", at("short.wav"), "empty"
    write_wav(at("silence.wav"), [0] * (600 * 16000))
    yield "10 minutes of silence", at("silence.wav"), "empty"
    noise = random.Random(1)
    ten = [int(noise.gauss(0, 600)) for _ in range(10 * 16000)]
    write_wav(at("noise.wav"), ten * 60)
    yield "10 minutes of noise", at("noise.wav"), "empty"
    with open(clip, "rb") as source:
        whole = source.read()
    with open(at("truncated.wav"), "wb") as out:
        out.write(whole[: len(whole) * 3 // 4])
    yield "truncated", at("truncated.wav"), "any"
    with open(at("header.wav"), "wb") as out:
        out.write(whole[:44])
    yield "header only", at("header.wav"), "any"


def run(command, path, folder):
    """Exit code, standard output and standard error; the code is None where it took too long."""
    reply = ["-o", os.path.join(folder, "reply.wav")] if command == "talk" else []
    try:
        done = subprocess.run([binary, command, path, *reply], capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        return None, "", f"no answer within {PATIENCE_SECONDS} s"
    return done.returncode, done.stdout.strip(), done.stderr.strip()


def words(text):
    """What was heard; `talk` prints it on its first line, before the reply."""
    heard = text.splitlines()[0].removeprefix("you:") if text.startswith("you:") else text
    return re.findall(r"[\w']+", heard.lower())


def alike(text, expected):
    matcher = difflib.SequenceMatcher(None, words(text), expected, autojunk=False)
    right = sum(block.size for block in matcher.get_matching_blocks())
    return right >= 0.75 * max(len(words(text)), len(expected))


failed = 0
with tempfile.TemporaryDirectory() as folder:
    code, out, err = run("transcribe", clip, folder)
    expected = words(out)
    if code != 0 or not expected:
        sys.exit(f"FAIL the clip itself: exit {code} {(out or err)[:100]!r}")
    for name, path, kind in cases(folder):
        for command in ("transcribe", "talk"):
            if command == "talk" and name.startswith("10 minutes"):
                continue
            code, out, err = run(command, path, folder)
            clear_error = code == 1 and "error:" in err and "panicked" not in err and len(err.splitlines()) <= 3
            good = {
                "text": code == 0 and alike(out, expected),
                "empty": (code == 0 and not out) or (command == "talk" and clear_error),
                "error": clear_error,
                "any": code == 0 or clear_error,
            }[kind] and "panicked" not in err
            failed += not good
            print(f"{'ok  ' if good else 'FAIL'} {command} {name}: exit {code} {(out or err)[:100]!r}", flush=True)
sys.exit(bool(failed))
