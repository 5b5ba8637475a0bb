// The official Anthropic package for Node.

import assert from 'node:assert/strict';
import Anthropic from '@anthropic-ai/sdk';
import { betaZodTool } from '@anthropic-ai/sdk/helpers/beta/zod';
import { zodOutputFormat } from '@anthropic-ai/sdk/helpers/zod';
import { z } from 'zod';
import { KEYED, OLDER, URL, check, raises, run } from './report.mjs';

const client = (baseURL = URL, apiKey = 'any') => new Anthropic({ baseURL, apiKey, maxRetries: 0 });
const a = client();
const user = (content) => [{ role: 'user', content }];
const text = (message) => message.content.filter((block) => block.type === 'text').map((block) => block.text).join('');
const WEATHER = {
  name: 'get_weather',
  description: 'The weather of a city',
  input_schema: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
};

check('a message answers, with its usage and the id of its request', async () => {
  const message = await a.messages.create({ model: 'agent', max_tokens: 64, messages: user('Say lantern.') });
  assert.match(text(message), /lantern/);
  assert.deepEqual([message.type, message.role, message.stop_reason], ['message', 'assistant', 'end_turn']);
  assert(message.usage.input_tokens > 0 && message.usage.output_tokens > 0, JSON.stringify(message.usage));
  assert.match(message._request_id, /^req_/);
});

check('a stream folds to the same message, with all events', async () => {
  const whole = await a.messages.create({ model: 'agent', max_tokens: 64, messages: user('Say lantern.') });
  const stream = a.messages.stream({ model: 'agent', max_tokens: 64, messages: user('Say lantern.') });
  let pieces = '';
  stream.on('text', (piece) => (pieces += piece));
  const final = await stream.finalMessage();
  assert.equal(pieces, text(whole));
  assert.deepEqual([text(final), final.stop_reason, final.usage.input_tokens], [text(whole), whole.stop_reason, whole.usage.input_tokens]);
});

check('thoughts come with a signature', async () => {
  const thinking = { type: 'adaptive' };
  const stream = a.messages.stream({ model: 'gpt-oss:20b', max_tokens: 512, thinking, messages: user('2+2?') });
  const [thought] = (await stream.finalMessage()).content;
  assert(thought.type === 'thinking' && thought.thinking && thought.signature, JSON.stringify(thought));
});

check('a call is streamed as JSON, and its result is read', async () => {
  const ask = { model: 'agent', max_tokens: 256, tools: [WEATHER] };
  const message = await a.messages.stream({ ...ask, messages: user('Weather in Paris?') }).finalMessage();
  const call = message.content.at(-1);
  assert.deepEqual([message.stop_reason, call.type, call.name], ['tool_use', 'tool_use', 'get_weather']);
  assert.equal(typeof call.input.city, 'string');
  const result = [{ type: 'tool_result', tool_use_id: call.id, content: 'hail' }];
  const turns = [...user('Weather in Paris?'), { role: 'assistant', content: message.content }, ...user(result)];
  assert.match(text(await a.messages.create({ ...ask, messages: turns })), /hail/);
});

check('the tool runner calls functions until the model is done', async () => {
  const called = [];
  const tool = betaZodTool({
    name: 'get_weather',
    description: 'The weather of a city',
    inputSchema: z.object({ city: z.string() }),
    run: ({ city }) => (called.push(city), `hail of ${city}`),
  });
  const last = await a.beta.messages.toolRunner({ model: 'agent', max_tokens: 256, tools: [tool], messages: user('Weather in Paris?') });
  assert(called.length > 0 && text(last).includes('hail of'), JSON.stringify(last));
});

check('a structured output is parsed', async () => {
  const format = zodOutputFormat(z.object({ name: z.string(), age: z.number() }));
  const message = await a.messages.parse({ model: 'agent', max_tokens: 256, messages: user('A person.'), output_config: { format } });
  assert.deepEqual(Object.keys(message.parsed_output).sort(), ['age', 'name']);
});

check('a stop sequence is named', async () => {
  const message = await a.messages.create({ model: 'agent', max_tokens: 64, stop_sequences: ['antern'], messages: user('Say lantern.') });
  assert.deepEqual([message.stop_reason, message.stop_sequence], ['stop_sequence', 'antern']);
});

check('tokens are counted, models listed and retrieved', async () => {
  assert((await a.messages.countTokens({ model: 'agent', messages: user('One two three.') })).input_tokens > 2);
  const names = [];
  for await (const model of a.models.list({ limit: 3 })) names.push(model.id);
  assert(names.length > 3 && names.includes('gpt-oss:20b'), names.join());
  assert.equal((await a.models.retrieve('gpt-oss:20b')).type, 'model');
});

check('errors have the classes of the official API', async () => {
  const ask = { max_tokens: 16, messages: user('hi') };
  const missing = await raises(Anthropic.NotFoundError, () => a.messages.create({ model: 'gpt-os', ...ask }));
  assert.equal(missing.error.error.type, 'not_found_error');
  assert.equal(missing.requestID, missing.error.request_id);
  await raises(Anthropic.AuthenticationError, () => client(KEYED, 'wrong').messages.create({ model: 'agent', ...ask }));
  await raises(Anthropic.InternalServerError, () => a.messages.create({ model: 'fails', ...ask }));
  await client(KEYED, 'once-key').messages.create({ model: 'agent', ...ask });
  const limited = await raises(Anthropic.RateLimitError, () => client(KEYED, 'once-key').messages.create({ model: 'agent', ...ask }));
  assert.equal(limited.headers.get('anthropic-ratelimit-requests-remaining'), '0');
});

check('a stream that breaks raises, and is no answer', async () => {
  for (const model of ['breaks', 'slow-breaks']) {
    const error = await a.messages.stream({ model, max_tokens: 64, messages: user('Tell a long story.') }).finalMessage().then(
      (message) => assert.fail(`no error came but ${JSON.stringify(message)}`),
      (error) => error,
    );
    assert.match(JSON.stringify(error.error), /api_error/);
  }
});

check('an older Ollama, which has no such API itself, answers too', async () => {
  const message = await client(OLDER).messages.create({ model: 'agent', max_tokens: 64, messages: user('Say lantern.') });
  assert.match(text(message), /lantern/);
});

await run();
