// The official ollama package for JavaScript: farllama as an Ollama in front of an OpenAI server.

import assert from 'node:assert/strict';
import { Ollama } from 'ollama';
import { ollama, user } from './ollama_checks.mjs';
import { BRIDGED, REAL, check, run } from './report.mjs';

const n = new Ollama({ host: BRIDGED });

if (REAL) {
  check('llama.cpp: a chat answers, whole and streamed, within the length that was asked for', async () => {
    const [{ model }] = (await n.list()).models;
    const ask = { model, messages: user('Say hello.'), options: { num_predict: 8, temperature: 0 } };
    const whole = await n.chat(ask);
    assert(whole.message.content && whole.done_reason === 'length' && whole.eval_count === 8, JSON.stringify(whole));
    let text = '';
    for await (const part of await n.chat({ ...ask, stream: true })) text += part.message.content;
    assert.equal(text, whole.message.content);
  });
  await run();
}

ollama(n);

check('a stream that breaks off is an error', async () => {
  await assert.rejects(async () => {
    for await (const part of await n.chat({ model: 'breaks', messages: user('Tell a story.'), stream: true })) assert(part);
  });
});

check("a model that is not there has Ollama's text", async () => {
  await assert.rejects(n.chat({ model: 'nope', messages: user('hi') }), /model 'nope' not found/);
});

await run();
