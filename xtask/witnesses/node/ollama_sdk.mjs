// The official ollama package for JavaScript: farllama as a local Ollama. It names a model `name` where the Python one says `model`.

import assert from 'node:assert/strict';
import { Ollama } from 'ollama';
import { ollama, user } from './ollama_checks.mjs';
import { URL, check, run } from './report.mjs';

const n = new Ollama({ host: URL });

ollama(n);

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
