// langchain4j's OpenAI client, which has an SSE reader of its own, and openai-java, the official one.

import com.openai.client.OpenAIClient;
import com.openai.client.okhttp.OpenAIOkHttpClient;
import com.openai.errors.NotFoundException;
import com.openai.errors.SseException;
import com.openai.models.chat.completions.ChatCompletionCreateParams;
import com.openai.models.embeddings.EmbeddingCreateParams;
import dev.langchain4j.data.message.UserMessage;
import dev.langchain4j.model.chat.request.ChatRequest;
import dev.langchain4j.model.openai.OpenAiChatModel;
import dev.langchain4j.model.openai.OpenAiStreamingChatModel;

public final class Witness {
    private static final String BASE = System.getenv("WITNESS_URL") + "/v1";

    private static LangChain.Streamed stream(String model, String prompt) throws Exception {
        var client = OpenAiStreamingChatModel.builder().baseUrl(BASE).apiKey("unused").modelName(model).build();
        return LangChain.stream(client, prompt);
    }

    private static ChatCompletionCreateParams ask(String model, String prompt) {
        return ChatCompletionCreateParams.builder().model(model).addUserMessage(prompt).build();
    }

    public static void main(String[] arguments) {
        Report.check("langchain4j: a chat answers, whole and streamed", () -> {
            var model = OpenAiChatModel.builder().baseUrl(BASE).apiKey("unused").modelName("smollm2:135m").build();
            Report.expect(model.chat("Say harbor.").contains("harbor"), "the whole answer");
            var streamed = stream("smollm2:135m", "Say harbor.");
            Report.expect(streamed.error() == null && streamed.text().contains("harbor"), streamed);
        });
        Report.check("langchain4j: a stream that breaks is an error, never a whole answer", () -> {
            var streamed = stream("breaks", "Tell a story.");
            Report.expect(streamed.whole() == null && streamed.error() != null && !streamed.text().isEmpty(), streamed);
        });
        Report.check("langchain4j: a stream that breaks after heartbeats is an error as well", () -> {
            var streamed = stream("slow-breaks", "Tell a story.");
            Report.expect(streamed.whole() == null && streamed.error() != null && !streamed.text().isEmpty(), streamed);
        });
        Report.check("langchain4j: a tool is called", () -> {
            var model = OpenAiChatModel.builder().baseUrl(BASE).apiKey("unused").modelName("agent").build();
            var request = ChatRequest.builder()
                .messages(UserMessage.from("What is the weather in Paris?"))
                .toolSpecifications(LangChain.weather())
                .build();
            var calls = model.chat(request).aiMessage().toolExecutionRequests();
            Report.expect(calls.size() == 1 && calls.get(0).name().equals("get_weather"), calls);
        });

        OpenAIClient client = OpenAIOkHttpClient.builder().baseUrl(BASE).apiKey("unused").maxRetries(0).build();
        Report.check("openai-java: a stream has the text", () -> {
            var text = new StringBuilder();
            try (var stream = client.chat().completions().createStreaming(ask("smollm2:135m", "Say harbor."))) {
                stream.stream().forEach(chunk -> chunk.choices().forEach(choice -> choice.delta().content().ifPresent(text::append)));
            }
            Report.expect(text.indexOf("harbor") >= 0, text);
        });
        Report.check("openai-java: a stream that breaks is an SseException", () -> {
            try (var stream = client.chat().completions().createStreaming(ask("breaks", "Tell a story."))) {
                stream.stream().forEach(chunk -> {});
                Report.expect(false, "it ended as if it were whole");
            } catch (SseException expected) {
                Report.expect(!expected.getMessage().isEmpty(), expected);
            }
        });
        Report.check("openai-java: a missing model is a NotFoundException", () -> {
            try {
                client.chat().completions().create(ask("gpt-os", "hi"));
                Report.expect(false, "it was answered");
            } catch (NotFoundException expected) {
                Report.expect(expected.code().orElse("").equals("model_not_found"), expected);
            }
        });
        Report.check("openai-java: embeddings, which it asks for in base64, are read", () -> {
            var params = EmbeddingCreateParams.builder().model("all-minilm").input("one").build();
            var values = client.embeddings().create(params).data().get(0).embedding();
            var length = values.stream().mapToDouble(value -> value * value).sum();
            Report.expect(Math.abs(length - 1) < 1e-3, length);
        });
        Report.end();
    }
}
