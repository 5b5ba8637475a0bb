// The official ollama package for JavaScript: farllama as an Ollama in front of an OpenAI server.

import assert from 'node:assert/strict';
import { Ollama } from 'ollama';
import { BRIDGED, REAL, WEATHER, check, run } from './report.mjs';

const user = (content) => [{ role: 'user', content }];
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

check('models are listed and shown, and the version is shown', async () => {
  const names = (await n.list()).models.map((model) => model.model);
  assert(names.includes('gpt-oss:20b'), names.join());
  assert((await n.show({ model: 'gpt-oss:20b' })).capabilities.includes('tools'));
  assert.match((await n.version()).version, /^\d+\.\d+\.\d+$/);
});

check('a chat answers, whole and streamed', async () => {
  const whole = await n.chat({ model: 'smollm2:135m', messages: user('Say meadow.') });
  assert.match(whole.message.content, /meadow/);
  let text = '';
  let last;
  for await (const part of await n.chat({ model: 'smollm2:135m', messages: user('Say meadow.'), stream: true })) {
    text += part.message.content;
    last = part;
  }
  assert.match(text, /meadow/);
  assert(last.done && last.eval_count > 0);
});

check('generate answers, and thinks apart', async () => {
  assert.match((await n.generate({ model: 'smollm2:135m', prompt: 'Say window.' })).response, /window/);
  const thought = await n.generate({ model: 'gpt-oss:20b', prompt: 'Say window.', think: 'low' });
  assert(thought.thinking && /window/.test(thought.response), JSON.stringify(thought));
});

check('tools are called', async () => {
  const answer = await n.chat({ model: 'agent', messages: user('What is the weather in Rome?'), tools: [WEATHER] });
  assert.equal(answer.message.tool_calls[0].function.name, 'get_weather');
});

check('embeddings have unit length', async () => {
  const { embeddings } = await n.embed({ model: 'all-minilm', input: ['one', 'two'] });
  assert.equal(embeddings.length, 2);
  assert(Math.abs(Math.hypot(...embeddings[0]) - 1) < 1e-3);
});

check('a stream that breaks off is an error', async () => {
  await assert.rejects(async () => {
    for await (const part of await n.chat({ model: 'breaks', messages: user('Tell a story.'), stream: true })) assert(part);
  });
});

check("a model that is not there has Ollama's text", async () => {
  await assert.rejects(n.chat({ model: 'nope', messages: user('hi') }), /model 'nope' not found/);
});

await run();
