// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { deadlineIn } from '#base'
import { createGate } from './gate.ts'
import { createHttp, type HttpCall, HttpError } from './http.ts'
import { type Wire, type WireAnswer, WireError } from './wire.ts'

const call: HttpCall = {
  operation: { service: 'neutron', name: 'GET ports', kind: 'read' },
  method: 'GET',
  url: new URL('http://neutron.test/ports'),
  headers: () => ({}),
  repeat: true,
}
const found: WireAnswer = { status: 200, headers: {}, body: '' }
const limits = (signal?: AbortSignal) => ({ deadline: deadlineIn(60_000), signal })

/** Answers with what it is given, in order; a function is awaited. */
function wireOf(...answers: (WireAnswer | Error | (() => Promise<WireAnswer>))[]): Wire {
  return {
    async exchange(_request, _limits, { begun }) {
      begun()
      const answer = answers.shift()!
      if (answer instanceof Error) throw answer
      return typeof answer === 'function' ? await answer() : answer
    },
    async close() {},
  }
}

/** A gate that leaves the service alone after one failure, for a moment. */
const nervousGate = () =>
  createGate({ watchful: true, breaker: { failuresMin: 1, spanMs: 0, pauseMs: 1, pauseMsMax: 1 } }, () => {})

/** Makes a request that fails, and waits until another may try. */
async function open(gate: ReturnType<typeof nervousGate>, wire: Wire): Promise<void> {
  await assert.rejects(createHttp(wire, gate).request(call, limits()), /no route/)
  await setTimeout(10)
}
const noRoute = new WireError('ConnectionFailed', false, 'no route')

const timeout = 10_000

test('a trying request that fails for a reason of ours keeps nobody from trying next', { timeout }, async () => {
  const gate = nervousGate()
  const wire = wireOf(noRoute, new Error('Cannot read cacert'), found)
  await open(gate, wire)
  const http = createHttp(wire, gate)
  await assert.rejects(http.request(call, limits()), /Cannot read cacert/)
  assert.equal((await http.request(call, limits())).answer, found)
})

test('who went away before he had to wait for a trying request does not wait for it', { timeout }, async () => {
  const gate = nervousGate()
  const tried = Promise.withResolvers<WireAnswer>()
  const wire = wireOf(noRoute, () => tried.promise)
  await open(gate, wire)
  const http = createHttp(wire, gate)
  const trying = http.request(call, limits())
  await assert.rejects(http.request(call, limits(AbortSignal.abort())), HttpError)
  tried.resolve(found)
  assert.equal((await trying).answer, found)
})
