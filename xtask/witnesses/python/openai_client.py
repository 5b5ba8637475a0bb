"""What checks of the openai package share: its client, and what they ask it."""

import openai
from pydantic import BaseModel

from report import URL, WEATHER

TIME = {
    "type": "function",
    "function": {
        "name": "get_time",
        "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]},
    },
}


class City(BaseModel):
    name: str
    inhabitants: int
    tags: list[str]


def client(strict=True, url=URL, key="unused", retries=0):
    return openai.OpenAI(
        base_url=f"{url}/v1", api_key=key, max_retries=retries, timeout=30, _strict_response_validation=strict
    )


def user(text):
    return [{"role": "user", "content": text}]
