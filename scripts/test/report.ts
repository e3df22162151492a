// SPDX-License-Identifier: Apache-2.0
// Several runs of node's test runner told as one: the events of all go to one reporter, the closing lines count all.
import { relative } from 'node:path'
import type { Readable } from 'node:stream'
import { finished } from 'node:stream/promises'
import { spec } from 'node:test/reporters'
import type { Finding } from './conformance.ts'

export interface TestEvent {
  readonly type: string
  readonly data: Record<string, unknown>
}

const COUNTS = ['tests', 'suites', 'passed', 'failed', 'cancelled', 'skipped', 'todo'] as const
const LABEL: Partial<Record<(typeof COUNTS)[number], string>> = { passed: 'pass', failed: 'fail' }

/** What an event says of a test; undefined for all others. */
export function findingOf({ type, data }: TestEvent): Finding | undefined {
  if (type !== 'test:pass' && type !== 'test:fail') return undefined
  const { name, file, skip } = data
  const isSkipped = skip !== undefined && skip !== false
  return {
    name: String(name),
    file: relative(process.cwd(), String(file ?? '')),
    outcome: type === 'test:fail' ? 'fail' : isSkipped ? 'skip' : 'pass',
    ...(typeof skip === 'string' ? { reason: skip } : {}),
  }
}

export class Report {
  readonly #reporter = new spec()
  readonly #counts = Object.fromEntries(COUNTS.map(name => [name, 0])) as Record<(typeof COUNTS)[number], number>
  readonly #skipReasons = new Map<string, number>()
  readonly #startedAt = performance.now()

  constructor(out: NodeJS.WritableStream) {
    this.#reporter.pipe(out, { end: false })
  }

  /** Every test that was told of, in the order in which they ended. */
  readonly findings: Finding[] = []

  /** A line between the tests. */
  say(message: string): void {
    this.#emit({ type: 'test:diagnostic', data: { nesting: 0, message, level: 'info' } })
  }

  /** Takes over all events of one run; ends with it. */
  async add(run: Readable): Promise<void> {
    for await (const event of run as AsyncIterable<TestEvent>) {
      const ofWholeRun = event.data['file'] === undefined
      if (event.type === 'test:summary' && ofWholeRun) this.#count(event.data['counts'] as Record<string, number>)
      if (event.type === 'test:pass' && typeof event.data['skip'] === 'string') this.#countSkip(event.data['skip'])
      const finding = findingOf(event)
      if (finding !== undefined) this.findings.push(finding)
      // A run's own closing lines; ours come once, at the end.
      if (ofWholeRun && (event.type === 'test:summary' || event.type === 'test:diagnostic')) continue
      this.#emit(event)
    }
  }

  /** A failure outside of any test file, for instance a lab that does not start. */
  fail(name: string, cause: unknown): void {
    this.#counts.tests += 1
    this.#counts.failed += 1
    const details = { duration_ms: 0, error: cause instanceof Error ? cause : new Error(String(cause)) }
    const data = { nesting: 0, name, testNumber: 0, line: 1, column: 1, file: 'scripts/test.ts', details }
    this.#emit({ type: 'test:start', data })
    this.#emit({ type: 'test:fail', data })
  }

  /** Prints the closing lines of `node --test`. True if nothing failed and something ran. */
  async close(): Promise<boolean> {
    for (const [reason, count] of this.#skipReasons) this.say(`not run (${count}): ${reason}`)
    for (const name of COUNTS) this.say(`${LABEL[name] ?? name} ${this.#counts[name]}`)
    this.say(`duration_ms ${(performance.now() - this.#startedAt).toFixed(3)}`)
    this.#reporter.end()
    await finished(this.#reporter)
    const { tests, failed, cancelled } = this.#counts
    return tests > 0 && failed === 0 && cancelled === 0
  }

  #count(counts: Record<string, number>): void {
    for (const name of COUNTS) this.#counts[name] += counts[name] ?? 0
  }

  #countSkip(reason: string): void {
    this.#skipReasons.set(reason, (this.#skipReasons.get(reason) ?? 0) + 1)
  }

  #emit(event: TestEvent): void {
    this.#reporter.write(event)
  }
}
