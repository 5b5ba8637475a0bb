// What the checks of langchain4j's clients share, whichever API they speak.

import dev.langchain4j.agent.tool.ToolSpecification;
import dev.langchain4j.model.chat.StreamingChatModel;
import dev.langchain4j.model.chat.request.json.JsonObjectSchema;
import dev.langchain4j.model.chat.response.ChatResponse;
import dev.langchain4j.model.chat.response.StreamingChatResponseHandler;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;

final class LangChain {
    /** The text of a stream, and what it ended with: the whole answer, or the error that the client reported. */
    record Streamed(String text, String whole, Throwable error) {}

    static Streamed stream(StreamingChatModel model, String prompt) throws Exception {
        var text = new StringBuffer();
        var end = new CompletableFuture<ChatResponse>();
        model.chat(prompt, new StreamingChatResponseHandler() {
            @Override
            public void onPartialResponse(String part) {
                text.append(part);
            }

            @Override
            public void onCompleteResponse(ChatResponse response) {
                end.complete(response);
            }

            @Override
            public void onError(Throwable error) {
                end.completeExceptionally(error);
            }
        });
        try {
            var response = end.get(30, TimeUnit.SECONDS);
            return new Streamed(text.toString(), response.aiMessage().text(), null);
        } catch (ExecutionException error) {
            return new Streamed(text.toString(), null, error.getCause());
        }
    }

    /** A tool that takes a city. */
    static ToolSpecification weather() {
        var city = JsonObjectSchema.builder().addStringProperty("city").required("city").build();
        return ToolSpecification.builder().name("get_weather").description("Weather of a city").parameters(city).build();
    }

    private LangChain() {}
}
