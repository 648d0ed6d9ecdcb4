"""The comparison of scripts/compare-llm: compare_llm.py OURS GGUF

OURS (benches/decoder.rs) reads lines `prefill LENGTH` and `decode CONTEXT STREAMS STEPS` and answers each with tokens
per second.
"""

import ctypes
import os
import statistics
import subprocess
import sys
import time

import llama_cpp

RUNS = 5
STEPS = 32
STREAMS = 4
CONTEXT = 4096
PREFILLS = (500, 2000)
DECODES = (10, 500, 2000)
THREADS = int(os.environ["THREADS"])


def tokens(start, count):
    """Ids that ours uses too; what they say does not matter."""
    return [(position * 7919 + 13) % 40000 + 100 for position in range(start, start + count)]


# Kept, since llama.cpp keeps the pointer.
QUIET = llama_cpp.llama_log_callback(lambda level, text, data: None)


class Peer:
    def __init__(self, path):
        llama_cpp.llama_log_set(QUIET, ctypes.c_void_p())
        model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_seq_max = CONTEXT * STREAMS, CONTEXT, STREAMS
        params.n_threads = params.n_threads_batch = THREADS
        self.context = llama_cpp.llama_init_from_model(model, params)
        self.batch = llama_cpp.llama_batch_init(CONTEXT, 0, STREAMS)

    def read(self, start, count, streams):
        """Reads `count` tokens from `start` on into each of `streams`; logits after the last of each."""
        index = 0
        for stream in streams:
            for position, token in zip(range(start, start + count), tokens(start, count)):
                self.batch.token[index], self.batch.pos[index], self.batch.n_seq_id[index] = token, position, 1
                self.batch.seq_id[index][0], self.batch.logits[index] = stream, position == start + count - 1
                index += 1
        self.batch.n_tokens = index
        assert llama_cpp.llama_decode(self.context, self.batch) == 0, "llama.cpp could not read"
        llama_cpp.llama_get_logits_ith(self.context, index - 1)

    def forget(self):
        memory = llama_cpp.llama_get_memory(self.context)
        for stream in range(STREAMS):
            llama_cpp.llama_memory_seq_rm(memory, stream, -1, -1)

    def prefill(self, length):
        self.forget()
        begin = time.perf_counter()
        self.read(0, length, [0])
        return length / (time.perf_counter() - begin)

    def decode(self, context, streams):
        self.forget()
        for stream in range(streams):
            self.read(0, context, [stream])
        begin = time.perf_counter()
        for step in range(STEPS):
            self.read(context + step, 1, range(streams))
        return streams * STEPS / (time.perf_counter() - begin)


class Ours:
    def __init__(self, program, path):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        environment = {**os.environ, "RAYON_NUM_THREADS": str(THREADS)}
        self.process = subprocess.Popen([program, path], env=environment, **pipes)

    def ask(self, *words):
        print(*words, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def prefill(self, length):
        return self.ask("prefill", length)

    def decode(self, context, streams):
        return self.ask("decode", context, streams, STEPS)


def main(program, path):
    print(llama_cpp.llama_print_system_info().decode(), "\n")
    sides = Ours(program, path), Peer(path)
    print("| tokens per second | ours | llama.cpp | ours / llama.cpp |\n|---|---|---|---|")
    medians = {}

    def row(name, measure):
        runs = [[measure(side) for side in sides] for _ in range(RUNS + 1)][1:]
        ours, theirs = (statistics.median(side) for side in zip(*runs))
        medians[name] = ours
        print(f"| {name} | {ours:.0f} | {theirs:.0f} | {ours / theirs:.2f} |", flush=True)

    for length in PREFILLS:
        row(f"prefill {length}", lambda side: side.prefill(length))
    for context in DECODES:
        row(f"decode at {context}", lambda side: side.decode(context, 1))
        row(f"{STREAMS} streams at {context}", lambda side: side.decode(context, STREAMS))
    for context in DECODES:
        ratio = medians[f"{STREAMS} streams at {context}"] / medians[f"decode at {context}"]
        print(f"\n{STREAMS} streams together against 1 at {context}: {ratio:.2f}")


main(*sys.argv[1:3])
