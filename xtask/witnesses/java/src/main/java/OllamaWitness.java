// langchain4j's Ollama client: farllama as an Ollama in front of an OpenAI server.

import dev.langchain4j.data.message.AiMessage;
import dev.langchain4j.data.message.ToolExecutionResultMessage;
import dev.langchain4j.data.message.UserMessage;
import dev.langchain4j.model.chat.request.ChatRequest;
import dev.langchain4j.model.ollama.OllamaChatModel;
import dev.langchain4j.model.ollama.OllamaEmbeddingModel;
import dev.langchain4j.model.ollama.OllamaModels;
import dev.langchain4j.model.ollama.OllamaStreamingChatModel;

public final class OllamaWitness {
    private static final String BASE = System.getenv("WITNESS_BRIDGED_URL");

    private static OllamaChatModel chat(String model) {
        return OllamaChatModel.builder().baseUrl(BASE).modelName(model).maxRetries(0).build();
    }

    private static OllamaStreamingChatModel streaming(String model) {
        return OllamaStreamingChatModel.builder().baseUrl(BASE).modelName(model).build();
    }

    private static void real() throws Exception {
        Report.check("llama.cpp: a chat answers, whole and streamed, within the length that was asked for", () -> {
            var name = OllamaModels.builder().baseUrl(BASE).build().availableModels().content().get(0).getName();
            var whole = OllamaChatModel.builder().baseUrl(BASE).modelName(name).numPredict(8).temperature(0.0).build();
            var text = whole.chat("Say hello.");
            Report.expect(!text.isEmpty(), "the whole answer is empty");
            var parts = OllamaStreamingChatModel.builder().baseUrl(BASE).modelName(name).numPredict(8).temperature(0.0).build();
            var streamed = LangChain.stream(parts, "Say hello.");
            Report.expect(streamed.error() == null && streamed.text().equals(text), streamed + " instead of " + text);
        });
    }

    private static void scripted() {
        Report.check("models are listed", () -> {
            var models = OllamaModels.builder().baseUrl(BASE).build().availableModels().content();
            Report.expect(models.stream().anyMatch(model -> model.getName().equals("gpt-oss:20b")), models);
        });
        Report.check("a chat answers, whole and streamed", () -> {
            var text = chat("smollm2:135m").chat("Say harbor.");
            Report.expect(text.contains("harbor"), text);
            var streamed = LangChain.stream(streaming("smollm2:135m"), "Say harbor.");
            Report.expect(streamed.error() == null && streamed.text().contains("harbor"), streamed);
        });
        Report.check("a tool is called, and its result is understood", () -> {
            var asked = UserMessage.from("What is the weather in Paris?");
            var request = ChatRequest.builder().messages(asked).toolSpecifications(LangChain.weather()).build();
            AiMessage answer = chat("agent").chat(request).aiMessage();
            var calls = answer.toolExecutionRequests();
            Report.expect(calls.size() == 1 && calls.get(0).name().equals("get_weather"), calls);
            var result = ToolExecutionResultMessage.from(calls.get(0), "sunny, 21 C");
            var next = ChatRequest.builder().messages(asked, answer, result).toolSpecifications(LangChain.weather()).build();
            Report.expect(!chat("agent").chat(next).aiMessage().text().isEmpty(), "no answer to the result");
        });
        Report.check("embeddings have numbers", () -> {
            var model = OllamaEmbeddingModel.builder().baseUrl(BASE).modelName("all-minilm").build();
            var vector = model.embed("one").content().vector();
            Report.expect(vector.length > 0, vector.length);
        });
        Report.check("a stream that breaks off is an error, never a whole answer", () -> {
            var streamed = LangChain.stream(streaming("breaks"), "Tell a story.");
            Report.expect(streamed.whole() == null && streamed.error() != null, streamed);
        });
        Report.check("a model that is not there has Ollama's text", () -> {
            try {
                Report.expect(false, chat("nope").chat("hi"));
            } catch (RuntimeException expected) {
                Report.expect(String.valueOf(expected.getMessage()).contains("model 'nope' not found"), expected);
            }
        });
    }

    public static void main(String[] arguments) throws Exception {
        if (System.getenv("WITNESS_REAL") != null) {
            real();
        } else {
            scripted();
        }
        Report.end();
    }
}
