"""The official openai package's files and batches: each object validated strictly, and files as the input of models."""

import base64
import json
import time

import openai

from openai_client import client
from report import KEYED, check, raises, run

o = client()

GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")


@check("a file is uploaded, listed, retrieved, read and deleted")
def _():
    file = o.files.create(file=("notes.md", b"# Notes"), purpose="user_data")
    assert (file.object, file.bytes, file.filename, file.purpose) == ("file", 7, "notes.md", "user_data"), file
    assert o.files.retrieve(file.id) == file
    assert o.files.content(file.id).read() == b"# Notes"
    assert o.files.wait_for_processing(file.id).status == "processed"
    other = o.files.create(
        file=("a.gif", GIF, "image/gif"), purpose="vision", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert other.expires_at == other.created_at + 3600, other
    assert [found.id for found in o.files.list(limit=1)][:2] == [other.id, file.id]
    assert [found.id for found in o.files.list(purpose="vision", order="asc")] == [other.id]
    assert o.files.delete(file.id).deleted and o.files.delete(other.id).deleted
    with raises(openai.NotFoundError) as caught:
        o.files.retrieve(file.id)
    assert caught.error.code == "file_not_found", caught.error
    with raises(openai.BadRequestError) as caught:
        o.files.create(file=("a", b"a"), purpose="evals")
    assert caught.error.param == "purpose", caught.error


@check("a file belongs to the key that uploaded it")
def _():
    own, other = client(url=KEYED, key="plain-key"), client(url=KEYED, key="other-key")
    file = own.files.create(file=("a.txt", b"secret"), purpose="user_data")
    with raises(openai.NotFoundError):
        other.files.content(file.id)
    with raises(openai.NotFoundError):
        other.responses.create(
            model="smollm2:135m",
            input=[{"role": "user", "content": [{"type": "input_file", "file_id": file.id}]}],
        )
    assert file.id not in [found.id for found in other.files.list()]


@check("files and images by their ids are the input of responses and chats")
def _():
    text = o.files.create(file=("a.txt", b"Say lantern."), purpose="user_data")
    image = o.files.create(file=("a.gif", GIF), purpose="vision")
    answer = o.responses.create(
        model="smollm2:135m",
        input=[{"role": "user", "content": [{"type": "input_file", "file_id": text.id}]}],
    )
    assert "lantern" in answer.output_text, answer
    answer = o.responses.create(
        model="qwen3-vl:8b",
        input=[{"role": "user", "content": [{"type": "input_image", "file_id": image.id, "detail": "auto"}]}],
    )
    assert answer.status == "completed", answer
    answer = o.chat.completions.create(
        model="smollm2:135m",
        messages=[{"role": "user", "content": [{"type": "file", "file": {"file_id": text.id}}]}],
    )
    assert "lantern" in answer.choices[0].message.content, answer
    with raises(openai.BadRequestError) as caught:
        o.responses.create(
            model="smollm2:135m",
            input=[{"role": "user", "content": [{"type": "input_file", "filename": "a.docx", "file_data": "UEsDBA=="}]}],
        )
    assert "ZIP" in caught.error.message, caught.error


def line(custom_id, model, url="/v1/chat/completions"):
    body = {"model": model, "messages": [{"role": "user", "content": "Say lantern."}]}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body})


def batch(*lines):
    file = o.files.create(file=("asks.jsonl", "\n".join(lines).encode()), purpose="batch")
    return o.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"a": "b"}
    )


def ended(made):
    end = time.time() + 20
    while made.status not in ("completed", "failed", "expired", "cancelled"):
        assert time.time() < end, made
        time.sleep(0.05)
        made = o.batches.retrieve(made.id)
    return made


@check("a batch is run, and its output and errors are files")
def _():
    made = batch(line("a", "smollm2:135m"), line("b", "no-such-model"))
    assert (made.status, made.metadata) == ("validating", {"a": "b"}), made
    assert made.id in [found.id for found in o.batches.list(limit=1)]
    made = ended(made)
    assert made.status == "completed", made
    assert (made.request_counts.total, made.request_counts.completed, made.request_counts.failed) == (2, 1, 1), made
    assert made.usage.total_tokens > 0, made
    output = json.loads(o.files.content(made.output_file_id).text)
    assert output["custom_id"] == "a" and "lantern" in output["response"]["body"]["choices"][0]["message"]["content"]
    errors = json.loads(o.files.content(made.error_file_id).text)
    assert (errors["custom_id"], errors["response"]["status_code"]) == ("b", 404), errors
    assert o.files.retrieve(made.output_file_id).purpose == "batch_output"


@check("a batch of a broken file fails with the line, and one can be canceled")
def _():
    made = ended(batch(line("a", "smollm2:135m"), "no JSON"))
    assert made.status == "failed" and made.errors.data[0].line == 2, made
    made = batch(*[line(str(n), "smollm2:135m") for n in range(200)])
    assert o.batches.cancel(made.id).status in ("cancelling", "cancelled", "completed")
    assert ended(made).status in ("cancelled", "completed")
    with raises(openai.NotFoundError):
        o.batches.retrieve("batch_none")


run()
