// OpenAI's Codex, the command line, as a user of Ollama has it: in an empty home, without a key and without a network.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { mkdtemp, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { URL, check, run } from './report.mjs';

const HERE = dirname(fileURLToPath(import.meta.url));
const CODEX = createRequire(import.meta.url).resolve('@openai/codex/bin/codex.js');
const NOTE = 'The lighthouse keeper has 4711 lamps.';

/** A port without a listener: a request to a proxy there goes nowhere. */
async function closedPort() {
  const server = createServer();
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  const { port } = server.address();
  await new Promise((closed) => server.close(closed));
  return `http://127.0.0.1:${port}`;
}

/** Runs it in a folder of its own with a note in it; gives what it did, its usage, its last message, and the note's copy. */
async function codex(model, prompt, { schema, image } = {}) {
  const place = await mkdtemp(join(HERE, 'codex-'));
  const [home, task] = [join(place, 'home'), join(place, 'task')];
  await mkdir(home);
  await mkdir(task);
  await writeFile(join(task, 'note.txt'), NOTE);
  const shape = join(place, 'schema.json');
  const path = join(place, 'image.png');
  await writeFile(shape, JSON.stringify(schema ?? {}));
  await writeFile(path, image ?? '');
  try {
    const outside = await closedPort();
    const asked = spawn(
      process.execPath,
      [
        CODEX,
        'exec',
        ...['--oss', '--local-provider', 'ollama', '--model', model],
        ...['--skip-git-repo-check', '--sandbox', 'danger-full-access', '--cd', task],
        ...['--json', '--output-last-message', join(place, 'last.txt')],
        ...(schema ? ['--output-schema', shape] : []),
        ...(image ? ['--image', path] : []),
        '--',
        prompt,
      ],
      {
        env: {
          PATH: process.env.PATH,
          HOME: home,
          CODEX_OSS_BASE_URL: `${URL}/v1`,
          HTTP_PROXY: outside,
          HTTPS_PROXY: outside,
          NO_PROXY: '127.0.0.1,localhost',
        },
        stdio: ['ignore', 'pipe', 'pipe'],
        timeout: 60_000,
      },
    );
    let [out, err] = ['', ''];
    asked.stdout.on('data', (piece) => (out += piece));
    asked.stderr.on('data', (piece) => (err += piece));
    const code = await new Promise((ended) => asked.on('close', ended));
    assert.equal(code, 0, `codex ended with ${code}:\n${out}${err}`);
    const events = out.split('\n').filter(Boolean).map((line) => JSON.parse(line));
    return {
      items: events.filter((event) => event.type === 'item.completed').map((event) => event.item),
      usage: events.find((event) => event.type === 'turn.completed').usage,
      last: await readFile(join(place, 'last.txt'), 'utf8'),
      copy: await readFile(join(task, 'copy.txt'), 'utf8').catch(() => undefined),
    };
  } finally {
    await rm(place, { recursive: true, force: true });
  }
}

check('a task is done with a command, whose output the model gets', async () => {
  // Its tag is not named, so Codex pulls the model first.
  const { items, usage, last, copy } = await codex('agent', 'Copy the note, and tell what it says.');
  const commands = items.filter((item) => item.type === 'command_execution');
  assert.deepEqual(commands.map((item) => [item.exit_code, item.aggregated_output.trim()]), [[0, NOTE]]);
  assert.equal(copy, NOTE, 'the command had no effect');
  // The mock repeats the tool's result, which it knows from the second request only.
  assert(last.includes('the tool said') && last.includes(NOTE), last);
  assert(usage.input_tokens > 1000 && usage.output_tokens > 0, JSON.stringify(usage));
});

check('a tool of a namespace is called', async () => {
  const { items, last } = await codex('agent:latest', 'Let a helper say hello.');
  const [call] = items.filter((item) => item.type === 'collab_tool_call');
  assert.deepEqual([call?.tool, call?.status, call?.prompt], ['spawn_agent', 'completed', 'HELPER: say hello.']);
  assert.equal(last, 'The helper is at work.');
});

check('an image is seen', async () => {
  const pixel = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';
  const { last } = await codex('qwen3-vl:8b', 'What is this?', { image: Buffer.from(pixel, 'base64') });
  // The mock says how many images it was given.
  assert.match(last, /with one attachment/);
});

check('an answer has the shape that was asked for, and thinking is there', async () => {
  const schema = {
    type: 'object',
    properties: { city: { type: 'string' }, inhabitants: { type: 'integer' } },
    required: ['city', 'inhabitants'],
    additionalProperties: false,
  };
  const { items, last } = await codex('gpt-oss:20b', 'Describe Oslo.', { schema });
  assert.deepEqual(JSON.parse(last), { city: 'Oslo', inhabitants: 724290 });
  const [thought] = items.filter((item) => item.type === 'reasoning');
  assert.match(thought?.text ?? '', /how many live there/);
});

await run();
