// go-openai, the most used community client, and openai-go, the official one.
package main

import (
	"context"
	"errors"
	"io"
	"math"
	"strings"

	official "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	community "github.com/sashabaranov/go-openai"
)

func openAI(url string) {
	ctx := context.Background()
	config := community.DefaultConfig("unused")
	config.BaseURL = url + "/v1"
	client := community.NewClientWithConfig(config)
	ask := func(model, prompt string) community.ChatCompletionRequest {
		message := community.ChatCompletionMessage{Role: "user", Content: prompt}
		return community.ChatCompletionRequest{Model: model, Messages: []community.ChatCompletionMessage{message}}
	}
	// The text of a stream, and the error that it ended with: io.EOF at a proper end.
	stream := func(model, prompt string) (string, error) {
		stream, err := client.CreateChatCompletionStream(ctx, ask(model, prompt))
		if err != nil {
			return "", err
		}
		defer stream.Close()
		var text strings.Builder
		for {
			chunk, err := stream.Recv()
			if err != nil {
				return text.String(), err
			}
			for _, choice := range chunk.Choices {
				text.WriteString(choice.Delta.Content)
			}
		}
	}

	check("go-openai: a chat answers, whole and streamed", func() error {
		answer, err := client.CreateChatCompletion(ctx, ask("smollm2:135m", "Say harbor."))
		if err != nil {
			return err
		}
		text, err := stream("smollm2:135m", "Say harbor.")
		whole := answer.Choices[0].Message.Content
		return expect(errors.Is(err, io.EOF) && strings.Contains(text, "harbor") && strings.Contains(whole, "harbor"),
			"%q, %q: %v", whole, text, err)
	})
	check("go-openai: a missing model is an APIError with its code", func() error {
		_, err := client.CreateChatCompletion(ctx, ask("gpt-os", "hi"))
		var refused *community.APIError
		return expect(errors.As(err, &refused) && refused.HTTPStatusCode == 404 && refused.Code == "model_not_found", "%v", err)
	})
	check("go-openai: a stream that breaks is an error with its message", func() error {
		text, err := stream("breaks", "Tell a story.")
		var broken *community.APIError
		return expect(errors.As(err, &broken) && broken.Message != "" && text != "", "%q: %T %v", text, err, err)
	})
	check("go-openai: a stream that breaks after heartbeats is an error with its message", func() error {
		text, err := stream("slow-breaks", "Tell a story.")
		var broken *community.APIError
		return expect(errors.As(err, &broken) && broken.Message != "" && text != "", "%q: %T %v", text, err, err)
	})

	o := official.NewClient(option.WithBaseURL(url+"/v1"), option.WithAPIKey("unused"), option.WithMaxRetries(0))
	params := func(model, prompt string) official.ChatCompletionNewParams {
		return official.ChatCompletionNewParams{
			Model:    model,
			Messages: []official.ChatCompletionMessageParamUnion{official.UserMessage(prompt)},
		}
	}
	check("openai-go: a stream accumulates to the whole message", func() error {
		stream := o.Chat.Completions.NewStreaming(ctx, params("smollm2:135m", "Say harbor."))
		folded := official.ChatCompletionAccumulator{}
		for stream.Next() {
			if !folded.AddChunk(stream.Current()) {
				return errors.New("a chunk does not fit those before it")
			}
		}
		if stream.Err() != nil {
			return stream.Err()
		}
		return expect(strings.Contains(folded.Choices[0].Message.Content, "harbor"), "%+v", folded.Choices)
	})
	check("openai-go: a stream that breaks is an error with its message", func() error {
		stream := o.Chat.Completions.NewStreaming(ctx, params("breaks", "Tell a story."))
		for stream.Next() {
		}
		return expect(stream.Err() != nil && strings.Contains(stream.Err().Error(), "message"), "%v", stream.Err())
	})
	check("openai-go: embeddings have unit length", func() error {
		answer, err := o.Embeddings.New(ctx, official.EmbeddingNewParams{
			Model: "all-minilm",
			Input: official.EmbeddingNewParamsInputUnion{OfString: official.String("one")},
		})
		if err != nil {
			return err
		}
		length := 0.0
		for _, value := range answer.Data[0].Embedding {
			length += value * value
		}
		return expect(math.Abs(length-1) < 1e-3, "the squared length is %v", length)
	})
}
