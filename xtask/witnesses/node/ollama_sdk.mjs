// The official ollama package for JavaScript: farllama as a local Ollama. It names a model `name` where the Python one says `model`.

import assert from 'node:assert/strict';
import { Ollama } from 'ollama';
import { URL, WEATHER, check, run } from './report.mjs';

const user = (content) => [{ role: 'user', content }];
const n = new Ollama({ host: URL });

check('models are listed and shown, and the version is shown', async () => {
  const names = (await n.list()).models.map((model) => model.model);
  assert(names.includes('gpt-oss:20b'), names.join());
  assert((await n.show({ model: 'gpt-oss:20b' })).capabilities.includes('tools'));
  assert.match((await n.version()).version, /^\d+\.\d+/);
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

check('a pull shows its progress, and the model is copied and deleted', async () => {
  const lines = [];
  for await (const line of await n.pull({ model: 'llama3.2', stream: true })) lines.push(line.status);
  assert.equal(lines.at(-1), 'success');
  await n.copy({ source: 'llama3.2', destination: 'mine' });
  await n.delete({ model: 'mine' });
  await n.delete({ model: 'llama3.2' });
  const error = await n.show({ model: 'mine' }).then(() => assert.fail('it is still there'), (error) => error);
  assert.equal(error.status_code, 404);
  assert.match(error.message, /not found/);
});

check('a chat is aborted in mid-stream', async () => {
  const stream = await n.chat({ model: 'stalls', messages: user('Tell a story.'), stream: true });
  let parts = 0;
  const error = await (async () => {
    for await (const part of stream) {
      assert(part.message);
      parts += 1;
      stream.abort();
    }
  })().then(() => assert.fail('it ended'), (error) => error);
  assert.equal(error.name, 'AbortError');
  assert(parts > 0);
});

await run();
