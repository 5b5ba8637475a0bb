#!/usr/bin/env bash
# litellm 1.110.2 makes one broken tool call of two that Ollama streams.
#
# Ollama sends each call of an answer in a line of its own, as soon as it is parsed, with "index": 0, 1, … in the function (recorded
# with Ollama 0.33.0-rc2). The provider `ollama_chat` counts the calls within one line instead of reading that number, so every
# streamed call gets the index 0. Whatever joins the chunks by index, litellm's own stream_chunk_builder too, puts the arguments of
# both into one call, which is no JSON. With both calls in one line, or without streaming, the result is right.
#
# Needs: Python 3 with venv, PyPI. Exits with 1 if the behavior has changed.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check litellm==1.110.2
cat >"$dir/run.py" <<'PY'
import http.server, json, threading
def call(number, city):
    return {"id": f"call_{number}", "function": {"index": number, "name": "get_weather", "arguments": {"city": city}}}
def line(done, **message):
    more = {"done_reason": "stop", "eval_count": 2, "prompt_eval_count": 3} if done else {}
    return json.dumps({"model": "m", "created_at": "2026-11-22T13:32:38.921429078Z",
        "message": {"role": "assistant", "content": "", **message}, "done": done, **more}) + "\n"
A, B = call(0, "Paris"), call(1, "Rome")
STREAMS = {"two-lines": [line(False, tool_calls=[A]), line(False, tool_calls=[B]), line(True)],
           "one-line": [line(False, tool_calls=[A, B]), line(True)]}
class Ollama(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        name = self.path.split("/")[1]
        body = json.dumps({"capabilities": ["completion", "tools"]}) if self.path.endswith("show") else "".join(STREAMS[name])
        self.send_response(200); self.send_header("Content-Type", "application/x-ndjson"); self.end_headers()
        self.wfile.write(body.encode())
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ollama)
threading.Thread(target=server.serve_forever, daemon=True).start()
import litellm
litellm.suppress_debug_info = True
seen = {}
for name in STREAMS:
    chunks = list(litellm.completion(model="ollama_chat/m", api_base=f"http://127.0.0.1:{server.server_port}/{name}",
        messages=[{"role": "user", "content": "weather?"}], stream=True))
    indexes = [call.index for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    joined = [call.function.arguments for call in litellm.stream_chunk_builder(chunks).choices[0].message.tool_calls]
    seen[name] = (indexes, joined)
    print(name, *seen[name])
assert seen["two-lines"] == ([0, 0], ['{"city": "Paris"}{"city": "Rome"}']), "the behavior has changed"
assert seen["one-line"] == ([0, 1], ['{"city": "Paris"}', '{"city": "Rome"}']), "the behavior has changed"
PY
LITELLM_LOCAL_MODEL_COST_MAP=True "$dir/venv/bin/python" "$dir/run.py"
