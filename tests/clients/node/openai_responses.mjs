// OpenAI's Node SDK: the Responses API with functions, structured answers and text, streamed and not, kept and not.
// Knows the SDK's objects and its accumulator alone; the order of events is checked by ../openai_responses.py.

import { strict as assert } from "node:assert";
import OpenAI from "openai";
import { zodResponsesFunction, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { collect, functions, main, refuses, sunny, timer, twoCities, validCall, weather } from "./support.mjs";

const tools = ["get_weather", "set_timer"].map((name) => ({ type: "function", strict: true, name, ...functions[name] }));
const light = z.object({ on: z.boolean(), colour: z.enum(["red", "green"]) });

function callsOf(response) {
  const calls = response.output.filter((item) => item.type === "function_call");
  assert(calls.every((call) => call.call_id.startsWith("call_") && call.status === "completed"), JSON.stringify(calls));
  return calls.map((call) => validCall(call.name, call.arguments));
}

const resultsOf = (response) =>
  response.output
    .filter((item) => item.type === "function_call")
    .map(({ call_id }) => ({ type: "function_call_output", call_id, output: JSON.stringify(sunny) }));

async function text(client, model) {
  const response = await client.responses.create({ model, input: "Hello!", temperature: 0 });
  assert.equal(response.status, "completed");
  assert(response.output_text.length > 0);
  assert.equal(response.usage.total_tokens, response.usage.input_tokens + response.usage.output_tokens);
}

async function calls(client, model) {
  for (const { text, call } of [weather, timer]) {
    const response = await client.responses.create({ model, input: text, tools, temperature: 0 });
    assert.deepEqual(callsOf(response), [call]);
  }
}

async function streamed_calls(client, model) {
  for (const input of [weather.text, twoCities]) {
    const request = { model, input, tools, temperature: 0 };
    const whole = await client.responses.create(request);
    const stream = client.responses.stream(request);
    const deltas = [];
    stream.on("response.function_call_arguments.delta", (event) => deltas.push(event.delta));
    const final = await stream.finalResponse();
    assert.deepEqual(callsOf(final), callsOf(whole));
    assert.equal(deltas.join(""), final.output.map((item) => item.arguments).join(""));
  }
}

async function streamed_text(client, model) {
  const request = { model, input: "Hello!", temperature: 0 };
  const whole = await client.responses.create(request);
  const events = await collect(await client.responses.create({ ...request, stream: true }));
  const deltas = events.filter((event) => event.type === "response.output_text.delta");
  assert.equal(deltas.map((event) => event.delta).join(""), whole.output_text);
  assert.deepEqual(events.map((event) => event.sequence_number), events.map((_, index) => index));
  assert.equal(events.at(-1).type, "response.completed");
}

/** Call, result, answer: by sending all items back, and by naming the response before. */
async function conversations(client, model) {
  const first = await client.responses.create({ model, input: weather.text, tools, temperature: 0 });
  const results = resultsOf(first);
  const items = [{ role: "user", content: weather.text }, ...first.output, ...results];
  const sent = await client.responses.create({ model, input: items, tools, temperature: 0 });
  const named = { model, previous_response_id: first.id, input: results, tools, temperature: 0 };
  const kept = await client.responses.create(named);
  assert.match(sent.output_text, new RegExp(sunny.weather));
  assert.equal(kept.output_text, sent.output_text);
}

async function kept_responses(client, model) {
  const kept = await client.responses.create({ model, input: weather.text, tools, temperature: 0 });
  const read = await client.responses.retrieve(kept.id);
  assert.deepEqual([read.id, read.output], [kept.id, kept.output]);
  await client.responses.delete(kept.id);
  await refuses(client.responses.retrieve(kept.id), OpenAI.NotFoundError);
}

async function parsed_answers(client, model) {
  const request = { model, input: "Turn on the red light.", text: { format: zodTextFormat(light, "light") } };
  const { output_parsed } = await client.responses.parse({ ...request, temperature: 0 });
  assert.deepEqual(light.parse(output_parsed), output_parsed);
  const streamed = await client.responses.stream({ ...request, temperature: 0 }).finalResponse();
  assert.deepEqual(streamed.output_parsed, output_parsed);
}

async function parsed_calls(client, model) {
  const parameters = z.object({ city: z.string().describe("City name") });
  const { description } = functions.get_weather;
  const tool = zodResponsesFunction({ name: "get_weather", parameters, description });
  const response = await client.responses.parse({ model, input: weather.text, tools: [tool], temperature: 0 });
  assert.deepEqual(response.output[0].parsed_arguments, weather.call[1]);
}

async function errors(client, model) {
  const ask = (options) => client.responses.create({ model, input: "Hello!", ...options });
  await refuses(ask({ model: "nobody" }), OpenAI.NotFoundError, { code: "model_not_found", param: "model" });
  await refuses(ask({ tool_choice: "required" }), OpenAI.BadRequestError, { param: "tool_choice" });
  await refuses(ask({ temperature: 3, stream: true }), OpenAI.BadRequestError, { code: "decimal_above_max_value" });
}

const checks = [
  text, calls, streamed_calls, streamed_text, conversations, kept_responses, parsed_answers, parsed_calls, errors,
];
await main(checks, (address) => new OpenAI({ baseURL: `${address}/v1`, apiKey: "none", maxRetries: 0 }));
