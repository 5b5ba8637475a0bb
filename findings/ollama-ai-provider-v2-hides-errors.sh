#!/usr/bin/env bash
# ollama-ai-provider-v2 4.0.1 (with ai 7.0.173) hides an error that Ollama reports within a stream.
#
# When generation fails after the response has begun, Ollama's last line is {"error":"…"}. This provider checks each line against
# the schema of a chat line, prints the mismatch to the console, and skips the line: the stream ends with the text so far and the
# finish reason "other", and no error part, no onError. An error with a status (500) is reported, but with the status text alone:
# Ollama's message is gone. ai-sdk-ollama 4.3.0, for the same SDK, reports both with their text.
#
# Needs: Node 20 or later with npm, Python 3, the npm registry. Exits with 1 if the behavior has changed.
set -euo pipefail
dir=$(mktemp -d); trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$dir"' EXIT
cd "$dir"
cat >server.py <<'PY'
import http.server, json
def line(text): return json.dumps({"model": "m", "created_at": "2026-11-22T13:32:38.921429078Z",
    "message": {"role": "assistant", "content": text}, "done": False}) + "\n"
ERROR = '{"error":"boom happened"}\n'
class Ollama(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/api/show"): status, body = 200, '{"capabilities":["completion"],"model_info":{},"details":{}}'
        elif "whole" in self.path: status, body = 500, ERROR
        else: status, body = 200, line("Hel") + line("lo") + ERROR
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if status == 500 else "application/x-ndjson"); self.end_headers()
        self.wfile.write(body.encode())
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ollama)
open("port", "w").write(str(server.server_port))
server.serve_forever()
PY
python3 server.py & server=$!
for _ in $(seq 50); do [ -s port ] && break; sleep 0.1; done
npm init -y >/dev/null
npm install --silent --no-audit --no-fund ai@7.0.173 ollama-ai-provider-v2@4.0.1 ai-sdk-ollama@4.3.0
cat >run.mjs <<'JS'
import { readFileSync } from 'node:fs';
import { streamText } from 'ai';
import * as v2 from 'ollama-ai-provider-v2';
import * as sdk from 'ai-sdk-ollama';
const base = `http://127.0.0.1:${readFileSync('port', 'utf8')}`;
const seen = {};
for (const when of ['midway', 'whole'])
  for (const [name, model] of [['v2', v2.createOllama({ baseURL: `${base}/${when}/api` })('m')], ['sdk', sdk.createOllama({ baseURL: `${base}/${when}` })('m')]]) {
    const parts = [];
    try {
      for await (const part of streamText({ model, prompt: 'hi', maxRetries: 0, onError() {} }).fullStream) {
        if (part.type === 'text-delta') parts.push(part.text);
        if (part.type === 'error') parts.push(`error: ${part.error.message}`);
        if (part.type === 'finish') parts.push(`finish: ${part.finishReason}`);
      }
    } catch (error) { parts.push(`thrown: ${error.message}`); }
    seen[`${name} ${when}`] = parts.join(' | ');
  }
console.log(seen);
const expected = { 'v2 midway': 'Hel | lo | finish: other', 'sdk midway': 'Hel | lo | thrown: boom happened',
  'v2 whole': 'error: Internal Server Error', 'sdk whole': 'error: boom happened' };
for (const [key, value] of Object.entries(expected))
  if (seen[key] !== value) { console.error(`${key}: the behavior has changed`); process.exit(1); }
JS
node run.mjs 2>/dev/null
