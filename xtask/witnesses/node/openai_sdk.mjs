// The official openai package for JavaScript.

import assert from 'node:assert/strict';
import { File } from 'node:buffer';
import OpenAI, { toFile } from 'openai';
import { zodFunction, zodResponseFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import { Ollama } from 'ollama';
import { KEYED, OLDER, URL, WEATHER, check, raises, run } from './report.mjs';

// Node 18 has it, but not for all to see.
globalThis.File ??= File;

const CITY = z.object({ name: z.string(), inhabitants: z.number().int(), tags: z.array(z.string()) });

const client = ({ url = URL, key = 'unused', retries = 0 } = {}) =>
  new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: retries, timeout: 30_000 });
const user = (content) => [{ role: 'user', content }];
const o = client();

check('models are listed and retrieved', async () => {
  const names = [];
  for await (const model of o.models.list()) names.push(model.id);
  assert(names.includes('gpt-oss:20b'), names.join());
  const model = await o.models.retrieve('gpt-oss:20b');
  assert.deepEqual([model.id, model.object, model.owned_by], ['gpt-oss:20b', 'model', 'library']);
  assert(model.created > 0);
});

check('a model that does not exist is a NotFoundError that names the nearest', async () => {
  const error = await raises(OpenAI.NotFoundError, () =>
    o.chat.completions.create({ model: 'gpt-os', messages: user('hi') }),
  );
  assert.deepEqual([error.status, error.code, error.param, error.type], [404, 'model_not_found', 'model', 'invalid_request_error']);
  assert.match(error.message, /gpt-oss:20b/);
  assert.match(error.requestID, /^req_/);
});

check('a chat answers, with usage and thinking', async () => {
  const answer = await o.chat.completions.create({ model: 'gpt-oss:20b', messages: user('Say lantern.'), seed: 7 });
  const [choice] = answer.choices;
  assert.match(choice.message.content, /lantern/);
  assert.equal(choice.finish_reason, 'stop');
  assert(choice.message.reasoning_content);
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
});

check('the streaming helper emits content as it grows, and joins it', async () => {
  const stream = o.chat.completions.stream({
    model: 'smollm2:135m',
    messages: user('Say harbor.'),
    stream_options: { include_usage: true },
  });
  const seen = { chunks: 0, text: '', connect: 0, end: 0, contents: [] };
  stream.on('connect', () => (seen.connect += 1));
  stream.on('chunk', () => (seen.chunks += 1));
  stream.on('content', (delta, snapshot) => {
    seen.text += delta;
    assert.equal(snapshot, seen.text);
  });
  stream.on('finalContent', (text) => seen.contents.push(text));
  stream.on('end', () => (seen.end += 1));
  const final = await stream.finalChatCompletion();
  await stream.done();
  assert.match(seen.text, /harbor/);
  assert.equal(final.choices[0].message.content, seen.text);
  assert.equal(final.choices[0].finish_reason, 'stop');
  assert.deepEqual([seen.connect, seen.end, seen.contents], [1, 1, [seen.text]]);
  assert(seen.chunks > 5);
  assert.equal((await stream.totalUsage()).completion_tokens, final.usage.completion_tokens);
});

check('the streaming helper throws on a stream that broke, and never gives it as finished', async () => {
  const error = await o.chat.completions
    .stream({ model: 'breaks', messages: user('Tell a story.') })
    .finalChatCompletion()
    .then((final) => assert.fail(`it was given as finished: ${JSON.stringify(final)}`), (error) => error);
  assert(error instanceof OpenAI.OpenAIError && error.message, String(error));
});

check('the streaming helper understands tool calls', async () => {
  const stream = o.chat.completions.stream({ model: 'agent', messages: user('What is the weather in Paris?'), tools: [WEATHER] });
  const done = [];
  stream.on('tool_calls.function.arguments.done', (call) => done.push(call));
  const [choice] = (await stream.finalChatCompletion()).choices;
  assert.equal(choice.finish_reason, 'tool_calls');
  const [call] = choice.message.tool_calls;
  assert(call.id && call.function.name === 'get_weather');
  assert.equal(typeof JSON.parse(call.function.arguments).city, 'string');
  assert.equal(done.length, 1);
  assert.equal(done[0].arguments, call.function.arguments);
});

check('parse gives what zod asks for, whole and streamed', async () => {
  const ask = { model: 'smollm2:135m', messages: user('Describe Oslo.'), response_format: zodResponseFormat(CITY, 'city') };
  const whole = await o.chat.completions.parse(ask);
  assert.deepEqual(CITY.parse(whole.choices[0].message.parsed), whole.choices[0].message.parsed);
  const streamed = await o.chat.completions.stream(ask).finalChatCompletion();
  assert.deepEqual(CITY.parse(streamed.choices[0].message.parsed), streamed.choices[0].message.parsed);
});

check('parse throws LengthFinishReasonError where the tokens do not suffice', async () => {
  await raises(OpenAI.LengthFinishReasonError ?? (await import('openai/core/error')).LengthFinishReasonError, () =>
    o.chat.completions.parse({
      model: 'smollm2:135m',
      messages: user('Describe Oslo.'),
      response_format: zodResponseFormat(CITY, 'city'),
      max_completion_tokens: 3,
    }),
  );
});

check('runTools calls the function, and goes on with its result', async () => {
  for (const stream of [false, true]) {
    const asked = [];
    const runner = o.chat.completions.runTools({
      model: 'agent',
      stream,
      messages: user('What is the weather in Paris?'),
      tools: [
        zodFunction({
          name: 'get_weather',
          parameters: z.object({ city: z.string() }),
          function: ({ city }) => {
            asked.push(city);
            return '20 degrees';
          },
        }),
      ],
    });
    const final = await runner.finalContent();
    assert.equal(asked.length, 1, `the tool was called ${asked.length} times (stream: ${stream})`);
    assert.deepEqual(runner.messages.map((message) => message.role), ['user', 'assistant', 'tool', 'assistant']);
    assert(final);
  }
});

check('a forced tool is called', async () => {
  const [choice] = (
    await o.chat.completions.create({
      model: 'caller:135m',
      messages: user('Say hello.'),
      tools: [WEATHER],
      tool_choice: { type: 'function', function: { name: 'get_weather' } },
    })
  ).choices;
  assert.equal(choice.message.tool_calls[0].function.name, 'get_weather');
  assert.equal(typeof JSON.parse(choice.message.tool_calls[0].function.arguments).city, 'string');
});

check("embeddings come in the SDK's own base64 and as floats, alike", async () => {
  const input = ['one', 'two'];
  const based = await o.embeddings.create({ model: 'all-minilm', input });
  const floats = await o.embeddings.create({ model: 'all-minilm', input, encoding_format: 'float' });
  const native = await new Ollama({ host: URL }).embed({ model: 'all-minilm', input });
  for (const nth of [0, 1]) {
    assert.equal(based.data[nth].index, nth);
    assert.deepEqual(floats.data[nth].embedding, native.embeddings[nth]);
    assert.deepEqual([...based.data[nth].embedding], native.embeddings[nth].map(Math.fround));
  }
  assert(based.usage.prompt_tokens > 0);
});

check('completions answer, whole and streamed', async () => {
  const ask = { model: 'smollm2:135m', prompt: ['Say one.', 'Say two.'], max_tokens: 8 };
  const whole = await o.completions.create({ ...ask, echo: true });
  assert.deepEqual(whole.choices.map((choice) => choice.index), [0, 1]);
  assert(whole.choices[1].text.startsWith('Say two.'));
  const texts = ['', ''];
  for await (const chunk of await o.completions.create({ ...ask, stream: true })) {
    for (const choice of chunk.choices) texts[choice.index] += choice.text;
  }
  assert(texts.every((text) => text.length > 0));
});

check('a moderation has all thirteen categories, and judges by the model that is set', async () => {
  const { results } = await o.moderations.create({ input: ['A walk in the park.', 'How do I attack someone?'] });
  assert.deepEqual(results.map((result) => result.flagged), [false, true]);
  assert.equal(Object.keys(results[1].categories).length, 13);
  assert.equal(results[1].categories.violence, true);
});

check('images are rejected where the remote cannot generate them, and come from an older Ollama', async () => {
  const error = await raises(OpenAI.BadRequestError, () => o.images.generate({ model: 'smollm2:135m', prompt: 'a cat' }));
  assert.equal(error.param, 'model');
  const made = await client({ url: OLDER }).images.generate({ model: 'flux', prompt: 'a cat', response_format: 'b64_json' });
  assert.equal(Buffer.from(made.data[0].b64_json, 'base64').toString(), 'ABC');
});

check('an uploaded recording is transcribed and translated, as JSON and as text', async () => {
  const recording = () => toFile(Buffer.from('RIFF0000WAVE'), 'speech.wav');
  const heard = await o.audio.transcriptions.create({ model: 'gemma4:e4b', file: await recording(), prompt: 'names: Ann' });
  assert(heard.text);
  const text = await o.audio.transcriptions.create({ model: 'gemma4:e4b', file: await recording(), response_format: 'text' });
  assert(typeof text === 'string' && text.trim() && !text.startsWith('{'), JSON.stringify(text));
  assert((await o.audio.translations.create({ model: 'gemma4:e4b', file: await recording() })).text);
  const error = await raises(OpenAI.BadRequestError, async () =>
    o.audio.transcriptions.create({ model: 'smollm2:135m', file: await recording() }),
  );
  assert.match(error.message, /no audio input/);
});

check('bad input is a BadRequestError with its param', async () => {
  const error = await raises(OpenAI.BadRequestError, () =>
    o.chat.completions.create({ model: 'smollm2:135m', messages: user('hi'), temperature: 9 }),
  );
  assert.equal(error.param, 'temperature');
});

check('a wrong key is an AuthenticationError, and the right one passes', async () => {
  const error = await raises(OpenAI.AuthenticationError, () => client({ url: KEYED, key: 'wrong' }).models.list());
  assert.equal(error.code, 'invalid_api_key');
  assert((await client({ url: KEYED, key: 'plain-key' }).models.list()).data.length > 0);
});

check('a failing Ollama is an InternalServerError with its words, and asked again as often as the client likes', async () => {
  const error = await raises(OpenAI.InternalServerError, () => o.chat.completions.create({ model: 'fails', messages: user('hi') }));
  assert.match(error.message, /signal: killed/);
  // The script fails twice.
  const patient = client({ retries: 1 });
  assert((await patient.chat.completions.create({ model: 'fails', messages: user('Say moss.') })).choices.length);
});

check('too many requests are a RateLimitError, and a retry after the time they name is answered', async () => {
  const once = client({ url: KEYED, key: 'once-key' });
  const patient = client({ url: KEYED, key: 'once-key', retries: 1 });
  await once.models.list();
  const error = await raises(OpenAI.RateLimitError, () => once.models.list());
  assert(Number(error.headers.get('retry-after')) > 0);
  const start = performance.now();
  assert((await patient.models.list()).data.length > 0);
  assert(performance.now() - start > 200, 'it did not wait');
});

check('who aborts in mid-stream frees what it held', async () => {
  const single = client({ url: KEYED, key: 'single-key' });
  const stream = await single.chat.completions.create({ model: 'stalls', messages: user('Tell a story.'), stream: true });
  let chunks = 0;
  for await (const chunk of stream) {
    assert(chunk.choices);
    chunks += 1;
    stream.controller.abort();
  }
  assert(chunks > 0);
  const helper = single.chat.completions.stream({ model: 'stalls', messages: user('Tell a story.') });
  helper.on('content', () => helper.abort());
  await raises(OpenAI.APIUserAbortError, () => helper.done());
  assert((await single.chat.completions.create({ model: 'smollm2:135m', messages: user('Say moss.') })).choices.length);
});

check('the receipt is read from the raw response', async () => {
  const { data, response, request_id } = await o.chat.completions
    .create({ model: 'smollm2:135m', messages: user('Say moss.'), user: 'ann', n: 2 })
    .withResponse();
  const receipt = response.headers.get('x-farllama-receipt').split(', ');
  assert(receipt.includes('user=no-effect') && receipt.includes('n=emulated'), receipt.join());
  assert.equal(data.choices.length, 2);
  assert.match(request_id, /^req_/);
});

await run();
