// What the official ollama package must find at an Ollama: farllama in front of one, or in front of an OpenAI server.

import assert from 'node:assert/strict';
import { WEATHER, check } from './report.mjs';

/** One message of the user's. */
export const user = (content) => [{ role: 'user', content }];

/** Adds the checks of models, chats, generated text, tools and embeddings through the client `n`. */
export function ollama(n) {
  check('models are listed and shown, and the version is shown', async () => {
    const names = (await n.list()).models.map((model) => model.model);
    assert(names.includes('gpt-oss:20b'), names.join());
    assert((await n.show({ model: 'gpt-oss:20b' })).capabilities.includes('tools'));
    assert.match((await n.version()).version, /^\d+\.\d+\.\d+/);
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
}
