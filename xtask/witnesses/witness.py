"""Foreign witnesses: the official openai and ollama packages through the real proxy, in front of the mock.

Usage: witness.py FARLLAMA MOCK_OLLAMA
"""

import json
import os
import re
import subprocess
import sys
import threading

for name in list(os.environ):
    if name.startswith(("OPENAI_", "OLLAMA_", "FARLLAMA_")) or name.lower().endswith("_proxy"):
        del os.environ[name]

import ollama
import openai
from pydantic import BaseModel

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def start(args):
    """Starts a server on a port of its own choice; gives the process and the URL that it tells."""
    process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    told = []
    for line in process.stdout:
        told.append(line)
        url = re.search(r"http://127\.0\.0\.1:\d+", line)
        if url:
            # What it tells later must be read, or it would wait for a reader.
            threading.Thread(target=lambda: told.extend(process.stdout), daemon=True).start()
            return process, url.group(), told
    raise SystemExit(f"{args[0]} ended with {process.wait()}:\n{''.join(told)}")


def end(process):
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()


def lenient(o):
    return openai.OpenAI(base_url=o.base_url, api_key="unused", max_retries=0, timeout=30)


CHECKS = []


def check(sentence):
    def register(function):
        CHECKS.append((sentence, function))
        return function

    return register


@check("openai: models are listed and retrieved")
def _(o, n):
    names = [model.id for model in o.models.list()]
    assert "gpt-oss:20b" in names, names
    model = o.models.retrieve("gpt-oss:20b")
    assert (model.id, model.object, model.owned_by) == ("gpt-oss:20b", "model", "library") and model.created > 0, model


@check("openai: a model that does not exist is a NotFoundError that names the nearest")
def _(o, n):
    try:
        o.chat.completions.create(model="gpt-os", messages=[{"role": "user", "content": "hi"}])
    except openai.NotFoundError as error:
        assert error.code == "model_not_found" and error.param == "model" and error.type == "invalid_request_error"
        assert "gpt-oss:20b" in error.message and error.request_id.startswith("req_"), error
    else:
        raise AssertionError("no error")


@check("openai: a chat answers, with usage and thinking")
def _(o, n):
    answer = o.chat.completions.create(model="gpt-oss:20b", messages=[{"role": "user", "content": "Say lantern."}], seed=7)
    choice = answer.choices[0]
    assert "lantern" in choice.message.content and choice.finish_reason == "stop", answer
    assert choice.message.reasoning_content and answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@check("openai: max_completion_tokens ends an answer with length")
def _(o, n):
    answer = o.chat.completions.create(
        model="smollm2:135m", messages=[{"role": "user", "content": "Tell a story."}], max_completion_tokens=3
    )
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 3, answer


@check("openai: a stream joins to an answer, with usage last")
def _(o, n):
    chunks = list(
        o.chat.completions.create(
            model="smollm2:135m",
            messages=[{"role": "user", "content": "Say harbour."}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "harbour" in text and len(chunks) > 5, text
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert len({chunk.id for chunk in chunks}) == 1


@check("openai: the streaming helper understands tool calls")
def _(o, n):
    with o.chat.completions.stream(
        model="agent", messages=[{"role": "user", "content": "What is the weather in Paris?"}], tools=[WEATHER]
    ) as stream:
        final = stream.get_final_completion()
    call = final.choices[0].message.tool_calls[0]
    assert final.choices[0].finish_reason == "tool_calls" and call.function.name == "get_weather" and call.id
    assert isinstance(json.loads(call.function.arguments)["city"], str)


@check("openai: a tool's result leads to an answer")
def _(o, n):
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    first = o.chat.completions.create(model="agent", messages=messages, tools=[WEATHER])
    message = first.choices[0].message
    assert message.content is None and len(message.tool_calls) == 1, message
    messages += [message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "20 C"}]
    second = o.chat.completions.create(model="agent", messages=messages, tools=[WEATHER])
    assert second.choices[0].finish_reason == "stop" and second.choices[0].message.content


@check("openai: parse gives an object that satisfies its schema")
def _(o, n):
    class City(BaseModel):
        name: str
        inhabitants: int
        tags: list[str]

    answer = o.chat.completions.parse(
        model="smollm2:135m", messages=[{"role": "user", "content": "Describe Oslo."}], response_format=City
    )
    assert isinstance(answer.choices[0].message.parsed, City)


@check("openai: bad input is a BadRequestError with its param")
def _(o, n):
    try:
        o.chat.completions.create(model="smollm2:135m", messages=[{"role": "user", "content": "hi"}], temperature=9)
    except openai.BadRequestError as error:
        assert error.param == "temperature" and "<= 2" in error.message, error
    else:
        raise AssertionError("no error")


@check("openai: num_ctx and keep_alive in the extra body reach Ollama")
def _(o, n):
    o.chat.completions.create(
        model="smollm2:135m",
        messages=[{"role": "user", "content": "hi"}],
        extra_body={"num_ctx": 2048, "keep_alive": "7m"},
    )
    loaded = {model.model: model.context_length for model in n.ps().models}
    assert loaded["smollm2:135m"] == 2048, loaded


@check("openai: embeddings come in the SDK's own base64 and as floats, alike")
def _(o, n):
    # What the SDK asks for by itself, base64, its own strict types do not foresee.
    based = lenient(o).embeddings.create(model="all-minilm", input=["one", "two"])
    floats = o.embeddings.create(model="all-minilm", input=["one", "two"], encoding_format="float")
    native = n.embed("all-minilm", ["one", "two"]).embeddings
    for nth in (0, 1):
        assert based.data[nth].index == nth and len(based.data[nth].embedding) == 384
        assert floats.data[nth].embedding == list(native[nth])
        assert all(abs(a - b) < 1e-7 for a, b in zip(based.data[nth].embedding, native[nth]))
    assert based.usage.prompt_tokens > 0


@check("openai: completions answer several prompts, whole and streamed")
def _(o, n):
    answer = o.completions.create(model="smollm2:135m", prompt=["Say one.", "Say two."], n=2, echo=True, max_tokens=8)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.choices[0].text.startswith("Say one.") and answer.choices[3].text.startswith("Say two.")
    # Its strict types do not foresee the null finish_reason of a chunk either, which OpenAI sends.
    chunks = list(
        lenient(o).completions.create(
            model="smollm2:135m",
            prompt=["Say one.", "Say two."],
            max_tokens=8,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert {chunk.choices[0].index for chunk in chunks if chunk.choices} == {0, 1}
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0


@check("openai: completions tell probabilities in their legacy shape")
def _(o, n):
    probabilities = o.completions.create(model="smollm2:135m", prompt="Say one.", max_tokens=3, logprobs=2).choices[0].logprobs
    assert len(probabilities.tokens) == 3 == len(probabilities.text_offset) and probabilities.text_offset[0] == 0
    assert all(token in top for token, top in zip(probabilities.tokens, probabilities.top_logprobs))


@check("openai: a moderation has all thirteen categories")
def _(o, n):
    result = o.moderations.create(model="smollm2:135m", input="Is this fine?").results[0]
    assert len(result.categories.to_dict()) == 13 == len(result.category_scores.to_dict()), result
    assert result.flagged == any(result.categories.to_dict().values())


@check("openai: a recording that no model here can hear is a BadRequestError, and a given transcript is passed on")
def _(o, n):
    recording = ("speech.wav", b"RIFF0000WAVE")
    try:
        o.audio.transcriptions.create(model="smollm2:135m", file=recording)
    except openai.BadRequestError as error:
        assert error.param == "model" and "cannot hear" in error.message, error
    else:
        raise AssertionError("no error")
    given = o.audio.transcriptions.create(model="smollm2:135m", file=recording, extra_body={"text": "Good morning."})
    assert given.text == "Good morning.", given


@check("openai: speech and pictures that nobody makes here are BadRequestErrors")
def _(o, n):
    for ask in (
        lambda: o.audio.speech.create(model="tts-1", input="hi", voice="alloy"),
        lambda: o.images.generate(model="smollm2:135m", prompt="a cat"),
    ):
        try:
            ask()
        except openai.BadRequestError as error:
            assert error.param == "model", error
        else:
            raise AssertionError("no error")


@check("ollama: models are listed and shown")
def _(o, n):
    assert "gpt-oss:20b" in [model.model for model in n.list().models]
    shown = n.show("gpt-oss:20b")
    assert "tools" in shown.capabilities and shown.modelinfo["general.architecture"]


@check("ollama: a chat streams natively")
def _(o, n):
    parts = list(n.chat("smollm2:135m", [{"role": "user", "content": "Say meadow."}], stream=True))
    assert "meadow" in "".join(part.message.content for part in parts) and parts[-1].done and parts[-1].eval_count > 0


@check("ollama: generate answers")
def _(o, n):
    assert "window" in n.generate("smollm2:135m", "Say window.").response


@check("ollama: tools are called")
def _(o, n):
    answer = n.chat("agent", [{"role": "user", "content": "What is the weather in Rome?"}], tools=[WEATHER])
    assert answer.message.tool_calls[0].function.name == "get_weather"


@check("ollama: embeddings have unit length and the asked dimensions")
def _(o, n):
    vectors = n.embed("all-minilm", ["one", "two"], dimensions=64).embeddings
    assert [len(vector) for vector in vectors] == [64, 64] and vectors[0] != vectors[1]
    assert abs(sum(number * number for number in vectors[0]) - 1) < 1e-3


@check("ollama: a pull shows its progress, and the model is there")
def _(o, n):
    lines = list(n.pull("llama3.2", stream=True))
    assert lines[0].status == "pulling manifest" and lines[-1].status == "success"
    assert any(line.total and line.completed for line in lines)
    assert "llama3.2:latest" in [model.model for model in n.list().models]


@check("ollama: a model is copied and deleted")
def _(o, n):
    n.copy("llama3.2", "mine")
    n.delete("mine")
    n.delete("llama3.2")
    try:
        n.show("mine")
    except ollama.ResponseError as error:
        assert error.status_code == 404 and "not found" in error.error, error
    else:
        raise AssertionError("no error")


def main():
    farllama, mock_ollama = sys.argv[1:3]
    failed = 0
    mock, upstream, _ = start([mock_ollama, "--port", "0"])
    try:
        proxy, base, log = start([farllama, "serve", "--local-port", "0", "--remote-host", upstream])
        try:
            o = openai.OpenAI(base_url=f"{base}/v1", api_key="unused", max_retries=0, timeout=30, _strict_response_validation=True)
            n = ollama.Client(host=base)
            for sentence, function in CHECKS:
                try:
                    function(o, n)
                    print(f"ok      {sentence}")
                except Exception as error:
                    failed += 1
                    print(f"FAILED  {sentence}: {type(error).__name__}: {error}")
        finally:
            end(proxy)
        if failed:
            print("The proxy's log:\n" + "".join(log))
    finally:
        end(mock)
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
