#!/usr/bin/env python3
"""Sound in every packing, both ways: JSON and binary frames, PCM and Opus, to a server on real models.

usage: round_trips.py BASE_URL CLIP.wav...

BASE_URL as http://127.0.0.1:8000. To the server: each clip is said push-to-talk as PCM in JSON (the reference), WAV in JSON,
Opus in JSON, PCM in binary frames at the clip's rate, as stereo at 44.1 kHz, and Opus in binary frames. From the server: the
same reply (temperature 0) is asked for as PCM, WAV, MP3 and Opus in JSON and as PCM and Opus in binary frames; what comes is
decoded, must be as long as `pts_ms` says, and is transcribed by /v1/audio/transcriptions. All must transcribe to the same words.
Frames' headers, captions and times are checked on the way. Any failure makes the exit status 1. Needs: websockets, av, numpy.
"""
import argparse, asyncio, base64, io, json, struct, sys, wave

import av, numpy as np, websockets

from sound import audio_chunk, transcribe, wave_bytes, word_errors, words

CHUNK = 0.02
# In samples at 48 kHz: a packet, and what libopus holds back, so that its first packet begins with as much before the clip.
PACKET, LOOK_AHEAD = 960, 312
BIT_RATE = 64_000
QUESTION = "Please count slowly from one to ten."


def read_clip(path):
    with wave.open(path) as clip:
        assert clip.getsampwidth() == 2 and clip.getnchannels() == 1, "a 16-bit mono clip is needed"
        return np.frombuffer(clip.readframes(clip.getnframes()), "<i2"), clip.getframerate()


def resampled(samples, rate, to, layout="mono"):
    if rate == to and layout == "mono":
        return samples
    resampler = av.AudioResampler(format="s16", layout=layout, rate=to)
    frame = av.AudioFrame.from_ndarray(samples[None, :], format="s16", layout="mono")
    frame.sample_rate = rate
    frames = resampler.resample(frame) + resampler.resample(None)
    return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])


def fitted(samples, rate):
    """The clip with so much silence after it that it ends with an Opus packet: every packing then holds the same sound."""
    packets = -(-(len(samples) * 48000 // rate + LOOK_AHEAD) // PACKET)
    return np.pad(samples, (0, max(0, (packets * PACKET - LOOK_AHEAD) * rate // 48000 - len(samples))))


def packets_of(samples, rate):
    """Opus packets of 20 ms by libopus, as browsers make them."""
    codec = av.CodecContext.create("libopus", "w")
    codec.sample_rate, codec.layout, codec.format, codec.bit_rate = 48000, "mono", "s16", BIT_RATE
    codec.options = {"frame_duration": "20", "application": "voip"}
    wide = resampled(samples, rate, 48000)
    wide = np.pad(wide, (0, -len(wide) % PACKET))
    packets = []
    for at in range(0, len(wide), PACKET):
        frame = av.AudioFrame.from_ndarray(wide[None, at : at + PACKET], format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48000, at
        packets += [bytes(packet) for packet in codec.encode(frame)]
    return packets


def pcm_chunks(samples, rate, channels=1):
    step = round(rate * CHUNK) * channels
    return [samples[at : at + step].tobytes() for at in range(0, len(samples), step)]


def in_frame(form, chunk):
    return struct.pack("<BBHIII", 1, form, 0, 0, 0, 0) + chunk


def packings(samples, rate):
    """What is sent for a clip, and to which address, by the packing's name."""
    packets = packets_of(samples, rate)
    pcm = pcm_chunks(samples, rate)
    stereo = pcm_chunks(resampled(samples, rate, 44100, "stereo"), 44100, 2)
    return {
        "json pcm": ("", [audio_chunk(chunk, format="pcm", sample_rate=rate) for chunk in pcm]),
        "json wav": ("", [audio_chunk(wave_bytes(np.frombuffer(chunk, "<i2") / 32768, rate), format="wav") for chunk in pcm]),
        "json opus": ("", [audio_chunk(packet, format="opus") for packet in packets]),
        "binary pcm": (f"?protocol=binary&input_rate={rate}", [in_frame(0, chunk) for chunk in pcm]),
        "binary pcm 44.1 kHz stereo": (
            "?protocol=binary&input_rate=44100&input_channels=2",
            [in_frame(0, chunk) for chunk in stereo],
        ),
        "binary opus": ("?protocol=binary", [in_frame(1, packet) for packet in packets]),
    }


class Socket:
    def __init__(self, socket):
        self.socket = socket
        self.frames = []

    async def say(self, **message):
        await self.socket.send(json.dumps(message))

    async def until(self, kind):
        messages = []
        while not messages or messages[-1]["type"] != kind:
            raw = await asyncio.wait_for(self.socket.recv(), 180)
            if isinstance(raw, bytes):
                self.frames.append(raw)
                continue
            messages.append(json.loads(raw))
            assert messages[-1]["type"] != "error", messages[-1]
        return messages


async def connect(url, query):
    socket = Socket(await websockets.connect(url + query, max_size=None))
    started = (await socket.until("session_started"))[-1]
    return socket, started


async def heard(url, query, frames):
    socket, _ = await connect(url, query)
    await socket.say(type="settings", vad=None, output="text", max_tokens=1, languages=["en"])
    await socket.until("settings_applied")
    for frame in frames:
        await socket.socket.send(frame)
        await asyncio.sleep(CHUNK * 0.6)
    await socket.say(type="commit")
    while True:
        final = (await socket.until("transcription_chunk"))[-1]
        if final["is_final"]:
            await socket.socket.close()
            return final["text"]


async def to_the_server(url, clips):
    errors, total = {}, 0
    for path in clips:
        samples, rate = read_clip(path)
        samples = fitted(samples, rate)
        reference = None
        for name, (query, frames) in packings(samples, rate).items():
            text = await heard(url, query, frames)
            said = words(text)
            if reference is None:
                reference = said
                total += len(said)
                print(f"{path}: {text!r}", flush=True)
            wrong = word_errors(reference, said)
            errors[name] = errors.get(name, 0) + wrong
            if wrong:
                print(f"  {name}: {wrong} of {len(reference)} words differ: {text!r}", flush=True)
    assert total, "no words were heard at all"
    for name, wrong in errors.items():
        print(f"to the server, {name}: {wrong} of {total} words differ ({100 * wrong / total:.1f} %)")
    return any(errors.values())


def decode(form, parts):
    """Mono samples at 24 kHz of one sentence's chunks, or of a reply's packets."""
    if form == "pcm":
        return np.frombuffer(b"".join(parts), "<i2")
    if form == "wav":
        return np.concatenate([np.frombuffer(part[44:], "<i2") for part in parts])
    if form == "mp3":
        with av.open(io.BytesIO(b"".join(parts)), format="mp3") as file:
            frames = [frame for frame in file.decode(audio=0)]
        resampler = av.AudioResampler(format="s16", layout="mono", rate=24000)
        frames = [out for frame in frames for out in resampler.resample(frame)]
        return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])
    codec = av.CodecContext.create("libopus", "r")
    codec.sample_rate = 48000
    resampler = av.AudioResampler(format="s16", layout="mono", rate=24000)
    out = []
    for part in parts:
        frames = list(codec.decode(av.Packet(part)))
        assert sum(frame.samples for frame in frames) == 960, "a packet is not 20 ms"
        out += [r.to_ndarray().reshape(-1) for frame in frames for r in resampler.resample(frame)]
    return np.concatenate(out)


async def spoken(url, protocol, form):
    socket, started = await connect(url, f"?protocol={protocol}")
    await socket.say(type="settings", audio_format=form, temperature=0, max_tokens=40, seed=1)
    await socket.until("settings_applied")
    await socket.say(type="text_message", text=QUESTION)
    messages = await socket.until("turn_complete")
    await socket.socket.close()
    text = next(message["text"] for message in messages if message["type"] == "text_done")
    chunks = [message for message in messages if message["type"] == "audio_chunk"]
    captions = [word["text"] for chunk in chunks for word in chunk["words"]]
    if protocol == "binary":
        assert not any("audio_data" in chunk for chunk in chunks), "sound in JSON"
        named = {(chunk["turn"], chunk["sequence_number"]) for chunk in chunks}
        pieces = []
        for frame in socket.frames:
            kind, number, index, turn, sentence, pts = struct.unpack("<BBHIII", frame[:16])
            assert kind == 2 and number == (form == "opus"), (kind, number)
            assert index == started["characters"][0]["index"] and (turn, sentence) in named, (index, turn, sentence)
            pieces.append((sentence, pts, frame[16:]))
    else:
        assert not socket.frames, "a binary frame that nobody asked for"
        pieces = [(c["sequence_number"], c["pts_ms"], base64.b64decode(c["audio_data"])) for c in chunks]
    if form == "mp3":
        sentences = dict.fromkeys(sentence for sentence, _, _ in pieces)
        audio = np.concatenate([decode(form, [part for s, _, part in pieces if s == sentence]) for sentence in sentences])
    else:
        audio = decode(form, [part for _, _, part in pieces])
        played = 0
        for _, pts, part in pieces:
            assert abs(pts - played) <= 1, f"pts_ms is {pts} after {played:.1f} ms"
            played += 20 if form == "opus" else (len(part) - (44 if form == "wav" else 0)) / 48
    return text, audio, captions


async def from_the_server(base, url):
    failed, reference = False, None
    for protocol, form in [("json", "pcm"), ("json", "wav"), ("json", "mp3"), ("json", "opus"), ("binary", "pcm"), ("binary", "opus")]:
        text, audio, captions = await spoken(url, protocol, form)
        said = words(transcribe(base, audio / 32768, 24000)["text"])
        if reference is None:
            reference = (text, said, len(audio), captions)
            print(f"the reply: {text!r}, heard as {' '.join(said)!r}")
        assert text == reference[0], f"another reply was written: {text!r}"
        assert captions == reference[3], f"other captions: {captions}"
        wrong = word_errors(reference[1], said)
        # Each of a few sentences ends with a packet's rest, or with an MP3 decoder's delay.
        longer = (len(audio) - reference[2]) / 24000
        print(f"from the server, {protocol} {form}: {wrong} of {len(reference[1])} words differ; {len(captions)} captions, {longer:+.3f} s")
        failed |= wrong > 0 or not 0 <= longer < 1.0
    return failed


async def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("base")
    parser.add_argument("clips", nargs="+")
    arguments = parser.parse_args()
    url = arguments.base.replace("http", "ws", 1) + "/ws"
    failed = await to_the_server(url, arguments.clips)
    failed |= await from_the_server(arguments.base, url)
    sys.exit(failed)


asyncio.run(main())
