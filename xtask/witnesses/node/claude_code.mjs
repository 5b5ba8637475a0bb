// Anthropic's Claude Code, the command line, in an empty home, without a key of Anthropic's and without a network.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { mkdtemp, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { URL, check, run } from './report.mjs';

const HERE = dirname(fileURLToPath(import.meta.url));
// Its start script finds the program for this machine, which no script has to install.
const CLAUDE = createRequire(import.meta.url).resolve('@anthropic-ai/claude-code/cli-wrapper.cjs');
const NOTE = 'The lighthouse keeper has 4711 lamps.';

/** A port without a listener: a request to a proxy there goes nowhere. */
async function nowhere() {
  const server = createServer();
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  const { port } = server.address();
  await new Promise((closed) => server.close(closed));
  return `http://127.0.0.1:${port}`;
}

/** A home and a folder with a note in it, for as long as `use` takes. */
async function place(use) {
  const place = await mkdtemp(join(HERE, 'claude-'));
  const [home, task] = [join(place, 'home'), join(place, 'task')];
  await mkdir(home);
  await mkdir(task);
  await writeFile(join(task, 'note.txt'), NOTE);
  try {
    return await use({ home, task });
  } finally {
    await rm(place, { recursive: true, force: true });
  }
}

/** Runs it; gives its exit code, and the JSON that it prints. */
async function claude({ home, task }, flags, input = '') {
  const outside = await nowhere();
  const asked = spawn(process.execPath, [CLAUDE, '-p', ...flags], {
    cwd: task,
    env: {
      PATH: process.env.PATH,
      HOME: home,
      ANTHROPIC_BASE_URL: URL,
      ANTHROPIC_AUTH_TOKEN: 'any',
      DISABLE_AUTOUPDATER: '1',
      CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1',
      HTTP_PROXY: outside,
      HTTPS_PROXY: outside,
      NO_PROXY: '127.0.0.1,localhost',
    },
    stdio: ['pipe', 'pipe', 'pipe'],
    timeout: 60_000,
  });
  asked.stdin.end(input);
  let [out, err] = ['', ''];
  asked.stdout.on('data', (piece) => (out += piece));
  asked.stderr.on('data', (piece) => (err += piece));
  const code = await new Promise((ended) => asked.on('close', ended));
  const lines = out.split('\n').filter((line) => line.startsWith('{'));
  const result = lines.map((line) => JSON.parse(line)).find((line) => line.type === 'result');
  return { code, result, text: `${out}${err}` };
}

const json = (model, ...flags) => ['--model', model, '--output-format', 'json', ...flags];

check('a question is answered in text', async () => {
  const { code, text } = await place((at) => claude(at, ['--model', 'gpt-oss:20b', 'Say lantern.']));
  assert.equal(code, 0, text);
  assert.match(text, /lantern/);
});

check('without --model the model in the settings answers, and the result is JSON with usage', async () => {
  const { code, result, text } = await place((at) => claude(at, ['--output-format', 'json', '--tools', '', '--', 'Say lantern.']));
  assert.equal(code, 0, text);
  assert.deepEqual([result.subtype, result.is_error], ['success', false], text);
  assert.match(result.result, /lantern/);
  assert(result.usage.input_tokens > 0 && result.usage.output_tokens > 0, text);
});

check('a task is done with a command, whose output the model gets', async () => {
  await place(async (at) => {
    const { code, result, text } = await claude(at, json('agent', '--allowedTools', 'Bash', '--', 'Copy the note, and tell what it says.'));
    assert.equal(code, 0, text);
    assert.equal(await readFile(join(at.task, 'copy.txt'), 'utf8').catch(() => undefined), NOTE, `the command had no effect: ${text}`);
    // The mock repeats the tool's result, which it knows from the second request only.
    assert(result.result.includes('the tool said') && result.result.includes(NOTE), text);
    assert(result.num_turns >= 2 && result.usage.input_tokens > 10_000, text);
  });
});

check('an image is seen', async () => {
  const data = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';
  const image = { type: 'image', source: { type: 'base64', media_type: 'image/png', data } };
  const content = [image, { type: 'text', text: 'What is this?' }];
  const input = `${JSON.stringify({ type: 'user', message: { role: 'user', content } })}\n`;
  const flags = ['--model', 'qwen3-vl:8b', '--tools', '', '--input-format', 'stream-json', '--output-format', 'stream-json', '--verbose'];
  const { code, result, text } = await place((at) => claude(at, flags, input));
  assert.equal(code, 0, text);
  // The mock says how many images it was given.
  assert.match(result.result, /with one attachment/, text);
});

check('a second turn goes on from the first', async () => {
  await place(async (at) => {
    const first = await claude(at, json('gpt-oss:20b', 'Name the harbor.'));
    assert.equal(first.code, 0, first.text);
    const second = await claude(at, json('gpt-oss:20b', '--continue', 'Which one was it?'));
    assert.equal(second.code, 0, second.text);
    assert.equal(first.result.result, 'It is called Lantern Bay.');
    assert.equal(second.result.result, 'The one that I named before.');
  });
});

check('a prompt that is too long is known as such', async () => {
  // It cannot grow beyond the 8192 tokens that this model was made for.
  const { code, text } = await place((at) => claude(at, ['--model', 'caller:135m', 'Say lantern.']));
  assert.notEqual(code, 0, text);
  assert.match(text, /Prompt is too long.*limit 8192/);
});

check('a model that does not exist is named, and is no success', async () => {
  const { code, result, text } = await place((at) => claude(at, json('no-such-model', 'Hello.')));
  assert.notEqual(code, 0, text);
  assert.equal(result.is_error, true, text);
  assert.match(result.result, /no-such-model/);
});

await run();
