"""llama.cpp on the same file, threads and tokens as ecq, through the low-level interface of llama-cpp-python.

    rival.py speed MODEL TOKENS THREADS GENERATE    one run, measured; JSON on standard output
    rival.py logits MODEL TOKENS OUTPUT             logits behind each token, float32, row by row
    rival.py tokens MODEL TEXT                      tokens of a text file, as JSON
    rival.py reference MODEL TOKENS COUNT           of the first tokens and the 16 likeliest ones behind each of them, the
                                                    numbers and natural logarithms of probability, as JSON
    rival.py quantize SOURCE TARGET FTYPE           the whole model again, as a number of `enum llama_ftype`

TOKENS is a file with a JSON list of numbers.
"""

import ctypes
import json
import re
import sys
import time

import llama_cpp as native
import numpy

SAID = []


@native.llama_log_callback
def log(level, text, data):
    SAID.append(text.decode(errors="replace"))


def fail(what):
    raise SystemExit(f"llama.cpp: {what}\n{''.join(SAID[-20:])}")


class Model:
    def __init__(self, path, positions, threads):
        native.llama_log_set(log, ctypes.c_void_p())
        native.llama_backend_init()
        parameters = native.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self.model = native.llama_model_load_from_file(path.encode(), parameters)
        if not self.model:
            fail(f"cannot load {path}")
        self.vocabulary = native.llama_model_get_vocab(self.model)
        self.size = native.llama_vocab_n_tokens(self.vocabulary)
        context = native.llama_context_default_params()
        context.n_ctx = positions
        context.n_batch = context.n_ubatch = 512
        context.n_threads = context.n_threads_batch = threads
        self.context = native.llama_init_from_model(self.model, context)
        if not self.context:
            fail(f"no context of {positions} tokens for {path}")
        self.batch = native.llama_batch_init(512, 0, 1)

    def run(self, tokens, position, every=False):
        """Passes tokens through, from a position on; the logits behind the last one, or behind every one."""
        batch = self.batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i] = token
            batch.pos[i] = position + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = every or i + 1 == len(tokens)
        if native.llama_decode(self.context, batch) != 0:
            fail(f"cannot decode {len(tokens)} tokens at {position}")
        which = range(len(tokens)) if every else [len(tokens) - 1]
        rows = [native.llama_get_logits_ith(self.context, i) for i in which]
        return [numpy.ctypeslib.as_array(row, shape=(self.size,)) for row in rows]

    def generate(self, token, position, count):
        for i in range(count):
            token = int(self.run([token], position + i)[0].argmax())
        return token


def peak():
    """The most bytes that were in memory, with mapped files, as Linux counts them."""
    with open("/proc/self/status") as status:
        return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status.read()).group(1))


def speed(path, tokens, threads, count):
    """As `ecq bench` runs: one prompt, then `count` tokens, everything for the first time."""
    before = peak()  # Python and its libraries
    start = time.perf_counter()
    model = Model(path, len(tokens) + count + 1, threads)
    loaded = time.perf_counter()
    token = int(model.run(tokens, 0)[0].argmax())
    first = time.perf_counter()
    model.generate(token, len(tokens), count)
    end = time.perf_counter()
    return {
        "load_seconds": loaded - start,
        "first_token_seconds": first - start,
        "prompt_tokens_per_second": len(tokens) / (first - loaded),
        "tokens_per_second": count / (end - first),
        "peak_memory": peak() - before,
    }


def reference(path, tokens):
    rows = []
    for logits in Model(path, len(tokens) + 1, 2).run(tokens, 0, every=True):
        logits = logits.astype("float64")
        logs = logits - logits.max() - numpy.log(numpy.exp(logits - logits.max()).sum())
        best = numpy.argsort(-logs, kind="stable")[:16]
        rows.append({"tokens": best.tolist(), "logs": [round(float(n), 6) for n in logs[best]]})
    return {"tokens": tokens, "next": rows}


def main():
    what, path, *rest = sys.argv[1:]
    if what == "quantize":
        target, ftype = rest
        parameters = native.llama_model_quantize_default_params()
        parameters.ftype = int(ftype)
        parameters.allow_requantize = True
        native.llama_log_set(log, ctypes.c_void_p())
        if native.llama_model_quantize(path.encode(), target.encode(), ctypes.byref(parameters)) != 0:
            fail(f"cannot quantize {path}")
    elif what == "tokens":
        with open(rest[0], "rb") as text:
            text = text.read()
        model = Model(path, 64, 1)
        room = (native.llama_token * (len(text) + 16))()
        count = native.llama_tokenize(model.vocabulary, text, len(text), room, len(room), False, False)
        json.dump(list(room[:count]), sys.stdout)
    else:
        with open(rest[0]) as file:
            tokens = json.load(file)
        if what == "speed":
            json.dump(speed(path, tokens, int(rest[1]), int(rest[2])), sys.stdout)
        elif what == "reference":
            json.dump(reference(path, tokens[: int(rest[1])]), sys.stdout, separators=(",", ":"))
        elif what == "logits":
            model = Model(path, len(tokens) + 1, 2)
            with open(rest[1], "wb") as output:
                for row in model.run(tokens, 0, every=True):
                    output.write(row.astype("<f4").tobytes())
        else:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
