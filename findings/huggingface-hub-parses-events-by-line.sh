#!/usr/bin/env bash
# huggingface_hub 2.4.0: chat_completion(stream=True) reads a stream of events line by line, and of a client that is not kept, nothing.
#
# The SSE standard lets a server leave out the space after "data:", and lets one event have several "data:" lines, which are joined.
# InferenceClient takes each line that begins with "data:" for a whole event and knows the end only as "data: [DONE]":
# - "data:{…}" works, but "data:[DONE]" is read as JSON and fails with a JSONDecodeError after the last chunk;
# - an event of two or more "data:" lines fails with a JSONDecodeError at its first line.
# A stream also ends with the client: "for chunk in InferenceClient(…).chat_completion(…, stream=True)" raises StreamClosed at the
# first chunk, because nothing but the client holds the response. With the client in a variable the same request works. That client
# holds each of its streams until it is closed: one exit callback for each, so a process that lives long grows.
# The package of the same vendor for JavaScript (@huggingface/inference 4.13.30) reads all of these streams.
#
# Needs: Python 3 with venv, PyPI. Exits with 1 if the behavior has changed.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check huggingface_hub==2.4.0
cat >"$dir/run.py" <<'PY'
import http.server, json, threading
def chunk(delta, reason=None):
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
CHUNKS = [chunk({"role": "assistant", "content": "Hel"}), chunk({"content": "lo"}), chunk({}, "stop")]
def two_lines(value):
    start, end = json.dumps(value).split(",", 1)
    return f"data: {start},\ndata: {end}\n\n"
STREAMS = {
    "plain": "".join(f"data: {json.dumps(c)}\n\n" for c in CHUNKS) + "data: [DONE]\n\n",
    "no space": "".join(f"data:{json.dumps(c)}\n\n" for c in CHUNKS) + "data:[DONE]\n\n",
    "two lines": "".join(map(two_lines, CHUNKS)) + "data: [DONE]\n\n",
}
class OpenAI(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200); self.send_header("Content-Type", "text/event-stream"); self.end_headers()
        self.wfile.write(STREAMS[self.path.split("/")[1].replace("-", " ")].encode())
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), OpenAI)
threading.Thread(target=server.serve_forever, daemon=True).start()
from huggingface_hub import InferenceClient
def client(name):
    return InferenceClient(base_url=f"http://127.0.0.1:{server.server_port}/{name.replace(' ', '-')}/v1", api_key="k")
def read(stream):
    text = ""
    try:
        for part in stream: text += part.choices[0].delta.content or ""
    except Exception as error:
        return text, type(error).__name__
    return text, None
QUESTION = [{"role": "user", "content": "hi"}]
seen = {}
for name in STREAMS:
    kept = client(name)
    seen[name] = read(kept.chat_completion(QUESTION, stream=True))
    print(f"{name}: {seen[name]}")
seen["dropped"] = read(client("plain").chat_completion(QUESTION, stream=True))
print(f"plain, the client not kept: {seen['dropped']}")
kept = client("plain")
for _ in range(20): assert read(kept.chat_completion(QUESTION, stream=True)) == ("Hello", None)
print(f"20 streams that ended, held by the client: {len(kept.exit_stack._exit_callbacks)}")
assert seen["plain"] == ("Hello", None)
assert seen["no space"] == ("Hello", "JSONDecodeError"), "the behavior has changed"
assert seen["two lines"] == ("", "JSONDecodeError"), "the behavior has changed"
assert seen["dropped"] == ("", "StreamClosed"), "the behavior has changed"
assert len(kept.exit_stack._exit_callbacks) == 20, "the behavior has changed"
PY
"$dir/venv/bin/python" "$dir/run.py"
