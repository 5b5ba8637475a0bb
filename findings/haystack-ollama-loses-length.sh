#!/usr/bin/env bash
# ollama-haystack 7.0.2: the reply of a chat that the token limit cut off has no finish reason.
#
# Ollama ends a truncated answer with "done_reason": "length". OllamaChatGenerator knows "stop" and drops this one: finish_reason is
# None, streamed or not, and no other field of the reply holds it. Code that looks for "length", as Haystack's OpenAI generators
# report it, takes half of an answer for a whole one.
#
# Needs: Python 3 with venv, PyPI. Exits with 1 if the behavior has changed.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check ollama-haystack==7.0.2
cat >"$dir/run.py" <<'PY'
import http.server, json, threading
def line(text, **more):
    return json.dumps({"model": "m", "created_at": "2026-11-22T13:32:38.921429078Z",
        "message": {"role": "assistant", "content": text}, "done": bool(more), **more}) + "\n"
class Ollama(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        end = dict(done_reason=self.path.split("/")[1], eval_count=2, prompt_eval_count=3, total_duration=9, load_duration=1,
            prompt_eval_duration=1, eval_duration=1)
        body = line("Hel") + line("lo") + line("", **end) if asked.get("stream") else line("Hello", **end)
        self.send_response(200); self.send_header("Content-Type", "application/x-ndjson"); self.end_headers()
        self.wfile.write(body.encode())
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ollama)
threading.Thread(target=server.serve_forever, daemon=True).start()
from haystack.dataclasses import ChatMessage
from haystack_integrations.components.generators.ollama import OllamaChatGenerator
seen = {}
for reason in ("stop", "length"):
    for streamed in (False, True):
        chunks = []
        generator = OllamaChatGenerator(model="m", url=f"http://127.0.0.1:{server.server_port}/{reason}",
            streaming_callback=chunks.append if streamed else None)
        reply = generator.run([ChatMessage.from_user("hi")])["replies"][0]
        seen[reason, streamed] = reply.meta.get("finish_reason")
        print(f"done_reason {reason}, streamed {streamed}: {reply.text!r}, finish_reason {seen[reason, streamed]!r}")
expected = {("stop", False): "stop", ("stop", True): "stop", ("length", False): None, ("length", True): None}
assert seen == expected, "the behavior has changed"
PY
"$dir/venv/bin/python" "$dir/run.py"
