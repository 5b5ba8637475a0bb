"""OpenAI's Agents SDK: agents that call tools, hand over and answer in a shape."""

import asyncio

import openai
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from pydantic import BaseModel

from report import URL, check, run

# It would report each run to OpenAI.
set_tracing_disabled(True)

APIS = {"chat": OpenAIChatCompletionsModel, "responses": OpenAIResponsesModel}


class City(BaseModel):
    name: str
    inhabitants: int
    tags: list[str]


class Asked:
    """A tool, and what it was asked."""

    def __init__(self):
        self.cities = []

        @function_tool
        def get_weather(city: str) -> str:
            """Weather of a city."""
            self.cities.append(city)
            return f"It rains in {city}, as told by the tool."

        self.tool = get_weather


def check_each(sentence):
    """A check for each of OpenAI's APIs; it gets what makes a model of a name."""

    def register(function):
        for api, kind in APIS.items():

            async def ask(kind=kind):
                async with openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key="unused", max_retries=0, timeout=30) as client:
                    await function(lambda name: kind(model=name, openai_client=client))

            check(f"{api}: {sentence}")(lambda ask=ask: asyncio.run(ask()))

    return register


@check_each("an agent calls its tool and answers with the result")
async def _(model):
    asked = Asked()
    agent = Agent(name="Weatherman", instructions="Be short.", model=model("agent"), tools=[asked.tool])
    result = await Runner.run(agent, "What is the weather in Paris?")
    assert len(asked.cities) == 1 and f"It rains in {asked.cities[0]}" in result.final_output, result
    assert result.context_wrapper.usage.requests == 2 and result.context_wrapper.usage.output_tokens > 0, result


@check_each("a streamed run emits each step")
async def _(model):
    asked = Asked()
    agent = Agent(name="Weatherman", model=model("agent"), tools=[asked.tool])
    result = Runner.run_streamed(agent, "What is the weather in Paris?")
    steps, text = [], ""
    async for event in result.stream_events():
        if event.type == "run_item_stream_event":
            steps.append(event.name)
        elif event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            text += event.data.delta
    assert steps == ["tool_called", "tool_output", "message_output_created"], steps
    assert text == result.final_output and f"It rains in {asked.cities[0]}" in text, (text, result)


@check_each("an agent that must call a tool does, also with a model that would not")
async def _(model):
    asked = Asked()
    settings = ModelSettings(tool_choice="required")
    agent = Agent(name="Weatherman", model=model("qwen3-vl:8b"), tools=[asked.tool], model_settings=settings)
    result = await Runner.run(agent, "Hello.")
    assert asked.cities and result.final_output, (asked.cities, result)


@check_each("one agent hands over to another")
async def _(model):
    singer = Agent(name="Singer", model=model("smollm2:135m"), handoff_description="Sings.")
    host = Agent(name="Host", model=model("agent"), handoffs=[singer])
    result = await Runner.run(host, "Say gondola.")
    assert result.last_agent.name == "Singer" and "gondola" in result.final_output, result


@check_each("a conversation goes on with what was said")
async def _(model):
    asked = Asked()
    agent = Agent(name="Weatherman", model=model("agent"), tools=[asked.tool])
    first = await Runner.run(agent, "What is the weather in Paris?")
    second = await Runner.run(agent, first.to_input_list() + [{"role": "user", "content": "And in Rome?"}])
    assert len(asked.cities) == 2 and second.final_output, (asked.cities, second)


@check_each("an answer has the shape that was asked for")
async def _(model):
    agent = Agent(name="Guide", model=model("smollm2:135m"), output_type=City)
    result = await Runner.run(agent, "Describe Oslo.")
    assert isinstance(result.final_output, City), result


run()
