#!/usr/bin/env node
// The official openai package for JavaScript against a running server on real models: what openai_clients.py checks.
//
// usage: openai_clients.mjs BASE_URL [--key KEY] [--only WORD]
//
// BASE_URL ends in /v1. The server must run already, on the starter models, with nobody else talking to it. Needs the
// package openai in the folder from which it is run (npm install openai), or in NODE_PATH.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import path from "node:path";

const require = createRequire(pathToFileURL(path.join(process.cwd(), "here.js")));
const OpenAI = require("openai").default ?? require("openai");

const FIRST_TOKEN_MILLIS = 1000;
const checks = [];
const check = (name, run) => checks.push({ name, run });
const user = (content) => [{ role: "user", content }];

const options = process.argv.slice(2);
const option = (name) => (options.includes(name) ? options.splice(options.indexOf(name), 2)[1] : undefined);
const key = option("--key");
const only = option("--only") ?? "";
const [baseURL] = options;
if (!baseURL) {
  console.error("usage: openai_clients.mjs BASE_URL [--key KEY] [--only WORD]");
  process.exit(2);
}
const client = new OpenAI({ baseURL, apiKey: key ?? "none", maxRetries: 0, timeout: 120_000 });

const chat = (more = {}) =>
  client.chat.completions.create({ model: "local", messages: user("Say hello."), max_tokens: 24, ...more });
const text = (more = {}) =>
  client.completions.create({ model: "local", prompt: "Once upon a time", max_tokens: 12, temperature: 0, ...more });

async function collected(stream) {
  const chunks = [];
  for await (const chunk of await stream) chunks.push(chunk);
  return chunks;
}

async function refused(errorClass, call, param) {
  const error = await call().then(() => null, (error) => error);
  assert(error instanceof errorClass, `${errorClass.name} expected: ${error}`);
  if (param) assert.equal(error.param, param, String(error));
  return error;
}

const weather = {
  type: "function",
  function: {
    name: "get_weather",
    description: "Tells the weather in a city.",
    parameters: { type: "object", properties: { city: { type: "string", maxLength: 20 } }, required: ["city"], additionalProperties: false },
  },
};
const person = {
  type: "object",
  properties: { name: { type: "string", maxLength: 12 }, age: { type: "integer", minimum: 0, maximum: 120 } },
  required: ["name", "age"],
  additionalProperties: false,
};

// Models

check("models_are_listed", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  for (const name of ["local", "whisper-1", "tts-1"]) assert(names.includes(name), names.join());
  for (const name of names) assert.equal((await client.models.retrieve(name)).id, name);
  await refused(OpenAI.NotFoundError, () => client.models.retrieve("no-such-model"), "model");
});

// Chat

check("chat_whole", async () => {
  const { data: answer, response } = await chat({ temperature: 0, max_tokens: 16 }).withResponse();
  assert.equal(answer.object, "chat.completion");
  assert.equal(response.headers.get("x-served-by"), answer.model);
  assert(answer.choices[0].message.content && answer.usage.completion_tokens <= 16);
  const again = await chat({ temperature: 0, max_tokens: 16 });
  assert.equal(again.choices[0].message.content, answer.choices[0].message.content);
  assert(again.usage.prompt_tokens_details.cached_tokens > 0);
});

check("chat_stream_is_the_whole_in_parts", async () => {
  const whole = (await chat({ temperature: 0 })).choices[0];
  const chunks = await collected(chat({ temperature: 0, stream: true, stream_options: { include_usage: true } }));
  assert.equal(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), whole.message.content);
  assert.equal(chunks[0].choices[0].delta.role, "assistant");
  assert(chunks.at(-1).choices.length === 0 && chunks.at(-1).usage.completion_tokens > 0);
});

check("chat_first_token_under_a_second", async () => {
  const times = [];
  for (let number = 0; number < 5; number += 1) {
    const begun = performance.now();
    const stream = await chat({ messages: user(`What is ${number} and ${number}?`), stream: true });
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta.content) break;
    }
    times.push(performance.now() - begun);
  }
  console.log(`    first token after ${times.map((millis) => millis.toFixed(0)).join(", ")} ms`);
  assert(Math.max(...times) < FIRST_TOKEN_MILLIS, times.join());
});

check("chat_stop_seed_and_choices", async () => {
  const story = { messages: user("Tell me a story about a fox."), max_tokens: 40, seed: 7, temperature: 1.2 };
  const one = (await chat(story)).choices[0].message.content;
  assert.equal((await chat(story)).choices[0].message.content, one);
  const stop = one.slice(8, 12);
  assert.equal((await chat({ ...story, stop })).choices[0].message.content, one.slice(0, one.indexOf(stop)));
  const several = await chat({ ...story, n: 3 });
  assert.deepEqual(several.choices.map((choice) => choice.index), [0, 1, 2]);
  const texts = ["", "", ""];
  for (const chunk of await collected(chat({ ...story, n: 3, stream: true }))) {
    for (const choice of chunk.choices) texts[choice.index] += choice.delta.content ?? "";
  }
  assert.deepEqual(texts, several.choices.map((choice) => choice.message.content));
  const endless = await chat({ max_completion_tokens: 12, max_tokens: undefined, ignore_eos: true });
  assert(endless.usage.completion_tokens === 12 && endless.choices[0].finish_reason === "length");
});

check("chat_logprobs", async () => {
  const choice = (await chat({ temperature: 0, logprobs: true, top_logprobs: 3, max_tokens: 8 })).choices[0];
  assert.equal(choice.logprobs.content.map((token) => token.token).join(""), choice.message.content);
  assert(choice.logprobs.content.every((token) => token.top_logprobs.length === 3));
});

check("chat_tools", async () => {
  const ask = { messages: user("What is the weather in Paris?"), tools: [weather], max_tokens: 80 };
  const choice = (await chat({ ...ask, tool_choice: "required", parallel_tool_calls: false })).choices[0];
  assert.equal(choice.finish_reason, "tool_calls");
  const call = choice.message.tool_calls[0];
  assert.equal(typeof JSON.parse(call.function.arguments).city, "string");
  const named = { type: "function", function: { name: "get_weather" } };
  const runner = client.chat.completions.stream({ model: "local", ...ask, tool_choice: named });
  const whole = await runner.finalChatCompletion();
  assert.equal(whole.choices[0].message.tool_calls[0].function.name, "get_weather");
  JSON.parse(whole.choices[0].message.tool_calls[0].function.arguments);
  const messages = [...ask.messages, { role: "assistant", tool_calls: [call] }, { role: "tool", tool_call_id: call.id, content: "Sunny." }];
  assert((await chat({ ...ask, messages })).choices[0].finish_reason);
});

check("chat_shapes", async () => {
  for (const strict of [true, false]) {
    const response_format = { type: "json_schema", json_schema: { name: "person", schema: person, strict } };
    const choice = (await chat({ messages: user("Describe Ann, who is 30."), response_format, max_tokens: 120 })).choices[0];
    const described = JSON.parse(choice.message.content);
    assert(typeof described.name === "string" && described.age >= 0 && described.age <= 120, choice.message.content);
  }
});

check("chat_stream_can_be_left", async () => {
  for (let number = 0; number < 20; number += 1) {
    const stream = await chat({ messages: user("Tell me a very long story."), max_tokens: 2000, stream: true, ignore_eos: true });
    for await (const _ of stream) break;
  }
  const begun = performance.now();
  await chat({ max_tokens: 4 });
  assert(performance.now() - begun < 5000);
});

// Completions

check("completions", async () => {
  const answer = await text({ logprobs: 2 });
  const choice = answer.choices[0];
  assert.equal(choice.logprobs.tokens.join(""), choice.text);
  const chunks = await collected(text({ stream: true, stream_options: { include_usage: true } }));
  assert.equal(chunks.map((chunk) => chunk.choices[0]?.text ?? "").join(""), choice.text);
  const exact = await text({ max_tokens: 30, ignore_eos: true, min_tokens: 30 });
  assert.equal(exact.usage.completion_tokens, 30);
  for (const [field, value] of [["echo", true], ["suffix", "end"], ["best_of", 2], ["prompt", [1, 2, 3]]]) {
    await refused(OpenAI.BadRequestError, () => text({ [field]: value }), field);
  }
});

// Errors

check("errors_have_their_classes", async () => {
  await refused(OpenAI.BadRequestError, () => chat({ temperature: 11 }), "temperature");
  await refused(OpenAI.BadRequestError, () => chat({ messages: [] }), "messages");
  await refused(OpenAI.BadRequestError, () => chat({ messages: [{ role: "king", content: "a" }] }), "messages[0].role");
  await refused(OpenAI.BadRequestError, () => chat({ messages: user("word ".repeat(50_000)), stream: true }), "messages");
  await refused(OpenAI.NotFoundError, () => chat({ model: "no-such-model" }), "model");
  const error = await refused(OpenAI.APIError, () => chat({ messages: user("x".repeat(3_000_000)) }));
  assert.equal(error.status, 413);
  if (key) {
    const wrong = new OpenAI({ baseURL, apiKey: "wrong", maxRetries: 0 });
    await refused(OpenAI.AuthenticationError, () => wrong.models.list());
  }
});

let failed = 0;
for (const { name, run } of checks.filter((one) => one.name.includes(only))) {
  const begun = performance.now();
  let outcome = "ok";
  try {
    await run();
  } catch (error) {
    failed += 1;
    outcome = `FAILED: ${error.stack.split("\n").slice(0, 4).join(" | ")}`;
  }
  console.log(`${name}: ${outcome} (${((performance.now() - begun) / 1000).toFixed(1)} s)`);
}
console.log(failed ? `${failed} failed` : "ok");
process.exit(failed ? 1 : 0);
