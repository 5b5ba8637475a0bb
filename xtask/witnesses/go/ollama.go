// Ollama's own Go client, which its command line uses: farllama as a local Ollama.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/ollama/ollama/api"
)

// A client of the server at base; nil, and a failed check, where that is no URL.
func ollamaClient(base string) *api.Client {
	address, err := url.Parse(base)
	if err != nil {
		fmt.Printf("FAILED  %v\n", err)
		failed++
		return nil
	}
	return api.NewClient(address, http.DefaultClient)
}

// Models are listed, shown and running, and the server is alive.
func listed(ctx context.Context, client *api.Client) error {
	list, err := client.List(ctx)
	if err != nil {
		return err
	}
	named := func(model api.ListModelResponse) bool { return model.Name == "gpt-oss:20b" }
	if err := expect(slices.ContainsFunc(list.Models, named), "%d models, and gpt-oss:20b is not among them", len(list.Models)); err != nil {
		return err
	}
	show, err := client.Show(ctx, &api.ShowRequest{Model: "gpt-oss:20b"})
	if err != nil {
		return err
	}
	_, err = client.ListRunning(ctx)
	return errors.Join(err, expect(len(show.Capabilities) > 0, "no capabilities"), client.Heartbeat(ctx))
}

func ollama(base string) {
	ctx := context.Background()
	client := ollamaClient(base)
	if client == nil {
		return
	}

	check("models are listed, shown and running", func() error {
		return listed(ctx, client)
	})
	check("a chat streams to its end", func() error {
		var text strings.Builder
		done := false
		err := client.Chat(ctx, &api.ChatRequest{
			Model:    "smollm2:135m",
			Messages: []api.Message{{Role: "user", Content: "Say meadow."}},
		}, func(reply api.ChatResponse) error {
			text.WriteString(reply.Message.Content)
			done = reply.Done
			return nil
		})
		return errors.Join(err, expect(done && strings.Contains(text.String(), "meadow"), "%v %q", done, text.String()))
	})
	check("a chat that breaks off is an error", func() error {
		err := client.Chat(ctx, &api.ChatRequest{
			Model:    "breaks",
			Messages: []api.Message{{Role: "user", Content: "Tell a story."}},
		}, func(api.ChatResponse) error { return nil })
		return expect(err != nil, "it ended as if it were whole")
	})
	check("a missing model is an error with its status", func() error {
		_, err := client.Show(ctx, &api.ShowRequest{Model: "nope"})
		var status api.StatusError
		return expect(errors.As(err, &status) && status.StatusCode == 404, "%T %v", err, err)
	})
	check("a blob that is there already is not a broken connection", func() error {
		// Large enough that the client still writes when the answer comes.
		blob := bytes.Repeat([]byte("farllama"), 5<<20/8)
		digest := fmt.Sprintf("sha256:%x", sha256.Sum256(blob))
		for round := range 10 {
			if err := client.CreateBlob(ctx, digest, bytes.NewReader(blob)); err != nil {
				return fmt.Errorf("round %d: %w", round, err)
			}
		}
		return nil
	})
	check("a model is copied and deleted", func() error {
		return errors.Join(
			client.Copy(ctx, &api.CopyRequest{Source: "smollm2:135m", Destination: "mine"}),
			client.Delete(ctx, &api.DeleteRequest{Model: "mine"}),
		)
	})
	check("a pull reports its progress", func() error {
		last := ""
		err := client.Pull(ctx, &api.PullRequest{Model: "llama3.2"}, func(progress api.ProgressResponse) error {
			last = progress.Status
			return nil
		})
		return errors.Join(err, expect(last == "success", "the last line is %q", last))
	})
}
