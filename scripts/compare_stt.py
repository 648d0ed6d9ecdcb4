"""The comparison of scripts/compare-stt: compare_stt.py AICHAT POCKETSPHINX_DATA_DIR CACHE_DIR"""

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
import wave

import jiwer
import numpy as np
from faster_whisper import WhisperModel

# The package's __init__ would import torch.
sys.path.insert(0, os.path.dirname(importlib.util.find_spec("whisper").origin))
from normalizers import EnglishTextNormalizer  # noqa: E402

MODELS = ("whisper-base", "whisper-tiny.en")
MOST_MORE = 2
normalise = EnglishTextNormalizer()


def clips(data):
    """Path and transcription of each clip."""
    for folder, transcripts in (("cards", "cards.transcription"), ("librivox", "transcription")):
        for line in open(os.path.join(data, folder, transcripts)):
            text, name = re.match(r"<s>(.*)</s> \((.*)\)", line.strip()).groups()
            yield os.path.join(data, folder, name + ".wav"), text.strip()


def errors(reference, heard):
    out = jiwer.process_words(normalise(reference), normalise(heard) or " ")
    return out.substitutions + out.deletions + out.insertions


def ours(aichat, model, path):
    out = subprocess.run([aichat, "transcribe", path, "--json"], env={**os.environ, "STT_MODEL": model},
                         check=True, capture_output=True, text=True).stdout
    return json.loads(out)["text"]


def peer(cache, model):
    folder = os.path.join(cache, model)
    vocabulary = os.path.join(folder, "vocabulary.json")
    if not os.path.exists(vocabulary) and not os.path.exists(os.path.join(folder, "vocabulary.txt")):
        tokenizer = json.load(open(os.path.join(folder, "tokenizer.json")))
        tokens = {token: text for text, token in tokenizer["model"]["vocab"].items()}
        tokens.update({added["id"]: added["content"] for added in tokenizer["added_tokens"]})
        first = max(tokens) + 1
        tokens.update({first + step: f"<|{step * 0.02:.2f}|>" for step in range(1501)})
        json.dump([tokens[token] for token in range(len(tokens))], open(vocabulary, "w"))
    return WhisperModel(folder, device="cpu", compute_type="int8")


def main(aichat, data, cache):
    worse = []
    for model in MODELS:
        reference, totals = peer(cache, model), [0, 0]
        print(f"{model:<16} {'ours':>5} {'peer':>5}  {'peer s':>6}")
        for path, text in clips(data):
            with wave.open(path) as clip:
                audio = np.frombuffer(clip.readframes(clip.getnframes()), "<i2").astype(np.float32) / 32768
            start = time.time()
            segments, _ = reference.transcribe(audio, language="en", beam_size=5)
            theirs = " ".join(segment.text for segment in segments)
            seconds = time.time() - start
            counts = errors(text, ours(aichat, model, path)), errors(text, theirs)
            totals = [total + count for total, count in zip(totals, counts)]
            print(f"{os.path.basename(path)[-16:]:<16} {counts[0]:>5} {counts[1]:>5}  {seconds:>6.2f}")
        print(f"{'all':<16} {totals[0]:>5} {totals[1]:>5}\n")
        if totals[0] > totals[1] + MOST_MORE:
            worse.append(model)
    if worse:
        sys.exit(f"more than {MOST_MORE} words worse: {', '.join(worse)}")


main(*sys.argv[1:4])
