"""The official ollama package: farllama as a local Ollama."""

import ollama

from report import URL, WEATHER, check, raises, run

n = ollama.Client(host=URL)


@check("models are listed and shown")
def _():
    assert "gpt-oss:20b" in [model.model for model in n.list().models]
    shown = n.show("gpt-oss:20b")
    assert "tools" in shown.capabilities and shown.modelinfo["general.architecture"]


@check("a chat streams natively")
def _():
    parts = list(n.chat("smollm2:135m", [{"role": "user", "content": "Say meadow."}], stream=True))
    assert "meadow" in "".join(part.message.content for part in parts) and parts[-1].done and parts[-1].eval_count > 0


@check("generate answers")
def _():
    assert "window" in n.generate("smollm2:135m", "Say window.").response


@check("tools are called")
def _():
    answer = n.chat("agent", [{"role": "user", "content": "What is the weather in Rome?"}], tools=[WEATHER])
    assert answer.message.tool_calls[0].function.name == "get_weather"


@check("embeddings have unit length and the asked dimensions")
def _():
    vectors = n.embed("all-minilm", ["one", "two"], dimensions=64).embeddings
    assert [len(vector) for vector in vectors] == [64, 64] and vectors[0] != vectors[1]
    assert abs(sum(number * number for number in vectors[0]) - 1) < 1e-3


@check("a pull shows its progress, and the model is there")
def _():
    lines = list(n.pull("llama3.2", stream=True))
    assert lines[0].status == "pulling manifest" and lines[-1].status == "success"
    assert any(line.total and line.completed for line in lines)
    assert "llama3.2:latest" in [model.model for model in n.list().models]


@check("a model is copied and deleted")
def _():
    n.copy("llama3.2", "mine")
    n.delete("mine")
    n.delete("llama3.2")
    try:
        n.show("mine")
    except ollama.ResponseError as error:
        assert error.status_code == 404 and "not found" in error.error, error
    else:
        raise AssertionError("no error")


run()
