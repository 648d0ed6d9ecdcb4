"""Word error rate of transcripts against the sentences that were spoken. Called by scripts/compare-speech.

usage: compare_speech.py SENTENCES DIR aichat|faster-whisper:MODEL_DIR

DIR holds 01.wav, 02.wav, … and, for aichat, 01.json, … with the key `text`.
"""
import importlib.util, json, pathlib, sys, types

import jiwer

# Whisper's normaliser without Whisper: the package itself would want torch and tiktoken.
whisper = types.ModuleType("whisper")
whisper.__path__ = importlib.util.find_spec("whisper").submodule_search_locations
sys.modules["whisper"] = whisper
from whisper.normalizers import EnglishTextNormalizer  # noqa: E402

LIMIT = 0.05


def listen(folder, listener, count):
    names = [folder / f"{number:02}" for number in range(1, count + 1)]
    if listener == "aichat":
        return [json.loads(name.with_suffix(".json").read_text())["text"] for name in names]
    from faster_whisper import WhisperModel
    model = WhisperModel(listener.split(":", 1)[1], device="cpu", compute_type="int8")
    transcribe = lambda path: model.transcribe(str(path), language="en", beam_size=5)[0]
    return ["".join(segment.text for segment in transcribe(name.with_suffix(".wav"))) for name in names]


def main():
    sentences = pathlib.Path(sys.argv[1]).read_text().splitlines()
    heard = listen(pathlib.Path(sys.argv[2]), sys.argv[3], len(sentences))
    normalise = EnglishTextNormalizer()
    wanted, heard = [normalise(text) for text in sentences], [normalise(text) for text in heard]
    for want, got in zip(wanted, heard):
        if want != got:
            print(f"said:  {want}\nheard: {got}\n")
    rate = jiwer.wer(wanted, heard)
    print(f"{len(sentences)} sentences, word error rate {rate:.2%}")
    sys.exit(rate > LIMIT)


main()
