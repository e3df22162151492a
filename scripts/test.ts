// SPDX-License-Identifier: Apache-2.0
// `./mooring test`: chooses the test files, starts the labs that they need, runs them, leaves the machine as it was.

import { globSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { run } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { conformancePage, type Finding } from './test/conformance.ts'
import { announce, type LabName, Labs } from './test/labs.ts'
import { findingOf, Report, type TestEvent } from './test/report.ts'
import { choose, type Planned, plan, type Suite } from './test/suites.ts'
import { runInVms } from './test/vm.ts'

const USAGE = `usage: mooring test [--all] [--keep] [--list] [--docs] [--name PATTERN]... [WORD]...

Runs the tests that need nothing but root. A word (part of a path) chooses files; a file that only runs with a lab
starts that lab.
  --all            with the labs: real OpenStack, real Kubernetes, the reference plugins; says first what it installs
  --keep           leave the labs running that this run started
  --list           print what would run
  --docs           write what was found into docs/conformance.md and docs/comparison.md
  --name PATTERN   only tests whose name matches this regular expression`

const root = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '')

function readArguments() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        all: { type: 'boolean', default: false },
        keep: { type: 'boolean', default: false },
        list: { type: 'boolean', default: false },
        docs: { type: 'boolean', default: false },
        name: { type: 'string', multiple: true, default: [] },
        help: { type: 'boolean', short: 'h', default: false },
      },
    })
  } catch (cause) {
    console.error(`mooring test: ${(cause as Error).message}\n\n${USAGE}`)
    process.exit(2)
  }
}

const { values: options, positionals: words } = readArguments()
if (options.help) {
  console.log(USAGE)
  process.exit(0)
}

// To every test, wherever it runs (test/whole-run.ts).
if (options.all) process.env['MOORING_WHOLE_RUN'] = '1'

const planned = choose(plan(root), words, options.all)
if (planned.length === 0) {
  console.error(`mooring test: no test file matches ${words.join(' ')}. Remedy: mooring test --list --all`)
  process.exit(2)
}

function labsOf(suite: Suite): LabName[] {
  return [...suite.labs, ...(options.all ? (suite.labsOfAll ?? []) : [])]
}

if (options.list) {
  for (const { suite, files } of planned) {
    const labs = labsOf(suite)
    console.log(`${suite.name}${labs.length > 0 ? ` (with ${labs.map(lab => `lab/${lab}`).join(', ')})` : ''}`)
    for (const file of files) console.log(`  ${file}`)
  }
  process.exit(0)
}

if (process.getuid?.() !== 0) {
  console.error('mooring test: needs root for network namespaces. Remedy: sudo ./mooring test')
  process.exit(1)
}

/** What tests that run elsewhere are told: where the reference's executables are, and whether all of them run. */
const toldInVm = (env: Record<string, string | undefined>): Record<string, string> =>
  Object.fromEntries(
    ['PEERS_DIR', 'MOORING_WHOLE_RUN'].flatMap(name => (env[name] === undefined ? [] : [[name, env[name]]])),
  )

const labs = new Labs(root)
const report = new Report(process.stdout)
const interrupted = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => interrupted.abort(new Error(signal)))

async function runSuite({ suite, files }: Planned): Promise<void> {
  const env: Record<string, string | undefined> = { ...process.env, ...suite.env }
  for (const lab of labsOf(suite)) {
    try {
      Object.assign(env, await labs.require(lab))
    } catch (cause) {
      report.fail(`lab/${lab} starts, for the tests of "${suite.name}"`, cause)
      if (suite.labs.includes(lab)) return
    }
  }
  // Other servers of the lab than those of its demo, for a run beside somebody who uses these. What logs in is the lab's.
  if (process.env['OSLAB_DEMO_JSON']) env['OSLAB_DEMO_JSON'] = process.env['OSLAB_DEMO_JSON']
  // Tests and the scripts that they start find this Node.js, not one of the machine.
  env['PATH'] = `${dirname(process.execPath)}:${env['PATH'] ?? ''}`
  if (options.docs) env['MOORING_DOCS'] = `${root}/docs`
  // Hundreds of processes load the same TypeScript; each would strip and compile it again.
  env['NODE_COMPILE_CACHE'] ??= `${root}/build/test-cache`
  report.say(`${suite.name}: ${files.length} ${files.length === 1 ? 'file' : 'files'}`)
  const events = () =>
    suite.inVm
      ? runInVms({ files, ...suite, ...suite.inVm, env: toldInVm(env) })
      : run({
          cwd: root,
          files: files.map(file => `${root}/${file}`),
          concurrency: options.all ? (suite.concurrencyOfAll ?? suite.concurrency) : suite.concurrency,
          timeout: suite.timeoutMs,
          testNamePatterns: options.name,
          signal: interrupted.signal,
          env: env as NodeJS.ProcessEnv,
        })
  const startedAt = performance.now()
  const tests = () => report.add(events())
  await (suite.measures ? labs.undisturbed(tests) : tests())
  report.say(`${suite.name}: took ${((performance.now() - startedAt) / 1000).toFixed(0)} s`)
}

/** What the black-box tests find of the reference's executables; that they fail some is what the table is for. */
async function writeConformance(): Promise<void> {
  const { PEERS_DIR: directory = '', PEERS_VERSIONS: versions = '' } = await labs.require('peers')
  report.say("the same black-box tests on the reference's executables, for the table")
  const files = globSync(`${root}/test/conformance/*.test.ts`)
  const env = {
    ...process.env,
    PEERS_DIR: directory,
    MOORING_CONFORMANCE_PLUGINS: directory,
    MOORING_CONFORMANCE_MAIN: 'ptp',
    MOORING_CONFORMANCE_CNITOOL: `${directory}/cnitool`,
    PATH: `${dirname(process.execPath)}:${process.env['PATH'] ?? ''}`,
  } as NodeJS.ProcessEnv
  const theirs: Finding[] = []
  for await (const event of run({ cwd: root, files, concurrency: 1, signal: interrupted.signal, env })) {
    const finding = findingOf(event as unknown as TestEvent)
    if (finding !== undefined) theirs.push(finding)
  }
  writeFileSync(`${root}/docs/conformance.md`, conformancePage(report.findings, theirs, versions))
}

const needed = [...new Set(planned.flatMap(({ suite }) => labsOf(suite)))]
announce(needed)
labs.buildAhead(needed)
try {
  for (const one of planned) {
    if (interrupted.signal.aborted) break
    // One that cannot go on keeps none of the others from running.
    await runSuite(one).catch((cause: unknown) => report.fail(`"${one.suite.name}" reaches its end`, cause))
  }
  if (options.docs && !interrupted.signal.aborted) await writeConformance()
} catch (cause) {
  report.fail('the test run reaches its end', cause)
} finally {
  if (!options.keep) await labs.stop()
}
if (interrupted.signal.aborted) report.fail('the test run is not interrupted', interrupted.signal.reason)
process.exitCode = (await report.close()) ? 0 : 1
