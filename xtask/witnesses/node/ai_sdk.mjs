// Vercel's AI SDK with its provider for what is compatible with OpenAI: a client that shares no code with the official ones.

import assert from 'node:assert/strict';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, Output, embedMany, generateText, stepCountIs, streamText, tool } from 'ai';
import { z } from 'zod';
import { URL, check, run } from './report.mjs';

const farllama = createOpenAICompatible({
  name: 'farllama',
  baseURL: `${URL}/v1`,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const CITY = z.object({ name: z.string(), inhabitants: z.number().int() });

check('a text streams, with usage and its reason to end', async () => {
  const answer = streamText({ model: farllama('smollm2:135m'), prompt: 'Say harbor.', maxRetries: 0 });
  let text = '';
  for await (const piece of answer.textStream) text += piece;
  assert.match(text, /harbor/);
  assert.equal(await answer.finishReason, 'stop');
  assert((await answer.usage).outputTokens > 0);
});

check('thinking is separate from the text', async () => {
  const answer = await generateText({ model: farllama('gpt-oss:20b'), prompt: 'Say lantern.', maxRetries: 0 });
  assert.match(answer.text, /lantern/);
  assert(answer.reasoningText);
});

check('a tool is called in a stream, and its result answered', async () => {
  const asked = [];
  const answer = streamText({
    model: farllama('agent'),
    prompt: 'What is the weather in Paris?',
    maxRetries: 0,
    stopWhen: stepCountIs(3),
    tools: {
      get_weather: tool({
        description: 'Weather of a city',
        inputSchema: z.object({ city: z.string() }),
        execute: async ({ city }) => {
          asked.push(city);
          return { degrees: 20 };
        },
      }),
    },
  });
  const text = await answer.text;
  assert.equal(asked.length, 1);
  assert.deepEqual((await answer.steps).map((step) => step.finishReason), ['tool-calls', 'stop']);
  assert(text);
});

check('an object satisfies its schema', async () => {
  const { output } = await generateText({
    model: farllama('smollm2:135m'),
    prompt: 'Describe Oslo.',
    maxRetries: 0,
    output: Output.object({ schema: CITY }),
  });
  assert.deepEqual(CITY.parse(output), output);
});

check('embeddings come as many as texts', async () => {
  const { embeddings } = await embedMany({ model: farllama.textEmbeddingModel('all-minilm'), values: ['one', 'two'], maxRetries: 0 });
  assert.deepEqual(embeddings.map((vector) => vector.length), [384, 384]);
});

check('an error has its message and its status', async () => {
  const error = await generateText({ model: farllama('gpt-os'), prompt: 'hi', maxRetries: 0 }).then(
    () => assert.fail('no error came'),
    (error) => error,
  );
  assert(APICallError.isInstance(error), String(error));
  assert.equal(error.statusCode, 404);
  assert.match(error.message, /gpt-oss:20b/);
});

check('a stream that broke is an error, and not an end', async () => {
  const errors = [];
  const answer = streamText({ model: farllama('breaks'), prompt: 'Tell a story.', maxRetries: 0, onError: ({ error }) => errors.push(error) });
  await answer.consumeStream();
  assert.equal(errors.length, 1);
  assert.notEqual(await Promise.resolve(answer.finishReason).catch(() => 'error'), 'stop');
});

await run();
