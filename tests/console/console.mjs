// The console's behaviour, as a person meets it: `console.mjs BINARY` (tests/console/run prepares what it needs).
// Drives the page and looks at what it shows and sends. Knows nothing of how the page is made but its elements' ids.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { scratch, Stage, startBrowser, startServer, writeAdapter } from './stage.mjs';

const binary = process.argv[2];
const PARIS = 'What is the weather in Paris?';
const HTML = '<b>bold</b><script>window.broken = 1</script><img src="x" onerror="window.broken = 1">';

const tool = (name, properties) => ({
  type: 'function',
  function: { name, parameters: { type: 'object', properties, required: Object.keys(properties) } },
});
const WEATHER = tool('get_weather', { city: { type: 'string' } });
/** An answer long enough to watch, and to stop. */
const COUNT = tool('count', { numbers: { type: 'array', items: { type: 'integer' }, minItems: 200 } });

async function readme_question({ stage }) {
  await stage.find('#choice').selectOption('required');
  await stage.ask(PARIS);
  assert.equal(await stage.text('.turn .badge >> nth=0'), 'validated by the server');
  assert.equal(await stage.text('.call code'), 'get_weather');
  assert.deepEqual(JSON.parse(await stage.text('.call pre')), { city: 'Paris' });
  assert.match(await stage.text('.call pre'), /^\{\n {2}"city"/, 'the arguments are printed nicely');
  assert.equal(await stage.text('.call .badge'), 'JSON, validated');
  assert.match(await stage.text('.turn .facts'),
    /^\d+ prompt \+ \d+ completion tokens · first after \d+ ms · \d+ tokens\/s/);
  assert.match(await stage.text('#status'), /validated by the server/);
  const [{ tool_choice: choice, temperature, max_completion_tokens: limit, tools }] = stage.asked;
  assert.deepEqual([choice, temperature, limit, tools.length], ['required', 0, null, 2]);
}

async function text_arrives_piece_by_piece({ stage }) {
  await stage.setTools([COUNT]);
  await stage.find('#choice').selectOption('function count');
  await stage.page.evaluate(() => {
    const lengths = window.lengths = new Set();
    const look = () => lengths.add(document.querySelector('.call pre')?.textContent.length ?? 0);
    new MutationObserver(look).observe(document.getElementById('log'), { subtree: true, childList: true });
  });
  await stage.ask('Count.');
  assert.ok(await stage.page.evaluate(() => window.lengths.size) > 20);
  assert.deepEqual(stage.asked[0].tool_choice, { type: 'function', function: { name: 'count' } });
}

/** The page marks what the server itself says of the same answer. */
async function forced_tokens_are_marked({ stage, address }) {
  await stage.setTools([WEATHER]);
  await stage.ask(PARIS);
  const body = JSON.stringify({ ...stage.asked[0], stream: false, stream_options: undefined });
  const headers = { 'content-type': 'application/json' };
  const answer = await (await fetch(`${address}/v1/chat/completions`, { method: 'POST', headers, body })).json();
  const { tokens } = answer.choices[0];
  const shown = await stage.find('.strip span').evaluateAll(spans =>
    spans.map(span => ({ text: span.textContent, forced: span.classList.contains('forced') })));
  assert.deepEqual(shown, tokens.map(({ text, forced }) => ({ text, forced })));
  const forced = tokens.filter(token => token.forced).length;
  assert.ok(forced > 0 && forced < tokens.length, `${forced} of ${tokens.length} are forced`);
  assert.ok((await stage.text('.turn .facts')).includes(`${forced} forced (`));
  assert.ok(await stage.find('.legend').isVisible());
  const colours = await stage.find('.strip').evaluate(strip => ['.forced', ':not(.forced)'].map(kind =>
    getComputedStyle(strip.querySelector(kind)).backgroundColor));
  assert.notEqual(colours[0], colours[1]);
}

async function tokens_that_are_not_told_are_not_shown({ stage }) {
  await stage.pretend([{ choices: [{ index: 0, delta: { content: 'Hello.' }, finish_reason: 'stop' }] }]);
  await stage.ask('Hello!');
  assert.equal(await stage.text('.turn .answer'), 'Hello.');
  assert.equal(await stage.find('.legend').isVisible(), false);
}

async function result_continues_the_conversation({ stage }) {
  await stage.ask(PARIS);
  // The call waits: another message is not sent before it has a result.
  await stage.find('#message').fill('And in Rome?');
  await stage.find('#send').click();
  assert.equal(stage.asked.length, 1);
  assert.equal(await stage.text('#status'), 'First a result for each call, please.');
  await stage.find('#choice').selectOption('none');
  await stage.find('.call textarea').fill('18 degrees and sunny');
  await stage.page.keyboard.press('Control+Enter');
  await stage.answered(2);
  const [user, call, result] = stage.asked[1].messages;
  assert.deepEqual(user, { role: 'user', content: PARIS });
  assert.equal(call.tool_calls[0].function.arguments, '{"city":"Paris"}');
  assert.deepEqual(result, { role: 'tool', tool_call_id: call.tool_calls[0].id, content: '18 degrees and sunny' });
  assert.notEqual(await stage.text('.turn .answer'), '');
  assert.equal(await stage.text('.turn .badge'), 'finished: stop');
  await stage.find('#send').click();
  await stage.answered(3);
  const roles = stage.asked[2].messages.map(message => message.role);
  assert.deepEqual(roles, ['user', 'assistant', 'tool', 'assistant', 'user']);
  await stage.find('#clear').click();
  assert.equal(await stage.find('#log > *').count(), 0);
  await stage.ask(PARIS);
  assert.equal(stage.asked[3].messages.length, 1);
}

async function every_call_needs_its_result({ stage }) {
  const call = (index, city) => ({ index, id: `call_${city}`, type: 'function',
    function: { name: 'get_weather', arguments: JSON.stringify({ city }) } });
  const choice = (delta, finish_reason = null) => ({ choices: [{ index: 0, delta, finish_reason }] });
  await stage.pretend([choice({ role: 'assistant', content: null }),
    choice({ tool_calls: [call(0, 'Paris'), call(1, 'Rome')] }), choice({}, 'tool_calls')]);
  await stage.ask('Paris and Rome?');
  assert.equal(await stage.find('.call form').count(), 2);
  await stage.find('.call textarea').last().fill('hot');
  await stage.find('.call button').last().click();
  assert.equal(stage.asked.length, 1, 'one call is still without a result');
  await stage.find('.call textarea').fill('mild');
  await stage.find('.call button').click();
  await stage.answered(2);
  const results = stage.asked[1].messages.slice(2).map(message => [message.tool_call_id, message.content]);
  assert.deepEqual(results, [['call_Rome', 'hot'], ['call_Paris', 'mild']]);
}

async function bad_tools_are_not_sent({ stage }) {
  for (const tools of ['[{"type": ', '{"name": "f"}', '[{"type": "function"}]']) {
    await stage.setTools(tools);
    assert.match(await stage.text('#tools-problem'), /^These tools cannot be sent: ./);
    await stage.find('#send').click();
  }
  await stage.find('summary', { hasText: 'Request' }).click();
  await stage.find('#tools').waitFor({ state: 'hidden' });
  await stage.find('#send').click();
  await stage.find('#tools').waitFor({ state: 'visible' });
  assert.equal(stage.asked.length, 0);
  assert.equal(await stage.find('#message').inputValue(), PARIS, 'the message is kept');
  await stage.setTools([WEATHER]);
  assert.equal(await stage.text('#tools-problem'), '');
  await stage.find('#send').click();
  await stage.answered(1);
  await stage.setTools('');
  await stage.find('#clear').click();
  await stage.ask('Hello!');
  assert.ok(!('tools' in stage.asked[1] || 'tool_choice' in stage.asked[1]));
}

async function refusal_of_the_server_is_shown({ stage }) {
  await stage.setTools([tool('f', { a: { type: 'string', pattern: '(?=a)b' } })]);
  await stage.ask(PARIS);
  assert.match(await stage.text('.turn .problem'), /^400 invalid_function_parameters: .*function 'f'.*`pattern`/);
  assert.equal(await stage.text('.turn .badge'), 'not valid');
  await stage.setTools([WEATHER]);
  await stage.find('.retry').click();
  await stage.answered(1);
  assert.equal(await stage.text('.call .badge'), 'JSON, validated');
  assert.deepEqual(stage.asked[1].messages, [{ role: 'user', content: PARIS }]);
}
refusal_of_the_server_is_shown.allowed = [400];

async function stop_ends_the_answer({ stage, address }) {
  const line = /requests_total\{.*"cancelled"\} (\d+)/;
  const cancelled = async () => Number((await (await fetch(`${address}/metrics`)).text()).match(line)?.[1] ?? 0);
  const before = await cancelled();
  await stage.setTools([COUNT]);
  await stage.find('#choice').selectOption('required');
  for (const stop of ['#stop', 'Escape']) {
    await stage.find('#clear').click();
    // From inside the page, so that the answer cannot end before it is stopped.
    await stage.page.evaluate(stop => new MutationObserver((changes, observer) => {
      if (!document.querySelector('.call pre')?.textContent) return;
      observer.disconnect();
      if (stop === 'Escape') document.body.dispatchEvent(new KeyboardEvent('keydown', { key: stop, bubbles: true }));
      else document.querySelector(stop).click();
    }).observe(document.getElementById('log'), { subtree: true, childList: true }), stop);
    await stage.ask('Count.');
    assert.match(await stage.text('.turn .problem'), /^Stopped\./);
    assert.equal(await stage.text('.call .badge'), 'not JSON, not valid');
    assert.ok(await stage.find('#send').isVisible());
    assert.equal(await stage.find('.call form').isVisible(), false);
  }
  await until(async () => await cancelled() === before + 2, 'the server ends both answers');
}

async function cut_answer_is_not_valid({ stage }) {
  await stage.find('#choice').selectOption('required');
  await stage.find('#limit').fill('14');
  await stage.setTools([COUNT]);
  await stage.ask('Count.');
  assert.match(await stage.text('.turn .problem'), /^Cut at the token limit/);
  assert.equal(await stage.text('.call .badge'), 'not JSON, not valid');
  assert.equal(stage.asked[0].max_completion_tokens, 14);
}

async function error_in_the_stream_is_shown({ stage }) {
  const call = { index: 0, id: 'call_1', type: 'function', function: { name: 'f', arguments: '{}' } };
  const delta = { tool_calls: [call] };
  const error = { message: 'The model said nonsense.', type: 'server_error', param: null, code: 'output_invalid' };
  await stage.pretend([{ choices: [{ index: 0, delta, finish_reason: null }] }, { error }]);
  await stage.ask(PARIS);
  assert.match(await stage.text('.turn .problem'), /^output_invalid: The model said nonsense\./);
  assert.equal(await stage.text('.call .badge'), 'JSON, not valid');
  await stage.pretend([{ choices: [{ index: 0, delta, finish_reason: null }] }]);
  await stage.find('.retry').click();
  await stage.answered(1);
  assert.match(await stage.text('.turn .problem'), /^The stream broke off\./);
}

async function markup_is_text({ stage }) {
  await stage.setTools([tool('say', { text: { enum: [HTML] } })]);
  await stage.find('#choice').selectOption('required');
  await stage.ask(HTML);
  assert.equal(await stage.text('.user'), HTML);
  assert.equal(JSON.parse(await stage.text('.call pre')).text, HTML, 'the model said it');
  await stage.find('.call textarea').fill(HTML);
  const error = { message: HTML, type: 'server_error', param: null, code: HTML };
  const delta = { content: HTML, reasoning_content: HTML };
  await stage.pretend([{ choices: [{ index: 0, delta, tokens: [{ id: 1, text: HTML, forced: true }] }] }, { error }]);
  await stage.find('.call button').click();
  await stage.answered(2);
  for (const place of ['.answer', '.thoughts', '.strip', '.problem']) {
    assert.ok((await stage.text(`.turn ${place}`)).includes(HTML), place);
  }
  assert.equal(await stage.find('#log :is(b, script, img)').count(), 0);
  assert.equal(await stage.page.evaluate(() => window.broken), undefined);
}

async function adapters_come_and_go({ stage, address }) {
  const models = () => stage.find('#model option').allTextContents();
  const load = async (name, path, replace, outcome) => {
    await stage.find('#lora-name').fill(name);
    await stage.find('#lora-path').fill(path);
    await stage.find('#lora-replace').setChecked(replace);
    await stage.find('#load button').click();
    await until(async () => outcome.test(await stage.text('#adapter-problem')), `loading ${path} says ${outcome}`);
  };
  const generation = async () => (await stage.text('#adapters li')).match(/rank 2 .* generation (\w+)/)?.[1];
  const [base] = await models();
  await load('tiny', 'nowhere', false, /^404 adapter_file_not_found: /);
  await load('tiny', 'one', false, /^$/);
  await until(async () => (await models()).join() === `${base},tiny (adapter)`, 'the adapter can be chosen');
  const first = await generation();
  await load('tiny', 'two', false, /^409 lora_adapter_already_loaded: /);
  await load('tiny', 'two', true, /^$/);
  await until(async () => await generation() !== first, 'another generation');

  await stage.find('#adapters button', { hasText: 'Use' }).click();
  await stage.ask(PARIS);
  assert.equal(stage.asked[0].model, 'tiny');
  assert.equal(await stage.text('.turn h2 span >> nth=0'), 'tiny');
  assert.equal(await stage.text('.call .badge'), 'JSON, validated');

  await stage.page.getByRole('button', { name: 'Pin tiny', exact: true }).press('Enter');
  const unpin = stage.page.getByRole('button', { name: 'Unpin tiny' });
  await unpin.waitFor();
  assert.ok(await unpin.evaluate(button => button === document.activeElement), 'the keyboard keeps its place');
  // Somebody else's change is seen, too.
  await unload(address, 'tiny');
  await until(async () => (await models()).length === 1, 'the adapter is gone');
  await load('tiny', 'one', false, /^$/);
  await stage.page.getByRole('button', { name: 'Unload tiny' }).click();
  await until(async () => (await models()).length === 1, 'the adapter is gone again');
  assert.equal(await stage.find('#adapters li').count(), 0);
}
adapters_come_and_go.allowed = [404, 409];

async function gauges_move({ stage }) {
  const gauge = name => stage.find('#gauges > div', { hasText: name });
  const value = name => gauge(name).locator('b').textContent();
  await until(async () => await value('Tokens/s') === '0', 'two readings');
  await stage.setTools([COUNT]);
  await stage.find('#choice').selectOption('required');
  await stage.ask('Count.');
  await until(async () => Number(await value('Tokens/s')) > 0, 'tokens are counted');
  const points = await gauge('Tokens/s').locator('polyline').getAttribute('points');
  const heights = points.split(' ').map(point => point.split(',')[1]);
  assert.ok(new Set(heights).size > 1, `a line that moves: ${heights}`);
  assert.match(await value('Grammar cache hits'), /^\d+(\.\d)? %$/);
  assert.match(await value('Adapter memory'), / [KM]iB$/);
  assert.equal(await value('Violations'), '0');
}

async function key_is_sent_and_kept_for_the_tab({ stage, browser, address }) {
  await stage.find('#key').fill('sesame');
  await stage.find('#refresh').click();
  await stage.ask(PARIS);
  assert.equal(stage.keys[0], undefined);
  assert.equal(stage.keys.at(-1), 'Bearer sesame');
  await stage.page.reload();
  assert.equal(await stage.find('#key').inputValue(), 'sesame');
  assert.deepEqual(await stage.page.evaluate(() => [localStorage.length, document.cookie]), [0, '']);
  const other = await Stage.open(browser, address);
  assert.equal(await other.find('#key').inputValue(), '');
  await other.close();
}

async function form_fits_every_width_and_has_names({ stage }) {
  const background = () => stage.page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  await stage.page.emulateMedia({ colorScheme: 'light' });
  const light = await background();
  await stage.page.emulateMedia({ colorScheme: 'dark' });
  assert.notEqual(await background(), light);
  await stage.ask(`${'x'.repeat(300)} ${PARIS}`);
  for (const width of [1440, 1000, 600, 340]) {
    await stage.page.setViewportSize({ width, height: 800 });
    const tooWide = await stage.find('html, .scroll').evaluateAll(elements => elements
      .filter(element => element.scrollWidth > element.clientWidth).map(element => element.outerHTML.slice(0, 60)));
    assert.deepEqual(tooWide, [], `${width} pixels`);
  }
  const nameless = await stage.find('input, select, textarea, button').evaluateAll(controls => controls
    .filter(control => !(control.ariaLabel || control.labels?.length || control.matches('button:not(:empty)')))
    .map(control => control.outerHTML));
  assert.deepEqual(nameless, []);
}

/** A server that wants keys shows nothing without one, the models with an API key, and all with an admin key. */
async function key_opens_a_locked_server({ browser }) {
  const address = await startConsole('--api-key', 'sesame', '--admin-key', 'poppy', '--protect-metrics');
  const stage = await Stage.open(browser, address, [401, 403]);
  const says = (place, text) => until(async () => (await stage.text(place)).startsWith(text), `${place} says ${text}`);
  const enter = async key => {
    await stage.find('#key').fill(key);
    await stage.find('#key').press('Tab');
  };
  for (const place of ['#server', '#adapter-total', '#gauges-problem']) await says(place, '401 invalid_api_key: ');
  await enter('sesame');
  await says('#adapter-total', '403 insufficient_permissions: ');
  assert.equal(await stage.text('#server'), '');
  await stage.ask(PARIS);
  assert.equal(await stage.text('.call .badge'), 'JSON, validated');
  await enter('poppy');
  await says('#adapter-total', '0 loaded');
  await stage.close();
}

async function unload(address, name) {
  const headers = { 'content-type': 'application/json' };
  const body = JSON.stringify({ lora_name: name });
  const answer = await fetch(`${address}/v1/unload_lora_adapter`, { method: 'POST', headers, body });
  assert.equal(answer.status, 200);
}

async function until(holds, what) {
  for (const end = Date.now() + 15_000; !await holds();) {
    assert.ok(Date.now() < end, `waited in vain: ${what}`);
    await new Promise(done => setTimeout(done, 50));
  }
}

const checks = [
  readme_question, text_arrives_piece_by_piece, forced_tokens_are_marked, tokens_that_are_not_told_are_not_shown,
  result_continues_the_conversation, every_call_needs_its_result, bad_tools_are_not_sent,
  refusal_of_the_server_is_shown, stop_ends_the_answer, cut_answer_is_not_valid, error_in_the_stream_is_shown,
  markup_is_text, adapters_come_and_go, gauges_move, key_is_sent_and_kept_for_the_tab, key_opens_a_locked_server,
  form_fits_every_width_and_has_names,
];

/** A server with the console at `/`. */
async function startConsole(...options) {
  const address = await startServer(binary, ...options);
  const response = await fetch(`${address}/`);
  assert.match(response.headers.get('content-type') ?? '', /^text\/html/, 'the server has no page at /');
  return address;
}

/** Runs one check on a fresh page; returns whether it passed. */
async function run(check, browser, address) {
  const stage = await Stage.open(browser, address, check.allowed);
  const began = Date.now();
  try {
    await until(async () => await stage.find('#model option').count() > 0, 'the models are listed');
    await check({ stage, browser, address });
    await stage.close();
    console.log(`test ${check.name} ... ok (${Date.now() - began} ms)`);
    return true;
  } catch (error) {
    console.log(`test ${check.name} ... FAILED\n${error.stack}\n${stage.troubles.join('\n')}`);
    await stage.page.close();
    return false;
  }
}

const root = scratch();
writeAdapter(join(root, 'one'), 1);
writeAdapter(join(root, 'two'), 2);
const address = await startConsole('--adapter-root', root);
const browser = await startBrowser();
const chosen = checks.filter(check => check.name.includes(process.argv[3] ?? ''));
let passed = 0;
for (const check of chosen) passed += await run(check, browser, address);
await browser.close();
const failed = chosen.length - passed;
console.log(`test result: ${failed ? 'FAILED' : 'ok'}. ${passed} passed; ${failed} failed; 0 ignored`);
process.exit(failed ? 1 : 0);
