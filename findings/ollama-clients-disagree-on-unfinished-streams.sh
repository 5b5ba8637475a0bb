#!/usr/bin/env bash
# Ollama's own clients disagree on a stream that ends without its last line ("done": true): ollama 0.6.3 for Python takes it for a
# complete answer, ollama 0.6.4 for JavaScript raises an error.
#
# HTTP's framing is intact in both cases: the server, or a gateway in front of it, has ended the response properly, but early. An
# empty line between two objects divides them as well: Python raises a JSONDecodeError, JavaScript prints a warning and goes on.
# So a proxy that notices an early end must break the framing, or Python programs go on with half of an answer; and it must not
# send empty lines as heartbeats.
#
# Needs: Python 3 with venv, Node 18 or later with npm, PyPI, the npm registry. Exits with 1 if the behavior has changed.
set -euo pipefail
dir=$(mktemp -d); trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$dir"' EXIT
cd "$dir"
cat >server.py <<'PY'
import http.server, json
def line(text, **more):
    return json.dumps({"model": "m", "created_at": "2026-11-22T13:32:38.921429078Z",
        "message": {"role": "assistant", "content": text}, "done": bool(more), **more}) + "\n"
END = line("", done_reason="stop", eval_count=2, prompt_eval_count=3)
BODIES = {"whole": line("Hel") + line("lo") + END, "unfinished": line("Hel") + line("lo"), "empty-line": line("Hel") + "\n" + line("lo") + END}
class Ollama(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        body = BODIES[self.path.split("/")[1]].encode()
        self.send_response(200); self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked"); self.end_headers()
        self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ollama)
open("port", "w").write(str(server.server_port))
server.serve_forever()
PY
python3 server.py & server=$!
for _ in $(seq 50); do [ -s port ] && break; sleep 0.1; done
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check ollama==0.6.3
npm init -y >/dev/null
npm install --silent --no-audit --no-fund ollama@0.6.4
cat >run.py <<'PY'
import ollama
for name in ("whole", "unfinished", "empty-line"):
    try:
        client = ollama.Client(host=f"http://127.0.0.1:{open('port').read()}/{name}")
        parts = client.chat(model="m", messages=[{"role": "user", "content": "hi"}], stream=True)
        print("python", name, "".join(part.message.content for part in parts))
    except Exception as error:
        print("python", name, type(error).__name__)
PY
cat >run.mjs <<'JS'
import { readFileSync } from 'node:fs';
import { Ollama } from 'ollama';
for (const name of ['whole', 'unfinished', 'empty-line'])
  try {
    let text = '';
    const client = new Ollama({ host: `http://127.0.0.1:${readFileSync('port', 'utf8')}/${name}` });
    for await (const part of await client.chat({ model: 'm', messages: [{ role: 'user', content: 'hi' }], stream: true })) text += part.message.content;
    console.log('javascript', name, text);
  } catch (error) { console.log('javascript', name, error.message); }
JS
{ venv/bin/python run.py; node run.mjs 2>/dev/null; } | tee seen
diff - seen <<'END'
python whole Hello
python unfinished Hello
python empty-line JSONDecodeError
javascript whole Hello
javascript unfinished Did not receive done or success response in stream.
javascript empty-line Hello
END
