"""The official anthropic package, each reply validated strictly, and langchain-anthropic on top of it."""

import asyncio
import json
from typing import Literal

import anthropic
from anthropic import beta_tool
from langchain_anthropic import ChatAnthropic
from langchain_core.tools import tool
from pydantic import BaseModel

from report import KEYED, OLDER, URL, check, raises, run


def client(url=URL, key="any", **more):
    return anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, _strict_response_validation=True, **more)


a = client()
WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def user(text):
    return [{"role": "user", "content": text}]


def text_of(message):
    return "".join(block.text for block in message.content if block.type == "text")


class City(BaseModel):
    name: str
    size: Literal["small", "large"]


@check("a message answers, with its usage and the id of its request")
def _():
    message = a.messages.create(model="agent", max_tokens=64, system="Be brief.", messages=user("Say lantern."))
    assert (message.type, message.role, message.model) == ("message", "assistant", "agent"), message
    assert "lantern" in text_of(message) and message.stop_reason == "end_turn", message
    assert message.usage.input_tokens > 0 and message.usage.output_tokens > 0, message.usage
    assert message._request_id.startswith("req_"), message._request_id


@check("a stream folds to the same text, with all events, however long the model loads")
def _():
    whole = a.messages.create(model="agent", max_tokens=64, messages=user("Say lantern."))
    with a.messages.stream(model="agent", max_tokens=64, messages=user("Say lantern.")) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop" and "text" in kinds, kinds
    assert (text_of(final), final.stop_reason) == (text_of(whole), whole.stop_reason), (final, whole)
    assert final.usage.input_tokens == whole.usage.input_tokens, (final.usage, whole.usage)


@check("thoughts come with a signature, and come back in the next turn")
def _():
    thinking = {"type": "enabled", "budget_tokens": 1024}
    with a.messages.stream(model="gpt-oss:20b", max_tokens=2048, thinking=thinking, messages=user("2+2?")) as stream:
        first = stream.get_final_message()
    thought = first.content[0]
    assert thought.type == "thinking" and thought.thinking and thought.signature, first
    turns = user("2+2?") + [{"role": "assistant", "content": first.content}] + user("3+3?")
    raw = a.messages.with_raw_response.create(model="gpt-oss:20b", max_tokens=2048, thinking=thinking, messages=turns)
    assert "signature" not in raw.headers.get("x-farllama-receipt", ""), raw.headers
    quiet = a.messages.create(model="gpt-oss:20b", max_tokens=64, messages=user("2+2?"))
    assert [block.type for block in quiet.content] == ["text"], quiet


@check("a call is streamed as JSON, and its result is read")
def _():
    with a.messages.stream(model="agent", max_tokens=256, tools=[WEATHER], messages=user("Weather in Paris?")) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        message = stream.get_final_message()
    call = message.content[-1]
    assert (message.stop_reason, call.type, call.name) == ("tool_use", "tool_use", "get_weather"), message
    assert json.loads("".join(pieces)) == call.input, (pieces, call)
    result = [{"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "hail"}]}]
    turns = user("Weather in Paris?") + [{"role": "assistant", "content": message.content}]
    answer = a.messages.create(model="agent", max_tokens=256, tools=[WEATHER], messages=turns + user(result))
    assert "hail" in text_of(answer) and answer.stop_reason == "end_turn", answer


@check("tool_choice is enforced")
def _():
    ask = {"model": "agent", "max_tokens": 256, "tools": [WEATHER], "messages": user("Hello.")}
    forced = a.messages.create(**ask, tool_choice={"type": "tool", "name": "get_weather"})
    assert [block.type for block in forced.content] == ["tool_use"] and forced.stop_reason == "tool_use", forced
    never = a.messages.create(**ask, tool_choice={"type": "none"})
    assert all(block.type == "text" for block in never.content), never


@check("the tool runner calls functions until the model is done")
def _():
    called = []

    @beta_tool
    def get_weather(city: str) -> str:
        """The weather of a city.

        Args:
            city: The city.
        """
        called.append(city)
        return "hail of " + city

    runner = a.beta.messages.tool_runner(
        model="agent", max_tokens=256, tools=[get_weather], messages=user("Weather in Paris?")
    )
    last = runner.until_done()
    assert called and "hail of" in text_of(last), (called, last)


@check("a structured output is parsed")
def _():
    message = a.messages.parse(model="agent", max_tokens=256, messages=user("A city."), output_format=City)
    assert isinstance(message.parsed_output, City), message


@check("a stop sequence is named")
def _():
    message = a.messages.create(model="agent", max_tokens=64, stop_sequences=["antern"], messages=user("Say lantern."))
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "antern"), message
    assert "antern" not in text_of(message), message


@check("an image is seen")
def _():
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": pixel}}
    asked = [image, {"type": "text", "text": "What is this?"}]
    message = a.messages.create(model="qwen3-vl:8b", max_tokens=64, messages=user(asked))
    assert "with one attachment" in text_of(message), message


@check("tokens are counted")
def _():
    count = a.messages.count_tokens(model="agent", messages=user("One two three four."), tools=[WEATHER])
    assert count.input_tokens > 10, count


@check("models are listed page by page, and retrieved")
def _():
    names = [model.id for model in a.models.list(limit=3)]
    assert len(names) > 3 and "gpt-oss:20b" in names, names
    model = a.models.retrieve("gpt-oss:20b")
    assert (model.id, model.type) == ("gpt-oss:20b", "model") and model.created_at.year > 1999, model


@check("Claude's names stand for the model in the settings")
def _():
    message = a.messages.create(model="claude-of-some-day", max_tokens=16, messages=user("hi"))
    assert message.model == "claude-of-some-day" and text_of(message), message


@check("errors have the classes of the official API")
def _():
    ask = {"max_tokens": 16, "messages": user("hi")}
    with raises(anthropic.NotFoundError) as caught:
        a.messages.create(model="gpt-os", **ask)
    body = caught.error.body
    assert body["type"] == "error" and body["error"]["type"] == "not_found_error" and "gpt-oss:20b" in str(caught.error), body
    assert caught.error.request_id == body["request_id"], body
    with raises(anthropic.BadRequestError):
        a.messages.create(model="agent", tools=[WEATHER], tool_choice={"type": "tool", "name": "nope"}, **ask)
    with raises(anthropic.AuthenticationError):
        client(KEYED, "wrong").messages.create(model="agent", **ask)
    with raises(anthropic.InternalServerError):
        a.messages.create(model="fails", **ask)


@check("a limit is a RateLimitError that says when to come again, and a client that waits gets its answer")
def _():
    ask = {"model": "agent", "max_tokens": 16, "messages": user("hi")}
    client(KEYED, "once-key").messages.create(**ask)
    with raises(anthropic.RateLimitError) as caught:
        client(KEYED, "once-key").messages.create(**ask)
    headers = caught.error.response.headers
    assert headers["anthropic-ratelimit-requests-limit"] == "1" and int(headers["retry-after"]) > 0, headers
    patient = client(KEYED, "once-key").with_options(max_retries=3)
    assert text_of(patient.messages.create(**ask))


@check("a stream that breaks raises, and is no answer")
def _():
    for model in ("breaks", "slow-breaks"):
        with raises(anthropic.APIStatusError) as caught:
            with a.messages.stream(model=model, max_tokens=64, messages=user("Tell a long story.")) as stream:
                stream.get_final_message()
        assert "api_error" in str(caught.error.body), caught.error.body


@check("a client that leaves in the middle of a stream does no harm")
def _():
    with a.messages.stream(model="stalls", max_tokens=64, messages=user("Tell a long story.")) as stream:
        next(iter(stream.text_stream))


@check("an older Ollama, which has no such API itself, answers too")
def _():
    message = client(OLDER).messages.create(model="agent", max_tokens=64, messages=user("Say lantern."))
    assert "lantern" in text_of(message), message


@check("asynchronous requests run side by side")
def _():
    async def ask():
        async with anthropic.AsyncAnthropic(base_url=URL, api_key="any") as one:
            asks = [one.messages.create(model="agent", max_tokens=64, messages=user(f"Say lantern {n}.")) for n in range(8)]
            return await asyncio.gather(*asks)

    answers = asyncio.run(ask())
    assert [f"lantern {n}" in text_of(answer) for n, answer in enumerate(answers)] == [True] * 8, answers


@check("langchain-anthropic answers, streams, calls a tool and has structured output")
def _():
    model = ChatAnthropic(model="agent", base_url=URL, api_key="any", max_tokens=256, max_retries=0)
    answer = model.invoke("Say lantern.")
    assert "lantern" in answer.text and answer.usage_metadata["output_tokens"] > 0, answer
    assert "lantern" in "".join(piece.text for piece in model.stream("Say lantern."))

    @tool
    def get_weather(city: str) -> str:
        """The weather of a city."""
        return "hail"

    called = model.bind_tools([get_weather]).invoke("Weather in Paris?")
    assert called.tool_calls and called.tool_calls[0]["name"] == "get_weather", called
    assert isinstance(model.with_structured_output(City).invoke("A city."), City)


run()
