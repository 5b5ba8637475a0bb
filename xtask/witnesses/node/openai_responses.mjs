// The official openai package for JavaScript: its responses.

import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { zodTextFormat } from 'openai/helpers/zod';
import { ResponsesWS } from 'openai/resources/responses/ws';
import { z } from 'zod';
import { URL, check, raises, run } from './report.mjs';

const WEATHER = {
  type: 'function',
  name: 'get_weather',
  description: 'Weather of a city',
  parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'], additionalProperties: false },
  strict: true,
};
const CITY = z.object({ name: z.string(), inhabitants: z.number().int(), tags: z.array(z.string()) });

const o = new OpenAI({ baseURL: `${URL}/v1`, apiKey: 'unused', maxRetries: 0, timeout: 30_000 });

check('a response answers, with usage', async () => {
  const answer = await o.responses.create({ model: 'smollm2:135m', instructions: 'Be short.', input: 'Say lantern.' });
  assert.equal(answer.status, 'completed');
  assert.match(answer.output_text, /lantern/);
  assert.equal(answer.usage.total_tokens, answer.usage.input_tokens + answer.usage.output_tokens);
});

check('the streaming helper emits each event, and joins them', async () => {
  const stream = o.responses.stream({ model: 'smollm2:135m', input: 'Say harbor.' });
  const [numbers, kinds] = [[], []];
  let text = '';
  stream.on('event', (event) => {
    numbers.push(event.sequence_number);
    kinds.push(event.type);
  });
  stream.on('response.output_text.delta', (event) => (text += event.delta));
  const final = await stream.finalResponse();
  assert.deepEqual(numbers, numbers.map((_, nth) => nth));
  assert.equal(kinds.at(-1), 'response.completed');
  assert.match(text, /harbor/);
  assert.equal(final.output_text, text);
});

check('the streaming helper understands function calls, and the result leads to an answer', async () => {
  const question = { role: 'user', content: 'What is the weather in Paris?' };
  const stream = o.responses.stream({ model: 'agent', input: [question], tools: [WEATHER] });
  let streamed = '';
  stream.on('response.function_call_arguments.delta', (event) => (streamed += event.delta));
  const first = await stream.finalResponse();
  const call = first.output.at(-1);
  assert.deepEqual([call.type, call.name, call.arguments], ['function_call', 'get_weather', streamed]);
  assert.equal(typeof JSON.parse(call.arguments).city, 'string');
  const second = await o.responses.create({
    model: 'agent',
    tools: [WEATHER],
    previous_response_id: first.id,
    input: [{ type: 'function_call_output', call_id: call.call_id, output: '20 degrees' }],
  });
  assert.match(second.output_text, /20 degrees/);
});

check('parse gives what zod asks for, whole and streamed', async () => {
  const ask = { model: 'smollm2:135m', input: 'Describe Oslo.', text: { format: zodTextFormat(CITY, 'city') } };
  const whole = await o.responses.parse(ask);
  assert.deepEqual(CITY.parse(whole.output_parsed), whole.output_parsed);
  const streamed = await o.responses.stream(ask).finalResponse();
  assert.deepEqual(CITY.parse(streamed.output_parsed), streamed.output_parsed);
});

check('thinking streams as a summary before the text', async () => {
  const stream = o.responses.stream({ model: 'gpt-oss:20b', input: 'Say lantern.', reasoning: { summary: 'auto' } });
  const kinds = [];
  stream.on('event', (event) => kinds.push(event.type));
  const final = await stream.finalResponse();
  const first = kinds.indexOf('response.reasoning_summary_text.delta');
  assert(first > 0 && first < kinds.indexOf('response.output_text.delta'), kinds.join());
  assert.deepEqual(final.output.map((item) => item.type), ['reasoning', 'message']);
});

check('a stored response is read, listed, streamed again and deleted', async () => {
  const answer = await o.responses.create({ model: 'smollm2:135m', input: 'Say lantern.' });
  assert.equal((await o.responses.retrieve(answer.id)).output_text, answer.output_text);
  const items = [];
  for await (const item of o.responses.inputItems.list(answer.id)) items.push(item);
  assert.match(JSON.stringify(items), /Say lantern/);
  const replay = o.responses.stream({ response_id: answer.id });
  assert.equal((await replay.finalResponse()).output_text, answer.output_text);
  await o.responses.delete(answer.id);
  await raises(OpenAI.NotFoundError, () => o.responses.retrieve(answer.id));
});

check('an abort in mid-stream is an error', async () => {
  const stream = o.responses.stream({ model: 'stalls', input: 'Tell a story.' });
  stream.on('response.output_text.delta', () => stream.abort());
  await raises(OpenAI.APIUserAbortError, () => stream.done());
});

check('a stream that broke is an error, and never given as finished', async () => {
  const kinds = [];
  for await (const event of await o.responses.create({ model: 'breaks', input: 'Tell a story.', stream: true })) kinds.push(event.type);
  assert.equal(kinds.at(-1), 'response.failed');
});

check('errors have their classes', async () => {
  const missing = await raises(OpenAI.NotFoundError, () => o.responses.create({ model: 'gpt-os', input: 'hi' }));
  assert.equal(missing.code, 'model_not_found');
  const gone = await raises(OpenAI.BadRequestError, () =>
    o.responses.create({ model: 'smollm2:135m', input: 'hi', previous_response_id: 'resp_none' }),
  );
  assert.equal(gone.code, 'previous_response_not_found');
});

check('a WebSocket has several turns, remembers what is not stored, and reports errors', async () => {
  const socket = new ResponsesWS(o);
  // Errors are also events of the stream.
  socket.on('error', () => {});
  const messages = socket.stream();
  const turn = async (request) => {
    socket.send({ type: 'response.create', model: 'smollm2:135m', store: false, ...request });
    for (;;) {
      const { value, done } = await messages.next();
      assert.ok(!done && value.type !== 'close', 'closed before the end of a turn');
      if (value.type === 'error') return value.error.error;
      if (value.type === 'message' && /^response\.(completed|incomplete|failed)$/.test(value.message.type)) {
        return value.message;
      }
    }
  };
  const first = await turn({ input: 'Say lantern.' });
  assert.equal(first.type, 'response.completed');
  assert.match(JSON.stringify(first.response.output), /lantern/);
  const second = await turn({ input: 'Say quarry.', previous_response_id: first.response.id });
  assert.match(JSON.stringify(second.response.output), /quarry/);
  assert.equal(second.response.previous_response_id, first.response.id);
  const unknown = await turn({ input: 'hi', previous_response_id: 'resp_unknown' });
  assert.equal(unknown.error.code, 'previous_response_not_found');
  socket.close();
});

await run();
