"""The official openai package for chats and all else but responses, each reply validated strictly but where its own types do not foresee what OpenAI itself sends."""

import asyncio
import io
import json
import time

import ollama
import openai

from openai_client import TIME, WEATHER, City, client, user
from report import KEYED, OLDER, URL, check, raises, run

o = client()
lenient = client(strict=False)
WRONG = client(url=KEYED, key="wrong")


@check("models are listed and retrieved")
def _():
    names = [model.id for model in o.models.list()]
    assert "gpt-oss:20b" in names, names
    model = o.models.retrieve("gpt-oss:20b")
    assert (model.id, model.object, model.owned_by) == ("gpt-oss:20b", "model", "library") and model.created > 0, model


@check("a model that does not exist is a NotFoundError that names the nearest")
def _():
    with raises(openai.NotFoundError) as caught:
        o.chat.completions.create(model="gpt-os", messages=user("hi"))
    error = caught.error
    assert (error.code, error.param, error.type) == ("model_not_found", "model", "invalid_request_error"), error
    assert "gpt-oss:20b" in error.message and error.request_id.startswith("req_"), error
    with raises(openai.NotFoundError):
        o.models.retrieve("gpt-os")


@check("a chat answers, with usage and thinking")
def _():
    answer = o.chat.completions.create(model="gpt-oss:20b", messages=user("Say lantern."), seed=7)
    choice = answer.choices[0]
    assert "lantern" in choice.message.content and choice.finish_reason == "stop", answer
    assert choice.message.reasoning_content, choice
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens, answer.usage


@check("max_completion_tokens ends an answer with length")
def _():
    answer = o.chat.completions.create(model="smollm2:135m", messages=user("Tell a story."), max_completion_tokens=3)
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 3), answer


@check("n answers are n choices, and usage is their sum")
def _():
    one = o.chat.completions.create(model="smollm2:135m", messages=user("Say one."), max_tokens=5)
    answer = o.chat.completions.create(model="smollm2:135m", messages=user("Say one."), max_tokens=5, n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2], answer
    assert answer.usage.completion_tokens == 3 * one.usage.completion_tokens, answer.usage


@check("n streams are distinguished by their index, and each finishes once")
def _():
    texts, ends = {}, []
    for chunk in o.chat.completions.create(model="smollm2:135m", messages=user("Say quay."), n=2, stream=True):
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            ends += [choice.index] if choice.finish_reason else []
    assert sorted(ends) == [0, 1] and all("quay" in text for text in texts.values()), (texts, ends)


@check("log probabilities come with each token, whole and streamed")
def _():
    ask = {"model": "smollm2:135m", "messages": user("Say fern."), "max_tokens": 4, "logprobs": True, "top_logprobs": 2}
    whole = o.chat.completions.create(**ask).choices[0]
    tokens = whole.logprobs.content
    assert len(tokens) == 4 and "".join(token.token for token in tokens) == whole.message.content, whole
    assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 and bytes(token.bytes) for token in tokens), tokens
    chunks = list(o.chat.completions.create(**ask, stream=True))
    streamed = [token for chunk in chunks for choice in chunk.choices if choice.logprobs for token in choice.logprobs.content]
    assert [token.token for token in streamed] == [token.token for token in tokens], streamed


@check("a stream joins to an answer, with usage last")
def _():
    chunks = list(
        o.chat.completions.create(
            model="smollm2:135m", messages=user("Say harbor."), stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "harbor" in text and len(chunks) > 5, text
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0, chunks[-1]
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop", chunks
    assert len({chunk.id for chunk in chunks}) == 1, chunks


@check("the asynchronous client answers many at once, each with its own")
def _():
    async def ask():
        async with openai.AsyncOpenAI(
            base_url=f"{URL}/v1", api_key="unused", max_retries=0, timeout=30, _strict_response_validation=True
        ) as client:
            words = [f"word{n}" for n in range(12)]
            asked = [client.chat.completions.create(model="smollm2:135m", messages=user(f"Say {word}.")) for word in words]
            return list(zip(words, await asyncio.gather(*asked)))

    for word, answer in asyncio.run(ask()):
        assert word in answer.choices[0].message.content, (word, answer)


@check("the streaming helper emits content as it grows, parsed at last")
def _():
    kinds, deltas = [], ""
    with o.chat.completions.stream(model="smollm2:135m", messages=user("Describe Oslo."), response_format=City) as stream:
        for event in stream:
            kinds.append(event.type)
            if event.type == "content.delta":
                deltas += event.delta
                assert event.snapshot == deltas, event
            if event.type == "content.done":
                assert event.content == deltas and isinstance(event.parsed, City), event
        final = stream.get_final_completion()
    assert kinds.count("content.done") == 1 and kinds.count("content.delta") > 3, kinds
    assert isinstance(final.choices[0].message.parsed, City) and final.choices[0].finish_reason == "stop", final


@check("the streaming helper understands tool calls")
def _():
    arguments = None
    with o.chat.completions.stream(model="agent", messages=user("What is the weather in Paris?"), tools=[WEATHER]) as stream:
        for event in stream:
            if event.type == "tool_calls.function.arguments.done":
                arguments = event.arguments
        final = stream.get_final_completion()
    call = final.choices[0].message.tool_calls[0]
    assert final.choices[0].finish_reason == "tool_calls" and call.function.name == "get_weather" and call.id, final
    assert arguments == call.function.arguments and isinstance(json.loads(arguments)["city"], str), final


@check("the streaming helper raises on a stream that broke, and never gives it as finished")
def _():
    with raises(openai.APIError) as caught:
        with o.chat.completions.stream(model="breaks", messages=user("Tell a story.")) as stream:
            stream.get_final_completion()
    assert caught.error.message, caught.error


@check("tool calls stream with an index, an id and a name first, and arguments that join to JSON")
def _():
    deltas = [
        call
        for chunk in o.chat.completions.create(model="pair:135m", messages=user("Weather?"), tools=[WEATHER], stream=True)
        for choice in chunk.choices
        for call in choice.delta.tool_calls or []
    ]
    for index in (0, 1):
        parts = [delta for delta in deltas if delta.index == index]
        assert parts[0].id and parts[0].function.name == "get_weather" and parts[0].type == "function", deltas
        assert isinstance(json.loads("".join(part.function.arguments or "" for part in parts)), dict), deltas
    assert len({delta.id for delta in deltas if delta.id}) == 2, deltas


@check("a tool's result leads to an answer")
def _():
    messages = user("What is the weather in Paris?")
    message = o.chat.completions.create(model="agent", messages=messages, tools=[WEATHER]).choices[0].message
    assert message.content is None and len(message.tool_calls) == 1, message
    messages += [
        message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "20 C"},
    ]
    second = o.chat.completions.create(model="agent", messages=messages, tools=[WEATHER])
    assert second.choices[0].finish_reason == "stop" and second.choices[0].message.content, second


@check("tool_choice required, named and none hold, also for a model that would not")
def _():
    def calls(choice, model="caller:135m"):
        answer = o.chat.completions.create(
            model=model, messages=user("Say hello."), tools=[WEATHER, TIME], tool_choice=choice
        ).choices[0]
        return answer.finish_reason, [call.function for call in answer.message.tool_calls or []]

    reason, required = calls("required")
    assert reason == "tool_calls" and required[0].name in ("get_weather", "get_time"), required
    reason, named = calls({"type": "function", "function": {"name": "get_time"}})
    assert [call.name for call in named] == ["get_time"] and isinstance(json.loads(named[0].arguments)["zone"], str), named
    assert calls("none", "agent") == ("stop", []), "calls although tool_choice was none"


@check("a forced call streams too")
def _():
    with o.chat.completions.stream(
        model="caller:135m", messages=user("Say hello."), tools=[WEATHER, TIME], tool_choice="required"
    ) as stream:
        final = stream.get_final_completion().choices[0]
    assert final.finish_reason == "tool_calls" and json.loads(final.message.tool_calls[0].function.arguments), final


@check("parse gives an object that satisfies its schema, and the arguments of a tool's own type")
def _():
    answer = o.chat.completions.parse(model="smollm2:135m", messages=user("Describe Oslo."), response_format=City)
    assert isinstance(answer.choices[0].message.parsed, City), answer
    tool = openai.pydantic_function_tool(City, name="describe")
    answer = o.chat.completions.parse(model="agent", messages=user("Describe Oslo."), tools=[tool])
    assert isinstance(answer.choices[0].message.tool_calls[0].function.parsed_arguments, City), answer


@check("parse raises LengthFinishReasonError where the tokens do not suffice")
def _():
    with raises(openai.LengthFinishReasonError):
        o.chat.completions.parse(
            model="smollm2:135m", messages=user("Describe Oslo."), response_format=City, max_completion_tokens=3
        )


@check("bad input is a BadRequestError with its param")
def _():
    with raises(openai.BadRequestError) as caught:
        o.chat.completions.create(model="smollm2:135m", messages=user("hi"), temperature=9)
    assert caught.error.param == "temperature" and "<= 2" in caught.error.message, caught.error


@check("a wrong key is an AuthenticationError, and the right one passes")
def _():
    with raises(openai.AuthenticationError) as caught:
        WRONG.models.list()
    assert caught.error.code == "invalid_api_key", caught.error
    assert client(url=KEYED, key="plain-key").models.list().data


@check("a failing Ollama is an InternalServerError with its words, and asked again as often as the client likes")
def _():
    with raises(openai.InternalServerError) as caught:
        o.chat.completions.create(model="fails", messages=user("hi"))
    assert "signal: killed" in caught.error.message, caught.error
    # The script fails twice.
    assert client(retries=1).chat.completions.create(model="fails", messages=user("Say moss.")).choices


@check("too many requests are a RateLimitError, and a retry after the time they name is answered")
def _():
    once, patient = client(url=KEYED, key="once-key"), client(url=KEYED, key="once-key", retries=1)
    once.models.list()
    with raises(openai.RateLimitError) as caught:
        once.models.list()
    assert float(caught.error.response.headers["retry-after"]) > 0, caught.error.response.headers
    start = time.monotonic()
    assert patient.models.list().data
    assert time.monotonic() - start > 0.2, "it did not wait"


@check("who leaves in mid-stream frees what it held")
def _():
    single = client(url=KEYED, key="single-key")
    stream = single.chat.completions.create(model="stalls", messages=user("Tell a story."), stream=True)
    assert next(iter(stream)).choices, "no first chunk"
    stream.close()
    assert single.chat.completions.create(model="smollm2:135m", messages=user("Say moss.")).choices


@check("the receipt is read from the raw response")
def _():
    raw = o.chat.completions.with_raw_response.create(
        model="smollm2:135m", messages=user("Say moss."), user="ann", service_tier="flex", n=2
    )
    receipt = raw.headers["x-farllama-receipt"].split(", ")
    assert {"user=no-effect", "service_tier=no-effect", "n=emulated"} <= set(receipt), receipt
    assert len(raw.parse().choices) == 2 and raw.headers["x-request-id"].startswith("req_"), raw.headers


@check("num_ctx and keep_alive in the extra body reach Ollama")
def _():
    o.chat.completions.create(
        model="smollm2:135m", messages=user("hi"), extra_body={"num_ctx": 2048, "keep_alive": "7m"}
    )
    loaded = {model.model: model.context_length for model in ollama.Client(host=URL).ps().models}
    assert loaded["smollm2:135m"] == 2048, loaded


@check("embeddings come in the SDK's own base64 and as floats, alike")
def _():
    # What the SDK asks for by itself, base64, its own strict types do not foresee.
    based = lenient.embeddings.create(model="all-minilm", input=["one", "two"])
    floats = o.embeddings.create(model="all-minilm", input=["one", "two"], encoding_format="float")
    native = ollama.Client(host=URL).embed("all-minilm", ["one", "two"]).embeddings
    for nth in (0, 1):
        assert based.data[nth].index == nth and len(based.data[nth].embedding) == 384, based
        assert floats.data[nth].embedding == list(native[nth]), floats
        assert all(abs(a - b) < 1e-7 for a, b in zip(based.data[nth].embedding, native[nth])), based
    assert based.usage.prompt_tokens > 0, based.usage


@check("completions answer several prompts, whole and streamed")
def _():
    answer = o.completions.create(model="smollm2:135m", prompt=["Say one.", "Say two."], n=2, echo=True, max_tokens=8)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3], answer
    assert answer.choices[0].text.startswith("Say one.") and answer.choices[3].text.startswith("Say two."), answer
    # Its strict types do not foresee the null finish_reason of a chunk either, which OpenAI sends.
    chunks = list(
        lenient.completions.create(
            model="smollm2:135m",
            prompt=["Say one.", "Say two."],
            max_tokens=8,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert {chunk.choices[0].index for chunk in chunks if chunk.choices} == {0, 1}, chunks
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0, chunks[-1]


@check("completions tell probabilities in their legacy shape")
def _():
    answer = o.completions.create(model="smollm2:135m", prompt="Say one.", max_tokens=3, logprobs=2)
    probabilities = answer.choices[0].logprobs
    assert len(probabilities.tokens) == 3 == len(probabilities.text_offset), probabilities
    assert probabilities.text_offset[0] == 0, probabilities
    assert all(token in top for token, top in zip(probabilities.tokens, probabilities.top_logprobs)), probabilities


@check("a moderation has all thirteen categories, and judges by the model that is set")
def _():
    verdict = o.moderations.create(input=["A walk in the park.", "How do I attack someone?"]).results
    assert [result.flagged for result in verdict] == [False, True], verdict
    assert verdict[1].categories.violence and not verdict[1].categories.sexual, verdict[1]
    result = o.moderations.create(model="smollm2:135m", input="Is this fine?").results[0]
    assert len(result.categories.to_dict()) == 13 == len(result.category_scores.to_dict()), result
    assert result.flagged == any(result.categories.to_dict().values()), result


@check("a recording is transcribed and translated by a model that hears, as JSON and as text")
def _():
    def recording():
        return ("speech.wav", io.BytesIO(b"RIFF0000WAVE"), "audio/wav")

    answer = o.audio.transcriptions.create(model="gemma4:e4b", file=recording(), language="en", prompt="names: Ann")
    assert answer.text, answer
    text = o.audio.transcriptions.create(model="gemma4:e4b", file=recording(), response_format="text")
    assert isinstance(text, str) and text.strip() and not text.startswith("{"), text
    assert o.audio.translations.create(model="gemma4:e4b", file=recording()).text


@check("a recording that no model here can hear is a BadRequestError, and a given transcript is passed on")
def _():
    recording = ("speech.wav", b"RIFF0000WAVE")
    with raises(openai.BadRequestError) as caught:
        o.audio.transcriptions.create(model="smollm2:135m", file=recording)
    assert caught.error.param == "model" and "no audio input" in caught.error.message, caught.error
    given = o.audio.transcriptions.create(model="smollm2:135m", file=recording, extra_body={"text": "Good morning."})
    assert given.text == "Good morning.", given


@check("speech and images that this remote cannot generate are BadRequestErrors")
def _():
    for ask in (
        lambda: o.audio.speech.create(model="tts-1", input="hi", voice="alloy"),
        lambda: o.images.generate(model="smollm2:135m", prompt="a cat"),
    ):
        with raises(openai.BadRequestError) as caught:
            ask()
        assert caught.error.param == "model", caught.error


@check("who is refused is answered on the same connection, again and again")
def _():
    for _ in range(20):
        with raises(openai.BadRequestError):
            o.audio.speech.create(model="tts-1", input="hi", voice="alloy")
        with raises(openai.AuthenticationError):
            WRONG.chat.completions.create(model="smollm2:135m", messages=user("hi"))


@check("images come from an Ollama that generates them")
def _():
    made = client(url=OLDER).images.generate(model="flux", prompt="a cat", size="512x512", response_format="b64_json")
    assert made.data[0].b64_json == "QUJD" and made.created > 0, made


run()
