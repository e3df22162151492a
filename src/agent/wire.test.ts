// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decodeRequest, encodeAnswer, encodeRequest } from './wire.ts'

function frame(netns: number, ...parts: string[]): Uint8Array {
  const chunks = [Buffer.alloc(4)]
  chunks[0]!.writeUInt32LE(netns)
  for (const part of parts) {
    const length = Buffer.alloc(4)
    length.writeUInt32LE(Buffer.byteLength(part))
    chunks.push(length, Buffer.from(part))
  }
  return Buffer.concat(chunks)
}

test('decodeRequest() reads type, environment, stdin and descriptor', () => {
  const request = decodeRequest(frame(7, 'veth-route', 'A=1\0B=x=y\0__proto__=z\0bad\0', '{}'))
  assert.equal(request.type, 'veth-route')
  assert.equal(request.netns, 7)
  assert.equal(request.env['A'], '1')
  assert.equal(request.env['B'], 'x=y')
  assert.deepEqual(Object.keys(request.env), ['A', 'B', '__proto__'])
  assert.equal(new TextDecoder().decode(request.stdin), '{}')
})

test('decodeRequest() knows a call without a namespace', () => {
  assert.equal(decodeRequest(frame(0xffffffff, 't', '', '')).netns, undefined)
})

test('decodeRequest() refuses what is cut off at any byte', () => {
  const whole = frame(7, 'type', 'A=1\0', '{"name":"x"}')
  for (let length = 0; length < whole.length; length++)
    assert.throws(() => decodeRequest(whole.subarray(0, length)), RangeError, `${length} bytes`)
})

test('encodeRequest() is what decodeRequest() reads', () => {
  const request = { type: 'veth-route', env: { A: '1', B: 'x=y' }, stdin: Buffer.from('{}') }
  const encoded = Buffer.from(encodeRequest(request))
  assert.equal(encoded.readUInt32LE(0), encoded.length - 4)
  const { type, env, stdin, netns } = decodeRequest(encoded.subarray(4))
  assert.deepEqual(
    [type, { ...env }, Buffer.from(stdin), netns],
    ['veth-route', { A: '1', B: 'x=y' }, request.stdin, undefined],
  )
})

test('encodeAnswer() is what the shim reads', () => {
  const answer = Buffer.from(encodeAnswer({ exitCode: 1, stdout: Buffer.from('out'), stderr: 'err!' }))
  assert.equal(answer.readUInt32LE(0), answer.length - 4)
  assert.equal(answer.readUInt32LE(4), 1)
  assert.equal(answer.readUInt32LE(8), 3)
  assert.equal(answer.subarray(12, 15).toString(), 'out')
  assert.equal(answer.readUInt32LE(15), 4)
  assert.equal(answer.subarray(19).toString(), 'err!')
})
