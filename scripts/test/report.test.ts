// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { PassThrough, Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { Report } from './report.ts'

/** What one run of node's test runner emits for a passing and a skipped test, closing lines included. */
function runOfTwo(): Readable {
  const details = { duration_ms: 1 }
  const where = { file: '/a.test.ts', line: 1, column: 1 }
  const counts = { tests: 2, suites: 0, passed: 1, failed: 0, cancelled: 0, skipped: 1, todo: 0 }
  return Readable.from([
    { type: 'test:start', data: { nesting: 0, name: 'works', ...where } },
    { type: 'test:pass', data: { nesting: 0, name: 'works', testNumber: 1, details, ...where } },
    { type: 'test:start', data: { nesting: 0, name: 'waits', ...where } },
    {
      type: 'test:pass',
      data: { nesting: 0, name: 'waits', testNumber: 2, skip: 'no ipvlan here', details, ...where },
    },
    { type: 'test:summary', data: { counts: { ...counts, tests: 99 }, file: '/a.test.ts' } },
    { type: 'test:diagnostic', data: { nesting: 0, message: 'tests 2', level: 'info' } },
    { type: 'test:summary', data: { counts } },
  ])
}

async function tell(act: (report: Report) => Promise<unknown>): Promise<{ output: string; good: boolean }> {
  const out = new PassThrough()
  const report = new Report(out)
  await act(report)
  const good = await report.close()
  out.end()
  return { output: await text(out), good }
}

test('Report counts several runs in one set of closing lines', async () => {
  const { output, good } = await tell(async report => {
    await report.add(runOfTwo())
    await report.add(runOfTwo())
  })
  assert.equal(good, true)
  const closing = output.split('\n').filter(line => line.startsWith('ℹ '))
  assert.deepEqual(closing.slice(0, -1), [
    'ℹ not run (2): no ipvlan here',
    'ℹ tests 4',
    'ℹ suites 0',
    'ℹ pass 2',
    'ℹ fail 0',
    'ℹ cancelled 0',
    'ℹ skipped 2',
    'ℹ todo 0',
  ])
  assert.match(closing.at(-1)!, /^ℹ duration_ms \d+\.\d{3}$/)
})

test('Report.fail() makes the whole run fail and shows the cause', async () => {
  const { output, good } = await tell(async report => {
    await report.add(runOfTwo())
    report.fail('lab/openstack starts', new Error('Cannot start lab/openstack: no disk'))
  })
  assert.equal(good, false)
  assert.match(output, /ℹ tests 3\n/)
  assert.match(output, /ℹ fail 1\n/)
  assert.match(output, /✖ failing tests:.*lab\/openstack starts.*no disk/s)
})

test('Report.close() does not call an empty run good', async () => {
  const { good } = await tell(async () => {})
  assert.equal(good, false)
})
