#!/usr/bin/env bash
# go-openai v1.43.0 loses the message of an error event if any line of the stream before it was not a data line.
#
# A Server-Sent Events comment (": waiting") is valid and has no meaning, and the client skips it while it reads chunks. But it
# remembers each such line, and puts them in front of a later error event before it parses that as JSON. So after one comment, or
# with an "event: error" line before the data line, the caller gets "unexpected end of JSON input" instead of the server's message.
# An empty line as a heartbeat, and the event's name after its data, leave the message intact.
#
# Needs: Go, Python 3, the Go module proxy. Exits with 1 if the behavior has changed.
set -euo pipefail
dir=$(mktemp -d); trap 'kill "${server:-}" 2>/dev/null || true; chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat >server.py <<'PY'
import http.server, json
CHUNK = 'data: ' + json.dumps({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
    "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hel"}, "finish_reason": None}]}) + '\n\n'
ERROR = 'data: {"error":{"message":"boom happened","type":"server_error","param":null,"code":null}}\n'
STREAMS = {
    "plain": CHUNK + ERROR + '\n',
    "after-comment": ': waiting\n\n' + CHUNK + ERROR + '\n',
    "after-empty-line": '\n' + CHUNK + ERROR + '\n',
    "name-first": CHUNK + 'event: error\n' + ERROR + '\n',
    "name-last": CHUNK + ERROR + 'event: error\n\n',
}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers.get('Content-Length', 0)))
        body = STREAMS[self.path.split('/')[1]].encode()
        self.send_response(200)
        self.send_header('Content-Type', 'text/event-stream')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
PY
python3 server.py >port & server=$!
cat >main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"os"

	openai "github.com/sashabaranov/go-openai"
)

func main() {
	for _, stream := range []string{"plain", "after-comment", "after-empty-line", "name-first", "name-last"} {
		config := openai.DefaultConfig("unused")
		config.BaseURL = "http://127.0.0.1:" + os.Args[1] + "/" + stream + "/v1"
		s, err := openai.NewClientWithConfig(config).CreateChatCompletionStream(context.Background(), openai.ChatCompletionRequest{
			Model: "m", Messages: []openai.ChatCompletionMessage{{Role: "user", Content: "hi"}}})
		for err == nil {
			_, err = s.Recv()
		}
		fmt.Printf("%s: %v\n", stream, err)
	}
}
GO
go mod init finding >/dev/null 2>&1
go get github.com/sashabaranov/go-openai@v1.43.0 >/dev/null 2>&1
for _ in $(seq 50); do [ -s port ] && break; sleep 0.1; done
go run . "$(cat port)" | tee seen
diff - seen <<'SEEN'
plain: error, boom happened
after-comment: unexpected end of JSON input
after-empty-line: error, boom happened
name-first: unexpected end of JSON input
name-last: error, boom happened
SEEN
