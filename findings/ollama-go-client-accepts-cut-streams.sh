#!/usr/bin/env bash
# Ollama's own Go client (github.com/ollama/ollama/api v0.17.4, which the ollama command uses) reports no error if the connection is
# cut in the middle of a stream.
#
# Client.Chat reads lines with a bufio.Scanner and never asks it for its error. A connection that closes within a chunked body,
# without the last chunk, ends the loop like a proper end: Chat returns nil, and the caller has half of an answer. The same server
# makes Go's own io.ReadAll return "unexpected EOF". Only an object {"error":"…"} as the last line makes the client return an error.
#
# Needs: Go 1.24 or later, the Go module proxy. Exits with 1 if the behavior has changed.
set -euo pipefail
dir=$(mktemp -d); trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat >main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"

	"github.com/ollama/ollama/api"
)

const line = `{"model":"m","created_at":"2026-11-22T13:32:38.921429078Z","message":{"role":"assistant","content":"Hel"},"done":false}` + "\n"

func main() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		io.WriteString(w, line)
		w.(http.Flusher).Flush()
		if r.URL.Path == "/error/api/chat" {
			io.WriteString(w, `{"error":"boom happened"}`+"\n")
			return
		}
		panic(http.ErrAbortHandler) // closes the connection without the last chunk
	}))
	chat := func(path string) string {
		base, _ := url.Parse(server.URL + path)
		text := ""
		err := api.NewClient(base, http.DefaultClient).Chat(context.Background(),
			&api.ChatRequest{Model: "m", Messages: []api.Message{{Role: "user", Content: "hi"}}},
			func(part api.ChatResponse) error { text += part.Message.Content; return nil })
		return fmt.Sprintf("%q %v", text, err)
	}
	response, _ := http.Post(server.URL+"/cut/api/chat", "application/json", nil)
	_, err := io.ReadAll(response.Body)
	seen := fmt.Sprintf("cut: %s\nerror line: %s\nio.ReadAll of cut: %v\n", chat("/cut"), chat("/error"), err)
	fmt.Print(seen)
	if seen != "cut: \"Hel\" <nil>\nerror line: \"Hel\" boom happened\nio.ReadAll of cut: unexpected EOF\n" {
		fmt.Println("the behavior has changed")
		os.Exit(1)
	}
}
GO
export GOFLAGS=-mod=mod GOMODCACHE="$dir/modules"
go mod init example >/dev/null 2>&1
go get github.com/ollama/ollama/api@v0.17.4 >/dev/null 2>&1
go run .
