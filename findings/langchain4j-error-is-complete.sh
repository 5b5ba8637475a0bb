#!/usr/bin/env bash
# langchain4j-open-ai 1.19.0 takes an unnamed error event in a chat stream for the end of a complete answer.
#
# A server that fails after its first chunks can only report this inside of the stream: data: {"error":{...}}. The client's SSE
# reader looks at the event's name alone. Without "event: error" it ignores the object, and the handler's onCompleteResponse is
# called with the text so far and a null finish reason. With the name, before or after the data line, onError is called.
#
# Needs: a JDK (17 or later), Maven, Python 3, Maven Central. Exits with 1 if the behavior has changed.
set -euo pipefail
dir=$(mktemp -d); trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$dir"' EXIT
cd "$dir"
cat >server.py <<'PY'
import http.server, json
CHUNK = 'data: ' + json.dumps({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
    "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hel"}, "finish_reason": None}]}) + '\n\n'
ERROR = 'data: {"error":{"message":"boom happened","type":"server_error","param":null,"code":null}}\n'
STREAMS = {"unnamed": CHUNK + ERROR + '\n', "name-first": CHUNK + 'event: error\n' + ERROR + '\n', "name-last": CHUNK + ERROR + 'event: error\n\n'}
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
mkdir -p src/main/java
cat >pom.xml <<'XML'
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>finding</groupId><artifactId>finding</artifactId><version>1</version>
<properties><maven.compiler.source>17</maven.compiler.source><maven.compiler.target>17</maven.compiler.target><project.build.sourceEncoding>UTF-8</project.build.sourceEncoding></properties>
<dependencies>
<dependency><groupId>dev.langchain4j</groupId><artifactId>langchain4j-open-ai</artifactId><version>1.19.0</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-nop</artifactId><version>2.0.17</version></dependency>
</dependencies></project>
XML
cat >src/main/java/Finding.java <<'JAVA'
import dev.langchain4j.model.chat.response.*;
import dev.langchain4j.model.openai.OpenAiStreamingChatModel;
import java.util.concurrent.*;

public class Finding {
    public static void main(String[] args) throws Exception {
        for (String stream : new String[] {"unnamed", "name-first", "name-last"}) {
            var end = new CompletableFuture<String>();
            OpenAiStreamingChatModel.builder().baseUrl("http://127.0.0.1:" + args[0] + "/" + stream + "/v1").apiKey("unused").modelName("m").build()
                .chat("hi", new StreamingChatResponseHandler() {
                    public void onPartialResponse(String part) {}
                    public void onCompleteResponse(ChatResponse response) { end.complete("complete: " + response.aiMessage().text()); }
                    public void onError(Throwable error) { end.complete("error"); }
                });
            System.out.println(stream + ": " + end.get(20, TimeUnit.SECONDS));
        }
        System.exit(0);
    }
}
JAVA
mvn -q -B compile dependency:build-classpath -Dmdep.outputFile=path.txt >maven.log 2>&1 || { cat maven.log; exit 1; }
for _ in $(seq 50); do [ -s port ] && break; sleep 0.1; done
java -cp "target/classes:$(cat path.txt)" Finding "$(cat port)" | tee seen
diff - seen <<'SEEN'
unnamed: complete: Hel
name-first: error
name-last: error
SEEN
