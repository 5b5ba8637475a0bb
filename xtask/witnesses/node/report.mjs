// Checks, a line each: what holds, or what was expected and what came instead.

import assert from 'node:assert/strict';
import { basename } from 'node:path';

// A proxy in front of the mock, one that asks for keys (keyed.toml), one in front of an older Ollama, and one in front of an OpenAI server:
// the first one, a scripted one, or a real one.
export const URL = process.env.WITNESS_URL;
export const KEYED = process.env.WITNESS_KEYED_URL;
export const OLDER = process.env.WITNESS_OLDER_URL;
export const BRIDGED = process.env.WITNESS_BRIDGED_URL;
export const REAL = 'WITNESS_REAL' in process.env;

/** A tool as Ollama and OpenAI's chats take it. */
export const WEATHER = {
  type: 'function',
  function: {
    name: 'get_weather',
    description: 'Weather of a city',
    parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
  },
};

const checks = [];

/** Makes a function a check: it fails where it throws. */
export function check(sentence, body) {
  checks.push({ sentence, body });
}

/** Expects an error of just this kind, and gives it. */
export async function raises(kind, ask) {
  let value;
  try {
    value = await ask();
  } catch (error) {
    assert.equal(error.constructor.name, kind.name, `${kind.name} was expected, and came ${error.constructor.name}: ${error.message}`);
    return error;
  }
  throw new assert.AssertionError({ message: `${kind.name} was expected, and no error came but ${JSON.stringify(value)}` });
}

function why(error) {
  // Where in the check it was; a helper of an SDK may have lost that.
  const places = [...(error.stack ?? '').matchAll(/file:\/\/[^()\s]+:\d+/g)].map(([place]) => place);
  const own = places.filter((place) => !/node_modules|report\.mjs/.test(place)).map((place) => `at ${basename(place)}: `);
  const name = error.name === 'AssertionError' ? '' : `${error.constructor?.name}: `;
  return `${own[0] ?? ''}${name}${error.message}`.replaceAll('\n', '\n        ');
}

/** Runs all checks in order; exits with 1 if one fails. */
export async function run() {
  let failed = 0;
  for (const { sentence, body } of checks) {
    try {
      await body();
      console.log(`ok      ${sentence}`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED  ${sentence}\n        ${why(error)}`);
    }
  }
  // Connections that are kept alive would keep the process.
  process.exit(failed > 0 ? 1 : 0);
}
