// OpenAI's Node SDK: chat completions with functions, structured answers and text, streamed and not, and its tool
// runner. Knows the SDK's own objects and helpers alone.

import { strict as assert } from "node:assert";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { collect, functions, main, refuses, sunny, timer, twoCities, validCall, weather } from "./support.mjs";

const tools = ["get_weather", "set_timer"].map((name) => ({ type: "function", function: { name, ...functions[name] } }));
const user = (content) => [{ role: "user", content }];
const light = z.object({ on: z.boolean(), colour: z.enum(["red", "green"]) });

function callsOf(message) {
  const calls = message.tool_calls ?? [];
  assert(calls.every((call) => call.type === "function" && call.id.startsWith("call_")), JSON.stringify(calls));
  assert.equal(new Set(calls.map((call) => call.id)).size, calls.length);
  return calls.map((call) => validCall(call.function.name, call.function.arguments));
}

async function a_call(client, model) {
  for (const { text, call } of [weather, timer]) {
    const answer = await client.chat.completions.create({ model, messages: user(text), tools, temperature: 0 });
    assert.equal(answer.choices[0].finish_reason, "tool_calls");
    assert.equal(answer.choices[0].message.content, null);
    assert.deepEqual(callsOf(answer.choices[0].message), [call]);
    assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
  }
}

async function forced_calls(client, model) {
  const request = { model, messages: user(weather.text), tools, temperature: 0 };
  const required = await client.chat.completions.create({ ...request, tool_choice: "required" });
  assert.notEqual(callsOf(required.choices[0].message).length, 0);
  const tool_choice = { type: "function", function: { name: "set_timer" } };
  const named = await client.chat.completions.create({ ...request, tool_choice });
  assert(callsOf(named.choices[0].message).every(([name]) => name === "set_timer"));
}

async function streamed_calls(client, model) {
  for (const text of [weather.text, twoCities]) {
    const request = { model, messages: user(text), tools, temperature: 0 };
    const whole = await client.chat.completions.create(request);
    const stream = client.chat.completions.stream({ ...request, stream_options: { include_usage: true } });
    const chunks = await collect(stream);
    const final = await stream.finalChatCompletion();
    assert(chunks.length > 3);
    assert.equal(final.choices[0].finish_reason, "tool_calls");
    assert.deepEqual(callsOf(final.choices[0].message), callsOf(whole.choices[0].message));
    // The second request finds more of its prompt in the cache.
    const { prompt_tokens_details: streamed, ...rest } = final.usage;
    const { prompt_tokens_details: asked, ...expected } = whole.usage;
    assert.deepEqual(rest, expected);
    assert(asked.cached_tokens <= streamed.cached_tokens && streamed.cached_tokens < final.usage.prompt_tokens);
  }
}

async function streamed_text(client, model) {
  const request = { model, messages: user("Hello!"), temperature: 0 };
  const whole = await client.chat.completions.create(request);
  const chunks = await collect(await client.chat.completions.create({ ...request, stream: true }));
  const text = chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join("");
  assert.equal(text, whole.choices[0].message.content);
  assert(text && chunks.every((chunk) => chunk.id === chunks[0].id));
}

/** The SDK calls our function, sends its result back and goes on until there is a text. */
async function run_tools(client, model) {
  for (const stream of [false, true]) {
    const cities = [];
    const get_weather = ({ city }) => (cities.push(city), sunny);
    const runner = client.chat.completions.runTools({
      model,
      stream,
      temperature: 0,
      messages: user(weather.text),
      tools: [{ type: "function", function: { ...tools[0].function, function: get_weather, parse: JSON.parse } }],
    });
    const text = await runner.finalContent();
    assert.deepEqual(cities, ["Paris"]);
    assert.deepEqual(runner.messages.map((message) => message.role), ["user", "assistant", "tool", "assistant"]);
    assert.match(text, new RegExp(sunny.weather));
  }
}

async function parsed_answers(client, model) {
  const response_format = zodResponseFormat(light, "light");
  const request = { model, messages: user("Turn on the red light."), response_format, temperature: 0 };
  const { parsed } = (await client.chat.completions.parse(request)).choices[0].message;
  assert.deepEqual(light.parse(parsed), parsed);
  const streamed = await client.chat.completions.stream(request).finalChatCompletion();
  assert.deepEqual(streamed.choices[0].message.parsed, parsed);
}

async function parsed_calls(client, model) {
  const parameters = z.object({ city: z.string().describe("City name") });
  const tool = zodFunction({ name: "get_weather", parameters, description: functions.get_weather.description });
  const request = { model, messages: user(weather.text), tools: [tool], temperature: 0 };
  const answer = await client.chat.completions.parse(request);
  assert.deepEqual(answer.choices[0].message.tool_calls[0].function.parsed_arguments, weather.call[1]);
}

/** A client that goes away in the middle of a stream; the next request is served as ever. */
async function an_aborted_stream(client, model) {
  const stream = await client.chat.completions.create({ model, messages: user("Hello!"), stream: true });
  for await (const chunk of stream) {
    assert.equal(chunk.object, "chat.completion.chunk");
    break;
  }
  await a_call(client, model);
}

async function concurrent_calls(client, model) {
  const asked = Array.from({ length: 12 }, (_, index) => (index % 2 ? weather : timer));
  const answers = await Promise.all(
    asked.map(({ text }) => client.chat.completions.create({ model, messages: user(text), tools, temperature: 0 })),
  );
  assert.deepEqual(answers.map((answer) => callsOf(answer.choices[0].message)), asked.map(({ call }) => [call]));
}

async function errors(client, model) {
  const ask = (options) => client.chat.completions.create({ model, messages: user("Hello!"), ...options });
  const bad = { type: "function", function: { name: "bad", parameters: { type: "object", properties: { x: { type: "text" } } } } };
  await refuses(ask({ model: "nobody" }), OpenAI.NotFoundError, { code: "model_not_found", param: "model" });
  await refuses(ask({ tools: [bad] }), OpenAI.BadRequestError, { param: "tools[0].function.parameters" });
  await refuses(ask({ temperature: 3 }), OpenAI.BadRequestError, { code: "decimal_above_max_value" });
  await refuses(ask({ stream: true, tool_choice: "required" }), OpenAI.BadRequestError, { param: "tool_choice" });
}

async function models(client, model) {
  const listed = await collect(client.models.list());
  assert.equal(listed[0].id, model);
  assert.deepEqual(await client.models.retrieve(model), listed[0]);
}

const checks = [
  a_call, forced_calls, streamed_calls, streamed_text, run_tools, parsed_answers, parsed_calls, an_aborted_stream,
  concurrent_calls, errors, models,
];
await main(checks, (address) => new OpenAI({ baseURL: `${address}/v1`, apiKey: "none", maxRetries: 0 }));
