"""LangChain's ChatOllama and OllamaEmbeddings: farllama as an Ollama in front of an OpenAI server."""

import ollama
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaEmbeddings

from report import BRIDGED, REAL, check, raises, run


def chat(model, **more):
    return ChatOllama(model=model, base_url=BRIDGED, **more)


if REAL:

    @check("llama.cpp: a chat answers, whole and streamed, within the length that was asked for")
    def _():
        model = chat(ollama.Client(host=BRIDGED).list().models[0].model, num_predict=8, temperature=0)
        whole = model.invoke("Say hello.")
        assert whole.content and whole.usage_metadata["output_tokens"] <= 8, whole
        parts = list(model.stream("Say hello."))
        assert "".join(part.content for part in parts) == whole.content, parts

    run()


@tool
def get_weather(city: str) -> str:
    """Weather of a city"""
    return f"sunny in {city}"


@check("a chat answers, whole and streamed, with its usage")
def _():
    model = chat("smollm2:135m")
    whole = model.invoke("Say meadow.")
    assert "meadow" in whole.content and whole.usage_metadata["output_tokens"] > 0, whole
    parts = list(model.stream("Say meadow."))
    assert "meadow" in "".join(part.content for part in parts), parts
    assert any(part.response_metadata.get("done_reason") == "stop" for part in parts), parts


@check("a tool is called, and its result is understood")
def _():
    model = chat("agent").bind_tools([get_weather])
    asked = [("human", "What is the weather in Rome?")]
    answer = model.invoke(asked)
    assert [call["name"] for call in answer.tool_calls] == ["get_weather"] and answer.tool_calls[0]["id"], answer
    result = get_weather.invoke(answer.tool_calls[0])
    assert model.invoke([*asked, answer, result]).content


@check("thinking comes apart")
def _():
    answer = chat("gpt-oss:20b", reasoning=True).invoke("Say window.")
    assert answer.additional_kwargs["reasoning_content"] and "window" in answer.content, answer


@check("a schema is kept")
def _():
    schema = {"title": "Person", "type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    answer = chat("smollm2:135m").with_structured_output(schema, method="json_schema").invoke("How old?")
    assert isinstance(answer["age"], int), answer


@check("embeddings come in order")
def _():
    vectors = OllamaEmbeddings(model="all-minilm", base_url=BRIDGED).embed_documents(["one", "two"])
    assert len(vectors) == 2 and len(vectors[0]) == len(vectors[1]) > 0 and vectors[0] != vectors[1]


@check("a stream that breaks off is an error")
def _():
    with raises(ollama.ResponseError):
        list(chat("breaks").stream("Tell a story."))


@check("a model that is not there has Ollama's text")
def _():
    with raises(ollama.ResponseError) as caught:
        chat("nope").invoke("hi")
    assert "model 'nope' not found" in caught.error.error, caught.error


run()
