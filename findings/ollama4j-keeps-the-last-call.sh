#!/usr/bin/env bash
# ollama4j 1.1.6 keeps only the last of several tool calls that Ollama streams.
#
# Ollama sends each call in a line of its own, as soon as it is parsed. The result of a chat with a token handler holds the calls of
# the last such line; those before it are gone, without an error. With both calls in one line the result has both. And if a stream
# ends without its last line ("done": true), the result is the last piece of the text alone, instead of an error or the whole text.
#
# Needs: a JDK (17 or later), Maven, Python 3, Maven Central. Exits with 1 if the behavior has changed.
set -euo pipefail
dir=$(mktemp -d); trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$dir"' EXIT
cd "$dir"
cat >server.py <<'PY'
import http.server, json
def call(number, city):
    return {"id": f"call_{number}", "function": {"index": number, "name": "get_weather", "arguments": {"city": city}}}
def line(text="", done=False, **message):
    more = {"done_reason": "stop", "eval_count": 2, "prompt_eval_count": 3} if done else {}
    return json.dumps({"model": "m", "created_at": "2026-11-22T13:32:38.921429078Z",
        "message": {"role": "assistant", "content": text, **message}, "done": done, **more}) + "\n"
A, B = call(0, "Paris"), call(1, "Rome")
BODIES = {"two-lines": line(tool_calls=[A]) + line(tool_calls=[B]) + line(done=True), "one-line": line(tool_calls=[A, B]) + line(done=True),
          "text": line("Hel") + line("lo") + line(done=True), "unfinished": line("Hel") + line("lo")}
class Ollama(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200); self.send_header("Content-Type", "application/x-ndjson"); self.end_headers()
        self.wfile.write(BODIES[self.path.split("/")[1]].encode())
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ollama)
open("port", "w").write(str(server.server_port))
server.serve_forever()
PY
python3 server.py & server=$!
for _ in $(seq 50); do [ -s port ] && break; sleep 0.1; done
cat >pom.xml <<'XML'
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
  <groupId>example</groupId><artifactId>example</artifactId><version>1</version>
  <properties><maven.compiler.source>17</maven.compiler.source><maven.compiler.target>17</maven.compiler.target><project.build.sourceEncoding>UTF-8</project.build.sourceEncoding></properties>
  <dependencies><dependency><groupId>io.github.ollama4j</groupId><artifactId>ollama4j</artifactId><version>1.1.6</version></dependency></dependencies>
</project>
XML
mkdir -p src/main/java
cat >src/main/java/Main.java <<'JAVA'
import io.github.ollama4j.Ollama;
import io.github.ollama4j.models.chat.*;

public class Main {
    public static void main(String[] arguments) throws Exception {
        for (String name : new String[] {"two-lines", "one-line", "text", "unfinished"}) {
            Ollama client = new Ollama(arguments[0] + "/" + name);
            OllamaChatRequest request = OllamaChatRequest.builder().withModel("m").withMessage(OllamaChatMessageRole.USER, "hi").build();
            OllamaChatMessage message = client.chat(request, token -> { }).getResponseModel().getMessage();
            StringBuilder calls = new StringBuilder();
            if (message.getToolCalls() != null)
                for (OllamaChatToolCalls call : message.getToolCalls()) calls.append(' ').append(call.getFunction().getArguments());
            System.out.println(name + ":" + (message.getResponse().isEmpty() ? calls : " " + message.getResponse()));
        }
        System.exit(0);
    }
}
JAVA
mvn --quiet --batch-mode compile dependency:build-classpath -Dmdep.outputFile=classpath >build.log 2>&1 || { cat build.log; exit 2; }
java -cp "target/classes:$(cat classpath)" Main "http://127.0.0.1:$(cat port)" 2>/dev/null | tee seen
diff - seen <<'END'
two-lines: {city=Rome}
one-line: {city=Paris} {city=Rome}
text: Hello
unfinished: lo
END
