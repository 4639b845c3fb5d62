// Vercel's AI SDK (`ai` with `@ai-sdk/openai-compatible`): text and objects, whole and streamed, with tools that the SDK
// runs itself. Knows the SDK's results alone.

import { strict as assert } from "node:assert";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import {
  APICallError, Output, ToolLoopAgent, generateObject, generateText, jsonSchema, stepCountIs, streamObject, streamText,
  tool,
} from "ai";
import { z } from "zod";
import { collect, functions, main, refuses, sunny, timer, twoCities, validCall, weather } from "./support.mjs";

const light = z.object({ on: z.boolean(), colour: z.enum(["red", "green"]), level: z.int().min(0).max(100) });
const prompt = "Turn on the red light.";
// One tool by zod, one by the JSON Schema itself; without `execute`, so that the call is the result.
const { description } = functions.get_weather;
const get_weather = tool({ description, inputSchema: z.object({ city: z.string().describe("City name") }) });
const set_timer = tool({
  description: functions.set_timer.description,
  inputSchema: jsonSchema(functions.set_timer.parameters),
});
const tools = { get_weather, set_timer };
const running = { ...tools, get_weather: { ...get_weather, execute: async () => sunny } };

function callsOf({ toolCalls }) {
  assert(toolCalls.every((call) => call.toolCallId.startsWith("call_") && !call.invalid), JSON.stringify(toolCalls));
  return toolCalls.map((call) => validCall(call.toolName, call.input));
}

async function generated_calls({ model }) {
  for (const { text, call } of [weather, timer]) {
    const result = await generateText({ model, tools, prompt: text, temperature: 0 });
    assert.equal(result.finishReason, "tool-calls");
    assert.deepEqual(callsOf(result), [call]);
    assert.equal(result.usage.totalTokens, result.usage.inputTokens + result.usage.outputTokens);
  }
}

async function chosen_tools({ model }) {
  const request = { model, tools, prompt: weather.text, temperature: 0 };
  assert.notEqual(callsOf(await generateText({ ...request, toolChoice: "required" })).length, 0);
  const named = await generateText({ ...request, toolChoice: { type: "tool", toolName: "set_timer" } });
  assert(callsOf(named).every(([name]) => name === "set_timer"));
  const none = await generateText({ ...request, toolChoice: "none", maxOutputTokens: 40 });
  assert.deepEqual(none.toolCalls, []);
}

async function streamed_calls({ model }) {
  for (const prompt of [weather.text, twoCities]) {
    const request = { model, tools, prompt, temperature: 0 };
    const whole = callsOf(await generateText(request));
    const result = streamText(request);
    const parts = await collect(result.fullStream);
    const deltas = parts.filter((part) => part.type === "tool-input-delta");
    assert.deepEqual(callsOf({ toolCalls: await result.toolCalls }), whole);
    assert(deltas.length >= whole.length && !parts.some((part) => part.type === "error"), JSON.stringify(parts));
    assert.equal(await result.finishReason, "tool-calls");
    assert((await result.usage).totalTokens > 0);
  }
}

async function streamed_text({ model }) {
  const request = { model, prompt: "Hello!", temperature: 0 };
  const pieces = await collect(streamText(request).textStream);
  assert.equal(pieces.join(""), (await generateText(request)).text);
  assert(pieces.length > 1);
}

/** The SDK runs the tool and goes on until there is a text, whole and streamed. */
async function steps({ model }) {
  const request = { model, tools: running, prompt: weather.text, stopWhen: stepCountIs(3), temperature: 0 };
  const whole = await generateText(request);
  assert.deepEqual(whole.steps.map((step) => step.finishReason), ["tool-calls", "stop"]);
  assert.deepEqual(whole.steps[0].toolResults.map((result) => result.output), [sunny]);
  assert.match(whole.text, new RegExp(sunny.weather));
  const streamed = streamText(request);
  assert.equal((await collect(streamed.textStream)).join(""), whole.text);
  assert.equal((await streamed.steps).length, 2);
}

async function an_agent({ model }) {
  const agent = new ToolLoopAgent({ model, tools: running, stopWhen: stepCountIs(3), temperature: 0 });
  const result = await agent.generate({ prompt: weather.text });
  assert.match(result.text, new RegExp(sunny.weather));
}

/** Objects by `response_format` with the schema, whole and growing in a stream. */
async function generated_objects({ model }) {
  const request = { model, schema: light, prompt, temperature: 0 };
  const { object, finishReason } = await generateObject(request);
  assert.deepEqual(light.parse(object), object);
  assert.equal(finishReason, "stop");
  const streamed = streamObject(request);
  const parts = await collect(streamed.partialObjectStream);
  assert.deepEqual(parts.at(-1), object);
  assert.deepEqual(await streamed.object, object);
}

async function a_chosen_word({ model }) {
  const request = { model, output: "enum", enum: ["red", "green"], prompt, temperature: 0 };
  assert(["red", "green"].includes((await generateObject(request)).object));
}

async function output_beside_tools({ model }) {
  const { output } = await generateText({ model, output: Output.object({ schema: light }), prompt, temperature: 0 });
  assert.deepEqual(light.parse(output), output);
}

async function errors({ provider }) {
  const asked = generateText({ model: provider("nobody"), prompt, maxRetries: 0 });
  await refuses(asked, APICallError, { statusCode: 404, isRetryable: false });
}

async function completions({ provider, model }) {
  const plain = provider.completionModel(model.modelId);
  const request = { model: plain, prompt: "The weather in Paris is", maxOutputTokens: 12, temperature: 0 };
  const whole = await generateText(request);
  const pieces = await collect(streamText(request).textStream);
  assert.equal(pieces.join(""), whole.text);
  assert(whole.text && whole.usage.outputTokens <= 12);
}

const checks = [
  generated_calls, chosen_tools, streamed_calls, streamed_text, steps, an_agent, generated_objects, a_chosen_word,
  output_beside_tools, errors, completions,
];

await main(checks, (address, name) => {
  const options = { name: "callsmith", baseURL: `${address}/v1`, includeUsage: true, supportsStructuredOutputs: true };
  const provider = createOpenAICompatible(options);
  return { provider, model: provider(name) };
});
