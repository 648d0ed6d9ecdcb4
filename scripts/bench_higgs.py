"""transformers' part of scripts/bench-higgs: what a step of its Higgs Audio v2 takes, with noise for weights.

bench_higgs.py [--sizes published|small] [--streams 1,4,8]; other options are the bench's and are passed over. The sizes
are those of benches/higgs.rs, the prompts as long as there. A step is (60 steps less 10 steps) / 50, greedy, so that
neither prefill nor set-up counts; nothing of a codec is in it.
"""

import argparse
import time

import torch

if not torch.cuda.is_available():
    torch.version.cuda = "13.0"  # torchaudio compares it with its own and refuses to load on a CPU build

from transformers import HiggsAudioV2Config, HiggsAudioV2ForConditionalGeneration  # noqa: E402

PUBLISHED = dict(hidden_size=3072, intermediate_size=8192, num_hidden_layers=28, num_attention_heads=24)
SMALL = dict(hidden_size=768, intermediate_size=2048, num_hidden_layers=8, num_attention_heads=6)
SHAPES = {
    "published": dict(vocab_size=128256, num_key_value_heads=8, **PUBLISHED),
    "small": dict(vocab_size=512, num_key_value_heads=2, **SMALL),
}
CODES = 1024
PROMPT = 300
# Ids of the benches' tokenizer.
BEGIN, AUDIO_BEGIN, DELAY, AUDIO, TURN_END = 256, 269, 270, 272, 265


def build(sizes, device):
    config = HiggsAudioV2Config(
        **SHAPES[sizes],
        head_dim=128,
        num_codebooks=8,
        codebook_size=CODES + 2,
        audio_stream_bos_id=CODES,
        audio_stream_eos_id=CODES + 1,
        audio_token_id=AUDIO,
        audio_bos_token_id=AUDIO_BEGIN,
        audio_delay_token_id=DELAY,
        bos_token_id=BEGIN,
        eos_token_id=TURN_END,
        pad_token_id=257,
        max_position_embeddings=2048,
    )
    torch.set_default_dtype(torch.bfloat16 if device == "cuda" else torch.float32)
    with torch.device(device):
        model = HiggsAudioV2ForConditionalGeneration(config).eval()
    torch.manual_seed(0)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.02) if weight.dim() > 1 else torch.nn.init.ones_(weight)
    head = model.audio_lm_head.forward

    def endless(rows):
        logits = head(rows)
        logits.view(*logits.shape[:-1], 8, CODES + 2)[..., CODES:] -= 1e4
        return logits

    model.audio_lm_head.forward = endless
    return model


def seconds(model, rows, steps):
    ids = torch.arange(PROMPT - 1, device=model.device) % 256
    ids = torch.cat([ids, torch.tensor([AUDIO_BEGIN], device=model.device)]).repeat(rows, 1)
    begin = time.perf_counter()
    with torch.no_grad():
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=steps, do_sample=False)
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def main():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", default="published" if device == "cuda" else "small", choices=SHAPES)
    parser.add_argument("--streams", default="1,4,8,16,32" if device == "cuda" else "1,4,8")
    options, _ = parser.parse_known_args()
    model = build(options.sizes, device)
    print(f"\ntransformers on {device}, {options.sizes} sizes, {model.dtype}, {torch.get_num_threads()} threads:\n")
    print("| rows | ms a step | rows a second |\n|---|---|---|")
    for rows in map(int, options.streams.split(",")):
        seconds(model, rows, 5)
        step = (seconds(model, rows, 60) - seconds(model, rows, 10)) / 50
        print(f"| {rows} | {step * 1e3:.2f} | {rows / step:.0f} |", flush=True)


main()
