#!/usr/bin/env bash
# mistralai 3.7.0 (Python): an error in a stream becomes a complaint about missing fields, and the server's message is lost.
#
# Servers that speak OpenAI's protocol report a failure in mid-stream as {"error": {"message": …}}. The SDK (which people point at such
# servers with server_url) checks it as a chunk and raises ResponseValidationError, "3 validation errors": id, model and choices are
# missing. The text of the error has the server's message in it only as far as Pydantic quotes values, a few characters of it; a log of
# the exception loses the reason. It stands in error.body alone, inside of "data: …". A named event (event: error) fares alike.
# mistralai 2.7.0 for JavaScript raises a ZodError instead.
#
# Needs: Python 3 with venv, PyPI. Exits with 1 if the behavior has changed.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check mistralai==3.7.0
cat >"$dir/run.py" <<'PY'
import http.server, json, threading
MESSAGE = "the model runner has stopped; see the log of the server"
CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
    "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hel"}, "finish_reason": None}]}
ERROR = {"error": {"message": MESSAGE, "type": "server_error", "param": None, "code": None}}
class OpenAI(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        name = "event: error\n" if "/named" in self.path else ""
        self.send_response(200); self.send_header("Content-Type", "text/event-stream"); self.end_headers()
        self.wfile.write(f"data: {json.dumps(CHUNK)}\n\n{name}data: {json.dumps(ERROR)}\n\n".encode())
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), OpenAI)
threading.Thread(target=server.serve_forever, daemon=True).start()
from mistralai.client import Mistral
for path in ("unnamed", "named"):
    client = Mistral(api_key="k", server_url=f"http://127.0.0.1:{server.server_port}/{path}")
    text, error = "", None
    try:
        for event in client.chat.stream(model="m", messages=[{"role": "user", "content": "hi"}]):
            text += event.data.choices[0].delta.content or ""
    except Exception as raised:
        error = raised
    seen = {"text": MESSAGE in str(error), "body": MESSAGE in error.body}
    print(f"{path}: {text!r}, then {type(error).__name__}: {str(error).splitlines()[0]}; has the message: {seen}")
    assert text == "Hel" and type(error).__name__ == "ResponseValidationError", "the behavior has changed"
    assert seen == {"text": False, "body": True}, "the behavior has changed"
PY
"$dir/venv/bin/python" "$dir/run.py"
