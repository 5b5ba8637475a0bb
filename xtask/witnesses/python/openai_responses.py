"""The official openai package's responses: objects, typed events, tools, reasoning and state, each validated strictly."""

import json
import time

import openai
from openai.types.conversations import Conversation, ConversationDeletedResource, ConversationItem, ConversationItemList
from openai.types.responses import CompactedResponse
from openai.types.responses.responses_server_event import ResponsesServerEvent
from pydantic import TypeAdapter

from openai_client import City, client
from report import KEYED, check, raises, run

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Weather of a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
TIME = {
    "type": "function",
    "name": "get_time",
    "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]},
    "strict": False,
}

o = client()


@check("a response answers, with usage and what was asked")
def _():
    answer = o.responses.create(model="smollm2:135m", input="Say lantern.", temperature=0.5, metadata={"a": "b"})
    assert answer.status == "completed" and "lantern" in answer.output_text, answer
    assert [item.type for item in answer.output] == ["message"] and answer.output[0].content[0].annotations == [], answer
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens > 0, answer.usage
    assert (answer.temperature, answer.metadata, answer.tools, answer.error) == (0.5, {"a": "b"}, [], None), answer


@check("instructions and a history of every role are understood")
def _():
    answer = o.responses.create(
        model="smollm2:135m",
        instructions="Be short.",
        input=[
            {"role": "developer", "content": "Speak plainly."},
            {"role": "user", "content": [{"type": "input_text", "text": "Hello."}]},
            {"role": "assistant", "content": "Hello you."},
            {"type": "message", "role": "user", "content": "Say quarry."},
        ],
    )
    assert "quarry" in answer.output_text, answer


@check("the events of a stream are in order, dense, and fold to the response that ends it")
def _():
    events = list(o.responses.create(model="smollm2:135m", input="Say harbor.", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events))), events
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ], kinds
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ], kinds
    final = events[-1].response
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert "harbor" in deltas and deltas == final.output_text and final.id == events[0].response.id, (deltas, final)
    assert kinds.count("response.output_text.delta") > 3, kinds


@check("the streaming helper emits text as it grows, and joins it")
def _():
    with o.responses.stream(model="smollm2:135m", input="Say harbor.") as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                assert event.snapshot.endswith(event.delta), event
        final = stream.get_final_response()
    assert "harbor" in final.output_text and final.usage.output_tokens > 0, final


@check("the streaming helper understands function calls")
def _():
    with o.responses.stream(model="agent", input="What is the weather in Paris?", tools=[WEATHER]) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert "response.function_call_arguments.delta" in kinds and "response.function_call_arguments.done" in kinds, kinds
    call = final.output[-1]
    assert (call.type, call.name, call.status) == ("function_call", "get_weather", "completed") and call.call_id, call
    assert isinstance(json.loads(call.arguments)["city"], str), call


@check("a function's result leads to an answer, as text and as parts")
def _():
    question = {"role": "user", "content": "What is the weather in Paris?"}
    first = o.responses.create(model="agent", input=[question], tools=[WEATHER])
    call = first.output[-1]
    for output in ("20 degrees", [{"type": "input_text", "text": "20 degrees"}]):
        result = {"type": "function_call_output", "call_id": call.call_id, "output": output}
        history = [question, *[item.to_dict() for item in first.output], result]
        second = o.responses.create(model="agent", input=history, tools=[WEATHER])
        assert "20 degrees" in second.output_text, second


@check("tool_choice required, named and none hold")
def _():
    def calls(choice, model="caller:135m"):
        answer = o.responses.create(model=model, input="Say hello.", tools=[WEATHER, TIME], tool_choice=choice)
        return [item.name for item in answer.output if item.type == "function_call"]

    assert len(calls("required", "qwen3-vl:8b")) >= 1
    assert calls({"type": "function", "name": "get_time"}) == ["get_time"]
    assert calls("none", "agent") == []


@check("parse gives an object that satisfies its schema, whole and streamed")
def _():
    whole = o.responses.parse(model="smollm2:135m", input="Describe Oslo.", text_format=City)
    assert isinstance(whole.output_parsed, City), whole
    with o.responses.stream(model="smollm2:135m", input="Describe Oslo.", text_format=City) as stream:
        assert isinstance(stream.get_final_response().output_parsed, City)


@check("thinking is an item with a summary, and goes on sealed where nothing is stored")
def _():
    first = o.responses.create(
        model="gpt-oss:20b",
        input="Say lantern.",
        reasoning={"effort": "low", "summary": "auto"},
        include=["reasoning.encrypted_content"],
        store=False,
    )
    assert [item.type for item in first.output] == ["reasoning", "message"], first
    assert first.output[0].summary[0].text and first.output[0].encrypted_content, first.output[0]
    history = [{"role": "user", "content": "Say lantern."}, *[item.to_dict() for item in first.output]]
    second = o.responses.create(
        model="gpt-oss:20b", input=[*history, {"role": "user", "content": "Say candle."}], store=False
    )
    assert "candle" in second.output_text, second


@check("thinking streams as a summary before the text")
def _():
    with o.responses.stream(model="gpt-oss:20b", input="Say lantern.", reasoning={"summary": "auto"}) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds.index("response.reasoning_summary_text.delta") < kinds.index("response.output_text.delta"), kinds
    assert final.output[0].type == "reasoning" and "lantern" in final.output_text, final


@check("too few tokens make it incomplete, and it says why")
def _():
    answer = o.responses.create(model="smollm2:135m", input="Tell a story.", max_output_tokens=16)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens"), answer
    assert answer.usage.output_tokens == 16, answer.usage


@check("a conversation goes on from a stored response, which can be read, listed and deleted")
def _():
    first = o.responses.create(model="smollm2:135m", input="Say lantern.")
    second = o.responses.create(model="smollm2:135m", input="Say candle.", previous_response_id=first.id)
    assert second.previous_response_id == first.id and second.usage.input_tokens > first.usage.input_tokens, second
    assert o.responses.retrieve(first.id).output_text == first.output_text
    items = [item.to_dict() for item in o.responses.input_items.list(second.id)]
    assert any("candle" in json.dumps(item) for item in items), items
    o.responses.delete(first.id)
    with raises(openai.NotFoundError):
        o.responses.retrieve(first.id)


@check("a response that is not there cannot be continued, and one that was not stored cannot be read")
def _():
    with raises(openai.BadRequestError) as caught:
        o.responses.create(model="smollm2:135m", input="hi", previous_response_id="resp_none")
    assert caught.error.code == "previous_response_not_found", caught.error
    answer = o.responses.create(model="smollm2:135m", input="hi", store=False)
    with raises(openai.NotFoundError):
        o.responses.retrieve(answer.id)


@check("a response belongs to the key that made it")
def _():
    own, other = client(url=KEYED, key="plain-key"), client(url=KEYED, key="other-key")
    answer = own.responses.create(model="smollm2:135m", input="Say lantern.")
    assert own.responses.retrieve(answer.id).id == answer.id
    with raises(openai.NotFoundError):
        other.responses.retrieve(answer.id)
    with raises(openai.NotFoundError):
        other.responses.delete(answer.id)
    with raises(openai.BadRequestError):
        other.responses.create(model="smollm2:135m", input="hi", previous_response_id=answer.id)


def turn(connection):
    """The events of one turn, each validated strictly."""
    events = []
    while not events or events[-1].type not in ("response.completed", "response.incomplete", "response.failed", "error"):
        events.append(TypeAdapter(ResponsesServerEvent).validate_python(json.loads(connection.recv_bytes())))
    return events


def strict(kind, given):
    """Validates an object strictly, as the SDK itself does not."""
    return TypeAdapter(kind).validate_python(given.to_dict(), strict=True)


@check("a conversation has items that responses go on from and add to")
def _():
    made = o.conversations.create(metadata={"topic": "demo"}, items=[{"role": "user", "content": "My name is Ann."}])
    strict(Conversation, made)
    first = o.responses.create(model="smollm2:135m", conversation=made.id, input="Say lantern.")
    assert first.conversation.id == made.id, first
    with o.responses.connect() as connection:
        connection.response.create(model="smollm2:135m", conversation=made.id, input="Say quarry.", store=False)
        assert turn(connection)[-1].response.conversation.id == made.id
    page = o.conversations.items.list(made.id, order="asc", limit=3, include=["message.input_image.image_url"])
    items = [strict(ConversationItem, item) for item in page]
    assert [item.role for item in items] == ["user", "user", "assistant", "user", "assistant"], items
    assert "lantern" in items[2].content[0].text and items[3].content[0].text == "Say quarry.", items
    call = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "call_1", "output": "done"}
    added = strict(ConversationItemList, o.conversations.items.create(made.id, items=[call, output]))
    assert [item.type for item in added.data] == ["function_call", "function_call_output"], added
    one = o.conversations.items.retrieve(added.data[0].id, conversation_id=made.id)
    assert strict(ConversationItem, one).call_id == "call_1", one
    assert strict(Conversation, o.conversations.items.delete(added.data[0].id, conversation_id=made.id)).id == made.id
    assert strict(Conversation, o.conversations.update(made.id, metadata={"a": "b"})).metadata == {"a": "b"}
    assert strict(ConversationDeletedResource, o.conversations.delete(made.id)).deleted
    with raises(openai.NotFoundError):
        o.conversations.retrieve(made.id)


@check("a conversation belongs to the key that made it")
def _():
    own, other = client(url=KEYED, key="plain-key"), client(url=KEYED, key="other-key")
    made = own.conversations.create()
    assert own.conversations.retrieve(made.id).id == made.id
    with raises(openai.NotFoundError):
        other.conversations.retrieve(made.id)
    with raises(openai.NotFoundError):
        other.responses.create(model="smollm2:135m", input="hi", conversation=made.id)


@check("a stored response is streamed again")
def _():
    answer = o.responses.create(model="smollm2:135m", input="Say lantern.")
    events = list(o.responses.retrieve(answer.id, stream=True))
    assert events[-1].type == "response.completed" and events[-1].response.output_text == answer.output_text, events


@check("a response in the background is queued, polled, streamed from an event on, and canceled in vain once it has ended")
def _():
    answer = o.responses.create(model="smollm2:135m", input="Say lantern.", background=True)
    assert answer.background and answer.status in ("queued", "in_progress"), answer
    events = list(o.responses.retrieve(answer.id, stream=True, starting_after=0))
    assert [event.sequence_number for event in events] == list(range(1, len(events) + 1)), events
    assert events[0].type == "response.queued" and events[-1].type == "response.completed", events
    while answer.status in ("queued", "in_progress"):
        time.sleep(0.05)
        answer = o.responses.retrieve(answer.id)
    assert answer == events[-1].response and "lantern" in answer.output_text, answer
    assert o.responses.cancel(answer.id).status == "completed"


@check("a WebSocket has several turns, remembers what is not stored, and reports errors")
def _():
    with o.responses.connect() as connection:
        connection.response.create(model="smollm2:135m", input="Say lantern.", store=False)
        first = turn(connection)
        assert [event.sequence_number for event in first] == list(range(len(first))), first
        assert first[-1].type == "response.completed" and "lantern" in first[-1].response.output_text, first[-1]
        connection.response.create(
            model="smollm2:135m", input="Say quarry.", store=False, previous_response_id=first[-1].response.id
        )
        second = turn(connection)[-1]
        assert "quarry" in second.response.output_text, second
        assert second.response.previous_response_id == first[-1].response.id, second
        connection.response.create(model="smollm2:135m", generate=False, input="Be brief.", store=False)
        assert turn(connection)[-1].response.output == []
        connection.response.create(model="smollm2:135m", input="hi", previous_response_id="resp_unknown")
        error = turn(connection)[-1]
        assert (error.type, error.error.code) == ("error", "previous_response_not_found"), error
        connection.response.steer(input="more", previous_response_id=second.response.id)
        steer = TypeAdapter(ResponsesServerEvent).validate_python(json.loads(connection.recv_bytes()))
        assert steer.type == "response.steer.failed", steer


@check("a compaction is read by later requests, and is refused when it was changed")
def _():
    history = [{"role": "user", "content": "My name is Ann."}, {"role": "assistant", "content": "Hello Ann."}]
    compacted = strict(CompactedResponse, o.responses.compact(model="smollm2:135m", input=history))
    assert [item.type for item in compacted.output] == ["compaction"] and compacted.usage.total_tokens > 0, compacted
    items = [item.to_dict() for item in compacted.output]
    answer = o.responses.create(model="smollm2:135m", input=[*items, {"role": "user", "content": "Say lantern."}])
    assert "lantern" in answer.output_text, answer
    text = items[0]["encrypted_content"]
    items[0]["encrypted_content"] = text[:40] + ("A" if text[40] != "A" else "B") + text[41:]
    with raises(openai.BadRequestError) as caught:
        o.responses.create(model="smollm2:135m", input=items)
    assert caught.error.param == "input[0].encrypted_content", caught.error


@check("the tokens of an input are counted")
def _():
    assert o.responses.input_tokens.count(model="smollm2:135m", input="Say lantern.").input_tokens > 0


@check("a stream that broke ends with response.failed, and its error")
def _():
    events = list(o.responses.create(model="breaks", input="Tell a story.", stream=True))
    assert events[-1].type == "response.failed", events[-1]
    assert events[-1].response.status == "failed" and events[-1].response.error.message, events[-1]
    assert [event.sequence_number for event in events] == list(range(len(events))), events


@check("errors have their classes")
def _():
    with raises(openai.NotFoundError) as caught:
        o.responses.create(model="gpt-os", input="hi")
    assert caught.error.code == "model_not_found" and "gpt-oss:20b" in caught.error.message, caught.error
    with raises(openai.BadRequestError) as caught:
        o.responses.create(model="smollm2:135m", input="hi", temperature=9)
    assert caught.error.param == "temperature", caught.error


run()
