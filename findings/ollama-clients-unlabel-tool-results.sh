#!/usr/bin/env bash
# langchain-ollama 1.1.0, ollama-haystack 7.0.2 (Python) and @langchain/ollama 1.3.0 (JavaScript) send the results of tools to Ollama
# without saying which call, or even which tool, each is of.
#
# The program gives both: the results carry the ids of their calls and the tool's name. Ollama's messages have fields for them
# ("tool_call_id", "tool_name"), and litellm 1.110.2 (provider ollama_chat) fills the first. These three send content alone. If two
# calls ran at once and the second finished first, the results stand in that order, and to the model Paris has the weather of Rome.
#
# Needs: Python 3 with venv, Node 20 or later with npm, PyPI, the npm registry. Exits with 1 if the behavior has changed.
set -euo pipefail
dir=$(mktemp -d); trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$dir"' EXIT
cd "$dir"
cat >server.py <<'PY'
import http.server, json
class Ollama(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = {"capabilities": ["completion", "tools"], "model_info": {}, "details": {}}
        if not self.path.endswith("/api/show"):
            with open("asked", "a") as file:
                results = [message for message in asked["messages"] if message["role"] == "tool"]
                print(self.path.split("/")[1], *({k: v for k, v in result.items() if v} for result in results), file=file)
            answer = {"model": "m", "created_at": "2026-11-22T13:32:38Z", "message": {"role": "assistant", "content": "ok"},
                "done": True, "done_reason": "stop", "eval_count": 1, "prompt_eval_count": 1, "total_duration": 1,
                "load_duration": 1, "prompt_eval_duration": 1, "eval_duration": 1}
        self.send_response(200); self.send_header("Content-Type", "application/x-ndjson"); self.end_headers()
        self.wfile.write((json.dumps(answer) + "\n").encode())
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ollama)
open("port", "w").write(str(server.server_port))
server.serve_forever()
PY
python3 server.py & server=$!
for _ in $(seq 50); do [ -s port ] && break; sleep 0.1; done
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check langchain-ollama==1.1.0 ollama-haystack==7.0.2 litellm==1.110.2
npm init -y >/dev/null
npm install --silent --no-audit --no-fund @langchain/ollama@1.3.0 @langchain/core@1.4.0
cat >run.py <<'PY'
base = f"http://127.0.0.1:{open('port').read()}"
PARIS, ROME = {"city": "Paris"}, {"city": "Rome"}

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_ollama import ChatOllama
calls = [{"name": "get_weather", "args": PARIS, "id": "call_1"}, {"name": "get_weather", "args": ROME, "id": "call_2"}]
ChatOllama(model="m", base_url=f"{base}/langchain-ollama").invoke([HumanMessage("weather?"), AIMessage("", tool_calls=calls),
    ToolMessage("rain", tool_call_id="call_2", name="get_weather"), ToolMessage("sun", tool_call_id="call_1", name="get_weather")])

from haystack.dataclasses import ChatMessage, ToolCall
from haystack_integrations.components.generators.ollama import OllamaChatGenerator
paris, rome = ToolCall("get_weather", PARIS, id="call_1"), ToolCall("get_weather", ROME, id="call_2")
OllamaChatGenerator(model="m", url=f"{base}/ollama-haystack").run([ChatMessage.from_user("weather?"),
    ChatMessage.from_assistant(tool_calls=[paris, rome]), ChatMessage.from_tool("rain", origin=rome), ChatMessage.from_tool("sun", origin=paris)])

import json, litellm
calls = [{"id": id, "type": "function", "function": {"name": "get_weather", "arguments": json.dumps(city)}} for id, city in (("call_1", PARIS), ("call_2", ROME))]
litellm.completion(model="ollama_chat/m", api_base=f"{base}/litellm", messages=[{"role": "user", "content": "weather?"},
    {"role": "assistant", "content": None, "tool_calls": calls}, {"role": "tool", "tool_call_id": "call_2", "content": "rain"},
    {"role": "tool", "tool_call_id": "call_1", "content": "sun"}])
PY
LITELLM_LOCAL_MODEL_COST_MAP=True venv/bin/python run.py
cat >run.mjs <<'JS'
import { readFileSync } from 'node:fs';
import { ChatOllama } from '@langchain/ollama';
import { AIMessage, HumanMessage, ToolMessage } from '@langchain/core/messages';
const calls = [{ name: 'get_weather', args: { city: 'Paris' }, id: 'call_1' }, { name: 'get_weather', args: { city: 'Rome' }, id: 'call_2' }];
await new ChatOllama({ model: 'm', baseUrl: `http://127.0.0.1:${readFileSync('port', 'utf8')}/langchain-js` }).invoke([
  new HumanMessage('weather?'), new AIMessage({ content: '', tool_calls: calls }),
  new ToolMessage({ content: 'rain', tool_call_id: 'call_2', name: 'get_weather' }), new ToolMessage({ content: 'sun', tool_call_id: 'call_1', name: 'get_weather' })]);
JS
node run.mjs
cat asked
diff - asked <<'END'
langchain-ollama {'role': 'tool', 'content': 'rain'} {'role': 'tool', 'content': 'sun'}
ollama-haystack {'role': 'tool', 'content': 'rain'} {'role': 'tool', 'content': 'sun'}
litellm {'role': 'tool', 'content': 'rain', 'tool_call_id': 'call_2'} {'role': 'tool', 'content': 'sun', 'tool_call_id': 'call_1'}
langchain-js {'role': 'tool', 'content': 'rain'} {'role': 'tool', 'content': 'sun'}
END
