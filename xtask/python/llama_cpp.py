"""llama.cpp's quantizers, called in its shared library; needs nothing beyond Python's standard library.

As a program: `llama_cpp.py LIBRARY SOURCE TARGET FTYPE` quantizes a whole GGUF again, as `llama-quantize
--allow-requantize` does. FTYPE is a number of `enum llama_ftype`.
"""

import ctypes
import sys


class Parameters(ctypes.Structure):
    """`struct llama_model_quantize_params` of the pinned version."""

    _fields_ = [
        ("threads", ctypes.c_int32),
        ("ftype", ctypes.c_int),
        ("output_type", ctypes.c_int),
        ("embedding_type", ctypes.c_int),
        ("allow_requantize", ctypes.c_bool),
        ("quantize_output", ctypes.c_bool),
        ("only_copy", ctypes.c_bool),
        ("pure", ctypes.c_bool),
        ("keep_split", ctypes.c_bool),
        ("importances", ctypes.c_void_p),
        ("overrides", ctypes.c_void_p),
    ]


LOGGER = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class Library:
    def __init__(self, path):
        self.said = []
        self.native = native = ctypes.CDLL(path)
        # kept, or it would be collected while the library still calls it
        self.logger = LOGGER(lambda level, text, data: self.said.append(text.decode(errors="replace")))
        native.llama_log_set.argtypes = [LOGGER, ctypes.c_void_p]
        native.llama_log_set(self.logger, None)
        native.llama_backend_init()  # fills the tables of half-precision numbers
        native.llama_model_quantize_default_params.restype = Parameters
        native.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(Parameters)]
        native.llama_model_quantize.restype = ctypes.c_uint32
        native.ggml_quantize_chunk.argtypes = [
            ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64,
            ctypes.c_void_p,
        ]  # fmt: skip
        native.ggml_quantize_chunk.restype = ctypes.c_size_t

    def quantize(self, address, rows, columns, kind, size):
        """The blocks of the float32 rows at an address: `size` bytes of a type of `enum ggml_type`."""
        blocks = ctypes.create_string_buffer(size)
        written = self.native.ggml_quantize_chunk(kind, address, blocks, 0, rows, columns, None)
        assert written == size, f"{rows} by {columns} of type {kind} take {written} bytes, not {size}"
        return blocks.raw

    def quantize_model(self, source, target, ftype):
        """Writes a GGUF with the types that llama.cpp gives a model of this kind."""
        parameters = self.native.llama_model_quantize_default_params()
        parameters.ftype = ftype
        parameters.allow_requantize = True
        code = self.native.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(parameters))
        if code != 0:
            raise SystemExit(f"llama.cpp cannot quantize {source} (code {code}):\n{''.join(self.said[-20:])}")


def main():
    library, source, target, ftype = sys.argv[1:]
    Library(library).quantize_model(source, target, int(ftype))


if __name__ == "__main__":
    main()
