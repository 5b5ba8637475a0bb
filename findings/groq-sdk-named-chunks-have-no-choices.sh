#!/usr/bin/env bash
# groq 1.7.0 (Python): a chunk of a chat stream whose event is named "message" arrives without its fields.
#
# "message" is the name that the SSE standard gives an event that names none, so servers may write it. The SDK takes every name for a
# wrapper: it builds the chunk from {"data": …, "event": "message"}, so that choices is None and code that reads choices[0] fails.
# openai 3.57.0 reads the same stream, and so does the package of the same vendor for JavaScript (groq-sdk 1.6.0).
#
# Needs: Python 3 with venv, PyPI. Exits with 1 if the behavior has changed.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check groq==1.7.0 openai==3.57.0
cat >"$dir/run.py" <<'PY'
import http.server, json, threading
CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
    "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hello"}, "finish_reason": None}]}
class OpenAI(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        name = "event: message\n" if "/named" in self.path else ""
        self.send_response(200); self.send_header("Content-Type", "text/event-stream"); self.end_headers()
        self.wfile.write(f"{name}data: {json.dumps(CHUNK)}\n\ndata: [DONE]\n\n".encode())
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), OpenAI)
threading.Thread(target=server.serve_forever, daemon=True).start()
from groq import Groq
from openai import OpenAI as Client
seen = {}
for library, make in (("openai", Client), ("groq", Groq)):
    for path in ("unnamed", "named"):
        client = make(base_url=f"http://127.0.0.1:{server.server_port}/{path}", api_key="k", max_retries=0)
        chunk, = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], stream=True)
        seen[library, path] = chunk.choices and chunk.choices[0].delta.content
        print(f"{library}, {path} event: choices give {seen[library, path]!r}, extra fields {sorted(chunk.model_extra or {})}")
assert seen["openai", "named"] == seen["openai", "unnamed"] == seen["groq", "unnamed"] == "Hello"
assert seen["groq", "named"] is None, "the behavior has changed"
PY
"$dir/venv/bin/python" "$dir/run.py"
