"""What the programs beside it have in common: sound as samples, and a server that hears and speaks it over HTTP.

Where the server asks for a key, AICHAT_API_KEY is sent. numpy is imported by what needs it: long_file.py and voice_turn.py
do without.
"""
import base64, io, json, os, re, urllib.request, wave

# What an ear hears in, and 20 ms of it.
RATE = 16000
FRAME = RATE // 50
# The standard deviation of a quiet room.
ROOM_NOISE = 10 ** (-58 / 20)
ONES = "zero one two three four five six seven eight nine ten eleven twelve".split()


def read_wave(data):
    """A 16-bit mono file's samples at RATE, as floats."""
    import numpy

    with wave.open(io.BytesIO(data)) as clip:
        samples = numpy.frombuffer(clip.readframes(clip.getnframes()), "<i2").astype(numpy.float32) / 32768
        rate = clip.getframerate()
    if rate == RATE:
        return samples
    # A low-pass of 8 kHz by its spectrum, whole clips at once.
    spectrum = numpy.fft.rfft(samples)
    length = int(len(samples) * RATE / rate)
    return (numpy.fft.irfft(spectrum[: length // 2 + 1], length) * (length / len(samples))).astype(numpy.float32)


def pcm(samples):
    """16-bit little-endian bytes of floats; what was 16 bits before is the same again."""
    import numpy

    return numpy.clip(numpy.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes()


def wave_bytes(samples, rate=RATE):
    out = io.BytesIO()
    with wave.open(out, "wb") as clip:
        clip.setnchannels(1), clip.setsampwidth(2), clip.setframerate(rate)
        clip.writeframes(pcm(samples))
    return out.getvalue()


def audio_chunk(data, **more):
    """The message of the microphone over /ws; `more` says what `data` is."""
    return json.dumps({"type": "audio_chunk", "audio_data": base64.b64encode(data).decode(), **more})


def microphone(samples, rate=RATE):
    """The same of mono floats, as PCM."""
    return audio_chunk(pcm(samples), format="pcm", sample_rate=rate, channels=1)


def key_header():
    key = os.environ.get("AICHAT_API_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}


def ask(url, body, content_type):
    headers = {"Content-Type": content_type, **key_header()}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=180) as answer:
        return answer.read()


def transcribe(server, samples, rate=RATE):
    """The answer as `verbose_json` with the times of words."""
    fields = {"model": "whisper-1", "response_format": "verbose_json", "language": "en", "timestamp_granularities[]": "word"}
    parts = [f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode() for name, value in fields.items()]
    parts.append(b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + wave_bytes(samples, rate) + b"\r\n--b--\r\n")
    return json.loads(ask(server + "/v1/audio/transcriptions", b"".join(parts), "multipart/form-data; boundary=b"))


def speak(server, voice, text):
    """Samples at RATE of the text in one of the server's voices."""
    body = json.dumps({"model": "tts-1", "input": text, "voice": voice, "response_format": "wav"}).encode()
    return read_wave(ask(server + "/v1/audio/speech", body, "application/json"))


def words(text):
    """What two spellings of the same words have in common."""
    text = text.lower().replace("mr.", "mister").replace("-", " ")
    text = re.sub(r"\b\d+\b", lambda number: ONES[int(number[0])] if int(number[0]) < len(ONES) else number[0], text)
    return re.sub(r"[^\w\s']", "", text).split()


def word_errors(reference, heard):
    """Insertions, deletions and substitutions between two lists of words."""
    row = list(range(len(heard) + 1))
    for index, word in enumerate(reference, 1):
        corner, row[0] = row[0], index
        for column, other in enumerate(heard, 1):
            corner, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, corner + (word != other))
    return row[-1]
