"""Checks, a line each: what holds, or what was expected and what came instead."""

import contextlib
import linecache
import os
import sys
import traceback

# A proxy in front of the mock, one that asks for keys (keyed.toml), one in front of an older Ollama, and one in front of an OpenAI server:
# the first one, a scripted one, or a real one.
URL = os.environ["WITNESS_URL"]
KEYED = os.environ["WITNESS_KEYED_URL"]
OLDER = os.environ["WITNESS_OLDER_URL"]
BRIDGED = os.environ["WITNESS_BRIDGED_URL"]
REAL = "WITNESS_REAL" in os.environ

# A tool as Ollama and OpenAI's chats take it.
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}

CHECKS = []


def check(sentence):
    """Makes a function a check: it fails where it raises."""

    def register(function):
        CHECKS.append((sentence, function))
        return function

    return register


class Caught:
    """What `raises` caught."""

    error = None


@contextlib.contextmanager
def raises(kind):
    """Expects an error of just this kind."""
    caught = Caught()
    try:
        yield caught
    except Exception as error:
        assert type(error) is kind, f"{kind.__name__} was expected, and came {type(error).__name__}: {error}"
        caught.error = error
    else:
        raise AssertionError(f"{kind.__name__} was expected, and no error came")


def why(error):
    """The expectation in the words of the check, and what came instead."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if os.path.dirname(frame.filename) == os.path.dirname(__file__)]
    frame = own[-1]
    source = " ".join(linecache.getline(frame.filename, line).strip() for line in range(frame.lineno, frame.end_lineno + 1))
    place = f"{os.path.basename(frame.filename)}:{frame.lineno}"
    if isinstance(error, AssertionError):
        return [f"expected ({place}): {source.removeprefix('assert ')}", f"came: {error}"]
    return [f"at {place}: {source}", f"came: {type(error).__name__}: {error}"]


def run():
    """Runs all checks in order; exits with 1 if one fails."""
    failed = 0
    for sentence, function in CHECKS:
        try:
            function()
            print(f"ok      {sentence}", flush=True)
        except Exception as error:
            failed += 1
            print(f"FAILED  {sentence}", *why(error), sep="\n        ", flush=True)
    sys.exit(1 if failed else 0)
