// Ollama's own Go client: farllama as an Ollama in front of an OpenAI server.
package main

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/ollama/ollama/api"
)

func ollamaBridge(base string) {
	ctx := context.Background()
	client := ollamaClient(base)
	if client == nil {
		return
	}
	user := func(text string) []api.Message { return []api.Message{{Role: "user", Content: text}} }

	if os.Getenv("WITNESS_REAL") != "" {
		check("llama.cpp: a chat streams to its end within the length that was asked for", func() error {
			list, err := client.List(ctx)
			if err != nil {
				return err
			}
			var text strings.Builder
			var last api.ChatResponse
			options := map[string]any{"num_predict": 8, "temperature": 0}
			ask := &api.ChatRequest{Model: list.Models[0].Name, Messages: user("Say hello."), Options: options}
			err = client.Chat(ctx, ask, func(reply api.ChatResponse) error {
				text.WriteString(reply.Message.Content)
				last = reply
				return nil
			})
			whole := last.Done && last.DoneReason == "length" && last.EvalCount == 8 && text.Len() > 0
			return errors.Join(err, expect(whole, "%v %q", last, text.String()))
		})
		return
	}
	check("models are listed and shown, and the server is alive", func() error {
		return listed(ctx, client)
	})
	check("a chat streams to its end", func() error {
		var text strings.Builder
		var last api.ChatResponse
		err := client.Chat(ctx, &api.ChatRequest{Model: "smollm2:135m", Messages: user("Say meadow.")}, func(reply api.ChatResponse) error {
			text.WriteString(reply.Message.Content)
			last = reply
			return nil
		})
		whole := last.Done && last.EvalCount > 0 && strings.Contains(text.String(), "meadow")
		return errors.Join(err, expect(whole, "%v %q", last, text.String()))
	})
	check("generate streams to its end", func() error {
		var text strings.Builder
		done := false
		err := client.Generate(ctx, &api.GenerateRequest{Model: "smollm2:135m", Prompt: "Say window."}, func(reply api.GenerateResponse) error {
			text.WriteString(reply.Response)
			done = reply.Done
			return nil
		})
		return errors.Join(err, expect(done && strings.Contains(text.String(), "window"), "%v %q", done, text.String()))
	})
	check("a chat that breaks off is an error", func() error {
		err := client.Chat(ctx, &api.ChatRequest{Model: "breaks", Messages: user("Tell a story.")}, func(api.ChatResponse) error { return nil })
		return expect(err != nil, "no error")
	})
	check("a model that is not there has Ollama's text", func() error {
		err := client.Chat(ctx, &api.ChatRequest{Model: "nope", Messages: user("hi")}, func(api.ChatResponse) error { return nil })
		return expect(err != nil && strings.Contains(err.Error(), "model 'nope' not found"), "%v", err)
	})
	check("embeddings come in order", func() error {
		reply, err := client.Embed(ctx, &api.EmbedRequest{Model: "all-minilm", Input: []string{"one", "two"}})
		if err != nil {
			return err
		}
		return expect(len(reply.Embeddings) == 2 && len(reply.Embeddings[0]) > 0, "%d vectors", len(reply.Embeddings))
	})
}
