// The console in a real browser: Chromium, driven by playwright-core, against farllama on two mocks.

import assert from 'node:assert/strict';
import { spawn, execFile } from 'node:child_process';
import { mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { chromium } from 'playwright-core';
import { check, run } from './report.mjs';

const PATIENCE = 10_000;
const HOSTILE = '<img src=x onerror="window.hacked=true">';
const { WITNESS_BINARIES: binaries, WITNESS_CHROMIUM: browserPath, WITNESS_SCREENSHOTS: screenshots } = process.env;
const folder = await mkdtemp(join(tmpdir(), 'console-'));

const children = [];
process.on('exit', () => children.forEach((child) => child.kill('SIGKILL')));

/** Starts a program, and waits for a line that `found` makes something of. */
function start(program, args, stream, found) {
  const child = spawn(join(binaries, program), args, { stdio: ['ignore', 'pipe', 'pipe'], env: { HOME: folder } });
  children.push(child);
  return new Promise((done, failed) => {
    let text = '';
    child[stream].on('data', (data) => {
      text += data;
      const value = found(text);
      if (value) done(value);
    });
    child.on('exit', () => failed(new Error(`${program} ended: ${text}`)));
  });
}

const script = join(folder, 'script.json');
await writeFile(script, JSON.stringify([
  { models: ['slow=completion'] },
  { when: { path: '/api/chat', model: 'slow' }, reply: { faithful: true, pause: '150ms' } },
]));
const url = /http:\/\/127\.0\.0\.1:\d+/;
const mock = (...args) => start('mock-ollama', ['--port', '0', '--script', script, ...args], 'stdout', (text) => text.match(url)?.[0]);
const [first, second] = await Promise.all([mock(), mock('--version', '0.20.0')]);
const config = join(folder, 'config.toml');
await writeFile(config, `# ours\n[remote]\nurl = "${first}" # the first\nprobe = "0s"\n`);
const { proxy, console: page_url } = await start('farllama', ['serve', '--local-port', '0', '--admin-port', '0', '--log', 'json', '--config', config], 'stderr', (text) => {
  const lines = text.split('\n').flatMap((line) => { try { return [JSON.parse(line)]; } catch { return []; } });
  const of = (name) => lines.find((line) => line[name])?.[name];
  return of('ollama') && of('console') && { proxy: of('ollama'), console: of('console') };
});

const browser = await chromium.launch({ executablePath: browserPath, args: ['--no-sandbox', '--disable-gpu'] });
const context = await browser.newContext({ viewport: { width: 1200, height: 800 }, acceptDownloads: true, permissions: ['clipboard-read', 'clipboard-write'] });
const page = await context.newPage();
page.setDefaultTimeout(PATIENCE);
const complaints = [];
page.on('pageerror', (error) => complaints.push(String(error)));
page.on('console', (message) => { if (message.type() === 'error' && !/Failed to load resource/.test(message.text())) complaints.push(message.text()); });
const foreign = [];
page.on('request', (request) => { if (!request.url().startsWith(page_url) && !/^(data|blob):/.test(request.url())) foreign.push(request.url()); });

const text = (selector) => page.locator(selector).innerText();
const until = (selector, wanted) => page.waitForFunction(
  ([selector, wanted]) => new RegExp(wanted).test(document.querySelector(selector)?.innerText ?? ''), [selector, wanted]);
const view = (name) => page.locator(`#tab-${name}`).click();
// A click returns before the page has written the clipboard.
async function copied(pattern) {
  let text = '';
  for (let tries = 0; tries < 60; tries += 1) {
    text = await page.evaluate(() => navigator.clipboard.readText());
    if (pattern.test(text)) return;
    await page.waitForTimeout(50);
  }
  assert.match(text, pattern);
}
async function shoot(name) {
  if (!screenshots) return;
  await mkdir(screenshots, { recursive: true });
  await page.screenshot({ path: join(screenshots, `${name}.png`) });
}

/** A streamed chat; gives the whole text once it has ended. */
async function chat(model, words = 12, prompt = 'hi') {
  const response = await fetch(`${proxy}/v1/chat/completions`, {
    method: 'POST', headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model, stream: true, max_tokens: words, messages: [{ role: 'user', content: prompt }] }),
  });
  return response.text();
}

check('the page shows status, endpoints, remote and models', async () => {
  await page.goto(page_url);
  await until('#state', '^running$');
  await until('#remote-state', 'reachable');
  assert.equal(await text('#ollama-url'), proxy);
  assert.equal(await text('#openai-url'), `${proxy}/v1`);
  assert.equal(await text('#remote-url'), first);
  await until('#installed', 'slow');
  await chat('slow', 2);
  await page.reload();
  await until('#loaded', 'slow');
  await page.locator('[data-copy="openai-url"]').click();
  await copied(new RegExp(`^${proxy}/v1$`));
  await shoot('overview');
});

check('stop, start and restart act on the data listener, and a running stream goes on', async () => {
  const stream = chat('slow', 40);
  await view('requests');
  await page.locator('#request-table tr.running').waitFor();
  await page.locator('#stop').click();
  await until('#state', 'stopped');
  await assert.rejects(fetch(`${proxy}/api/version`));
  await page.locator('#start').click();
  await until('#state', 'running');
  assert.equal((await fetch(`${proxy}/api/version`)).status, 200);
  await page.locator('#restart').click();
  await until('#state', 'running');
  assert.match(await stream, /"finish_reason":"(stop|length)"[\s\S]*\[DONE\]/);
  assert.equal((await fetch(`${proxy}/api/version`)).status, 200);
});

check('a live row appears, and finishes with its tokens', async () => {
  await view('requests');
  const before = await page.locator('#request-table tbody tr').count();
  const stream = chat('slow', 20);
  await page.locator('#request-table tr.running', { hasText: '/v1/chat/completions' }).waitFor();
  await shoot('requests');
  await stream;
  await page.locator('#request-table tr.running').waitFor({ state: 'detached' });
  await until('#request-table tbody tr:first-child', 'complete');
  assert.match(await text('#request-table tbody tr:first-child'), /\d+ → \d+/);
  assert.ok(await page.locator('#request-table tbody tr').count() > before);
  await page.locator('#request-filter').fill('no such request');
  assert.match(await text('#request-table tbody'), /No requests/);
  await page.locator('#request-filter').fill('');
});

check('a running request is canceled', async () => {
  const stream = chat('slow', 500);
  await page.locator('#request-table tr.running button').click();
  assert.match(await stream, /request_canceled/);
  await until('#request-table tbody tr:first-child', 'canceled');
});

check('the remote changes while a stream from the old one goes on, and is saved with the comments', async () => {
  const stream = chat('slow', 30);
  await page.locator('#request-table tr.running').waitFor();
  await view('overview');
  await page.locator('#change-remote').click();
  const port = new URL(second).port;
  await page.locator('#remote-port').fill('9');
  await page.locator('#remote-apply').click();
  await until('#remote-outcome', 'nothing was changed');
  await page.locator('#remote-port').fill(port);
  await page.locator('#remote-test').click();
  await until('#remote-outcome', '0\\.20\\.0');
  await shoot('remote');
  await page.locator('#remote-save').check();
  await page.locator('#remote-apply').click();
  await page.locator('#remote-dialog').waitFor({ state: 'hidden' });
  await until('#remote-version', '0\\.20\\.0');
  assert.equal((await (await fetch(`${proxy}/api/version`)).json()).version, '0.20.0');
  assert.match(await stream, /\[DONE\]/);
  const saved = await readFile(config, 'utf8');
  assert.match(saved, /# ours/);
  assert.match(saved, new RegExp(`port = ${port}`));
});

check('logs are filtered, copied and cleared', async () => {
  await view('logs');
  await until('#log', 'remote set to');
  await page.locator('#log-search').fill('remote set to');
  assert.equal(await page.locator('#log div').count(), 1);
  await page.locator('#log-copy').click();
  await copied(/remote set to http/);
  await page.locator('#log-search').fill('');
  await page.locator('#log-level').selectOption('error');
  assert.equal(await page.locator('#log div').count(), 0);
  await page.locator('#log-level').selectOption('trace');
  await shoot('logs');
  await page.locator('#log-clear').click();
  await page.waitForFunction(() => document.querySelectorAll('#log div').length === 0);
  await fetch(`${proxy}/api/version`);
  await until('#log', 'api/version');
});

check('the inspector keeps an exchange, and the scenario that it makes passes', async () => {
  await view('inspector');
  await page.locator('#inspector-switch').click();
  await page.locator('#inspecting').waitFor();
  await fetch(`${proxy}/v1/chat/completions`, {
    method: 'POST', headers: { 'content-type': 'application/json', authorization: 'Bearer sk-a-secret-key' },
    body: JSON.stringify({ model: 'slow', max_tokens: 8, user: 'u', messages: [{ role: 'user', content: `say \${hi} ${HOSTILE}` }] }),
  }).then((response) => response.text());
  await chat('slow', 6, "it's a stream");
  for (const [at, name] of [[1, 'whole'], [0, 'stream']]) {
    await page.waitForFunction(() => document.querySelectorAll('#captures tbody button').length === 2);
    await page.locator('#captures tbody button').nth(at).click();
    await until('#capture-title', 'chat/completions');
    await until('#side-ask', 'POST /api/chat');
    if (name === 'whole') {
      await until('#side-request', 'authorization: \\*\\*\\*');
      assert.ok(!(await page.content()).includes('sk-a-secret-key'));
      assert.match(await text('#side-receipt'), /user/);
      await shoot('inspector');
    }
    const [download] = await Promise.all([page.waitForEvent('download'), page.locator('#save-scenario').click()]);
    const file = join(folder, `${name}.yaml`);
    await download.saveAs(file);
    const { stdout } = await promisify(execFile)(join(binaries, 'farllama-check'), ['run', file]).catch((error) => {
      throw new Error(`${error.stdout}${error.stderr}`);
    });
    assert.match(stdout, /1 passed/);
    await page.locator('#copy-curl').click();
    await copied(/^curl -sS -X POST 'http/);
  }
  await page.locator('#inspector-switch').click();
  await page.locator('#inspecting').waitFor({ state: 'hidden' });
});

check('markup in a model name, a prompt and an error is text', async () => {
  await view('requests');
  await chat(HOSTILE, 5, HOSTILE);
  await until('#request-table tbody tr:first-child', '<img src=x');
  await view('logs');
  await until('#log', '<img src=x');
  await view('inspector');
  assert.equal(await page.locator('main img').count(), 0);
  assert.equal(await page.evaluate(() => window.hacked), undefined);
});

check('charts show the last hour', async () => {
  await view('charts');
  await page.locator('#chart-list svg rect').first().waitFor();
  assert.match(await page.locator('#chart-list svg').first().getAttribute('aria-label'), /requests: \d+/);
  await shoot('charts');
});

check('the keyboard alone is enough', async () => {
  await page.locator('#tab-overview').focus();
  await page.keyboard.press('ArrowRight');
  assert.equal(await page.locator('#requests').isVisible(), true);
  await page.keyboard.press('End');
  assert.equal(await page.locator('#inspector').isVisible(), true);
  await page.keyboard.press('Home');
  assert.equal(await page.locator('#overview').isVisible(), true);
  // From the tabs backwards to the buttons of the head, and the dialog by Enter and Escape.
  await page.keyboard.press('Shift+Tab');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'restart');
  await page.keyboard.press('Shift+Tab');
  await page.keyboard.press('Enter');
  await until('#state', 'stopped');
  await page.locator('#start').focus();
  await page.keyboard.press('Enter');
  await until('#state', 'running');
  await page.locator('#change-remote').focus();
  await page.keyboard.press('Enter');
  await page.locator('#remote-dialog').waitFor();
  await page.keyboard.press('Escape');
  await page.locator('#remote-dialog').waitFor({ state: 'hidden' });
});

check('several remotes are listed with their state', async () => {
  await view('overview');
  assert.equal(await page.locator('#remotes-part').isVisible(), false);
  const before = await readFile(config, 'utf8');
  const remotes = [['one', first], ['two', second], ['gone', 'http://127.0.0.1:9']];
  await writeFile(config, remotes.map(([name, url]) => `[[remotes]]\nname = "${name}"\nurl = "${url}"\n`).join(''));
  const farllama = children.find((child) => child.spawnfile.endsWith('farllama'));
  farllama.kill('SIGHUP');
  const rows = page.locator('#remotes tbody tr');
  await rows.filter({ hasText: 'gone' }).filter({ hasText: 'down: ' }).waitFor();
  assert.equal(await rows.count(), 3);
  const two = await rows.nth(1).innerText();
  assert.match(two, /two\s+up/);
  assert.ok(two.includes(second) && two.includes('Ollama 0.20.0'), two);
  await shoot('remotes');
  await writeFile(config, before);
  farllama.kill('SIGHUP');
  await page.locator('#remotes-part').waitFor({ state: 'hidden' });
});

check('dark mode, a narrow screen and reduced motion are served', async () => {
  const back = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await back();
  await page.emulateMedia({ colorScheme: 'dark', reducedMotion: 'reduce' });
  assert.notEqual(await back(), light);
  await view('overview');
  await shoot('dark');
  await page.setViewportSize({ width: 360, height: 740 });
  for (const name of ['overview', 'requests', 'charts', 'logs', 'inspector']) {
    await view(name);
    const [inner, width] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
    assert.ok(inner <= width, `${name} is ${inner} wide on a screen of ${width}`);
  }
  await view('overview');
  await shoot('narrow');
});

check('the page asks nothing of other hosts, and reports no errors', async () => {
  assert.deepEqual(foreign, []);
  assert.deepEqual(complaints, []);
});

await run();
