// One run of http-cache-tests: starts the suite's origin and the cache in front of it, runs the tests through the cache, and
// writes the tests with their results to a file. Runs in a network namespace of its own, so that the ports are free. The
// settings are the JSON of the environment variable CONFORMANCE (see conformance.rs).
import { spawn } from 'node:child_process'
import { closeSync, openSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { pathToFileURL } from 'node:url'

const settings = JSON.parse(process.env.CONFORMANCE)
// A test that waits for ever ends the run: the suite's own limit for a request is 10 s, and no test has more than 5 of them.
setTimeout(() => fail('the tests did not end'), settings.limit_ms).unref()
// The first process of a namespace gets no signal that it does not ask for; but its input ends with whoever started it.
process.stdin.on('end', () => process.exit(1)).resume()

const module = file => import(pathToFileURL(`${settings.suite}/${file}`))
const children = []

function fail (why) {
  console.error(why)
  stop()
  process.exit(1)
}

function stop () {
  for (const child of children) child.kill('SIGKILL')
}

// What a program says goes to a file, or to the terminal where single tests are looked at.
function start ({ command, env, log }) {
  const output = settings.only.length > 0 ? 'inherit' : openSync(log, 'w')
  const child = spawn(command[0], command.slice(1), {
    cwd: settings.suite, env: { ...process.env, ...env }, stdio: ['ignore', output, output]
  })
  child.on('error', error => fail(`cannot run ${command[0]}: ${error.message}`))
  child.on('exit', code => fail(`${command.join(' ')} ended with ${code}; see ${log}`))
  children.push(child)
  if (output !== 'inherit') closeSync(output)
}

function accepts (port) {
  return new Promise(resolve => {
    const socket = connect(port, '127.0.0.1')
    socket.on('connect', () => { socket.destroy(); resolve(true) })
    socket.on('error', () => resolve(false))
  })
}

async function listening (port) {
  for (let tries = 0; tries < 200; tries++) {
    if (await accepts(port)) return
    await new Promise(resolve => setTimeout(resolve, 50))
  }
  fail(`nothing listens on port ${port}`)
}

start(settings.origin)
await listening(settings.origin_port)
start(settings.cache)
await listening(settings.cache_port)

const suites = (await module('tests/index.mjs')).default
let chosen = suites
if (settings.only.length > 0) {
  const wanted = test => settings.only.includes(test.id)
  chosen = suites.map(suite => ({ ...suite, tests: suite.tests.filter(wanted) }))
  for (const suite of chosen) for (const test of suite.tests) test.dump = true
}
const base = `http://127.0.0.1:${settings.cache_port}`
const { runTests, getResults } = await module(`${settings.engine}client/runner.mjs`)
if (settings.fetch === 'node-fetch') {
  // The older engine has no limit for a request of its own.
  const { default: fetch } = await import('node-fetch')
  const bounded = (url, init) => fetch(url, { ...init, timeout: 10_000 })
  await runTests(chosen, bounded, false, base, settings.at_once)
} else {
  await runTests(chosen, false, base, settings.at_once)
}

const results = getResults()
const tests = suites.flatMap(suite => suite.tests.filter(test => test.browser_only !== true).map(test => ({
  id: test.id,
  name: test.name,
  suite: suite.name,
  kind: test.kind ?? 'required',
  depends_on: test.depends_on ?? [],
  result: results[test.id] ?? null
})))
writeFileSync(settings.result, JSON.stringify(tests))
for (const child of children) child.removeAllListeners('exit')
stop()
process.exit(0)
