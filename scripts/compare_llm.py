"""The comparison of scripts/compare-llm: compare_llm.py OURS GGUF

OURS reads lines `prefill LENGTH`, `decode CONTEXT STREAMS` and answers each with tokens per second.
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


class Peer:
    def __init__(self, path):
        llama_cpp.llama_log_set(ctypes.cast(None, llama_cpp.llama_log_callback), ctypes.c_void_p())
        model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        self.contexts = [self.context(model) for _ in range(1)]
        self.batch = llama_cpp.llama_batch_init(CONTEXT, 0, STREAMS)

    def context(self, model):
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_seq_max = CONTEXT * STREAMS, CONTEXT, STREAMS
        params.n_threads = params.n_threads_batch = THREADS
        return llama_cpp.llama_init_from_model(model, params)

    def read(self, start, count, streams):
        """Reads `count` tokens from `start` on into each of the streams; logits after the last of each."""
        batch, index = self.batch, 0
        for stream in range(streams):
            for position, token in zip(range(start, start + count), tokens(start, count)):
                batch.token[index], batch.pos[index], batch.n_seq_id[index] = token, position, 1
                batch.seq_id[index][0], batch.logits[index] = stream, position == start + count - 1
                index += 1
        batch.n_tokens = index
        assert llama_cpp.llama_decode(self.contexts[0], batch) == 0, "llama.cpp could not read"
        llama_cpp.llama_get_logits_ith(self.contexts[0], index - 1)

    def forget(self, start, streams):
        memory = llama_cpp.llama_get_memory(self.contexts[0])
        for stream in range(streams):
            llama_cpp.llama_memory_seq_rm(memory, stream, start, -1)

    def prefill(self, length):
        self.forget(0, STREAMS)
        begin = time.perf_counter()
        self.read(0, length, 1)
        return length / (time.perf_counter() - begin)

    def decode(self, context, streams):
        self.forget(0, STREAMS)
        for stream in range(streams):
            batch = self.batch
            for position, token in enumerate(tokens(0, context)):
                batch.token[position], batch.pos[position], batch.n_seq_id[position] = token, position, 1
                batch.seq_id[position][0], batch.logits[position] = stream, 0
            batch.n_tokens = context
            assert llama_cpp.llama_decode(self.contexts[0], batch) == 0, "llama.cpp could not read"
        llama_cpp.llama_synchronize(self.contexts[0])
        begin = time.perf_counter()
        for step in range(STEPS):
            self.read(context + step, 1, streams)
        return streams * STEPS / (time.perf_counter() - begin)


class Ours:
    def __init__(self, program, path):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        environment = {**os.environ, "RAYON_NUM_THREADS": str(THREADS)}
        self.process = subprocess.Popen([program, "--serve", path], env=environment, **pipes)

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
