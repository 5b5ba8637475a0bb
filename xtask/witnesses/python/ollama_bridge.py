"""The official ollama package: farllama as an Ollama in front of an OpenAI server."""

import json

import ollama

from report import BRIDGED, REAL, WEATHER, check, raises, run

n = ollama.Client(host=BRIDGED)


def user(content):
    return [{"role": "user", "content": content}]


if REAL:
    (model,) = (model.model for model in n.list().models)
    short = {"num_predict": 8, "temperature": 0}

    @check("llama.cpp: its model is listed with its size and shown with its context")
    def _():
        listed = n.list().models[0]
        assert listed.size > 1_000_000 and listed.details.format == "gguf", listed
        info = n.show(model).modelinfo
        assert any(name.endswith(".context_length") and value > 0 for name, value in info.items()), info

    @check("llama.cpp: a chat answers, whole and streamed, within the length that was asked for")
    def _():
        whole = n.chat(model, user("Say hello."), options=short)
        assert whole.message.content and whole.done_reason == "length" and whole.eval_count == 8, whole
        assert whole.prompt_eval_count > 0 and whole.eval_duration > 0, whole
        parts = list(n.chat(model, user("Say hello."), options=short, stream=True))
        assert "".join(part.message.content for part in parts) == whole.message.content and parts[-1].done, parts

    @check("llama.cpp: generate goes on with a raw prompt, and stops at a stop sequence")
    def _():
        raw = n.generate(model, "Once upon a time", raw=True, options=short)
        assert raw.response and raw.done, raw
        stopped = n.generate(model, "Count: 1, 2, 3, 4,", raw=True, options={**short, "stop": [","]})
        assert "," not in stopped.response and stopped.done_reason == "stop", stopped

    @check("llama.cpp: a schema is kept")
    def _():
        schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
        answer = n.chat(model, user("Is it fine?"), format=schema, options={"num_predict": 32, "temperature": 0})
        assert isinstance(json.loads(answer.message.content)["ok"], bool), answer

    run()


@check("models are listed and shown")
def _():
    assert "gpt-oss:20b" in [model.model for model in n.list().models]
    shown = n.show("gpt-oss:20b")
    assert "tools" in shown.capabilities and shown.modelinfo["general.architecture"]


@check("a chat answers, whole and streamed")
def _():
    whole = n.chat("smollm2:135m", user("Say meadow."))
    assert "meadow" in whole.message.content and whole.done and whole.eval_count > 0
    parts = list(n.chat("smollm2:135m", user("Say meadow."), stream=True))
    assert "meadow" in "".join(part.message.content for part in parts) and parts[-1].done and parts[-1].eval_count > 0


@check("generate answers, and thinks apart")
def _():
    assert "window" in n.generate("smollm2:135m", "Say window.").response
    thought = n.generate("gpt-oss:20b", "Say window.", think="low")
    assert thought.thinking and "window" in thought.response


@check("tools are called, and their results are understood")
def _():
    asked = user("What is the weather in Rome?")
    answer = n.chat("agent", asked, tools=[WEATHER])
    call = answer.message.tool_calls[0].function
    assert call.name == "get_weather" and isinstance(call.arguments, dict)
    result = {"role": "tool", "tool_name": "get_weather", "content": "sunny, 21 C"}
    assert n.chat("agent", [*asked, answer.message, result], tools=[WEATHER]).message.content


@check("a schema is kept")
def _():
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    answer = n.chat("smollm2:135m", user("How old?"), format=schema).message.content
    assert '"age"' in answer, answer


@check("embeddings have unit length and the asked dimensions")
def _():
    vectors = n.embed("all-minilm", ["one", "two"], dimensions=64).embeddings
    assert [len(vector) for vector in vectors] == [64, 64] and vectors[0] != vectors[1]
    assert abs(sum(number * number for number in vectors[0]) - 1) < 1e-3


@check("a stream that breaks off is an error")
def _():
    with raises(ollama.ResponseError):
        list(n.chat("breaks", user("Tell a story."), stream=True))


@check("a model that is not there has Ollama's text")
def _():
    with raises(ollama.ResponseError) as caught:
        n.chat("nope", user("hi"))
    assert caught.error.status_code == 404 and "not found" in caught.error.error, caught.error


@check("a model that is there is pulled at once, and models cannot be changed")
def _():
    assert n.pull("smollm2:135m").status == "success"
    with raises(ollama.ResponseError) as caught:
        n.copy("smollm2:135m", "mine")
    assert caught.error.status_code == 501, caught.error


run()
