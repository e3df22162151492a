// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { deadlineIn } from '#base'
import { SystemError } from '#libc'
import { concat } from './attribute.ts'
import { NetlinkError } from './error.ts'
import { converse } from './exchange.ts'
import {
  decodeMessages,
  encodeBatch,
  type Message,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLM_F_EXCL,
  NLMSG_DONE,
  NLMSG_ERROR,
  type Request,
} from './message.ts'

type Answer = { type: number; flags?: number; seq?: number; body?: string }

/** A message as the kernel would send it. */
function message({ type, flags = 0, seq = 0, body = '' }: Answer): Uint8Array {
  const bytes = encodeBatch([{ type, flags, body: Uint8Array.fromHex(body), about: '' }], seq)
  new DataView(bytes.buffer).setUint16(6, flags, true)
  return bytes
}

/** A wire at whose other end `kernel` answers each datagram with datagrams of messages. */
function wireTo(kernel: (requests: readonly Message[]) => readonly (readonly Answer[])[]) {
  const datagrams: Uint8Array[] = []
  const sent: (readonly Message[])[] = []
  return {
    sent,
    send(datagram: Uint8Array) {
      const requests = [...decodeMessages(datagram)]
      sent.push(requests)
      datagrams.push(...kernel(requests).map(answers => concat(answers.map(message))))
    },
    receive: () => datagrams.shift(),
  }
}

const acknowledged = (seq: number): Answer => ({ type: NLMSG_ERROR, seq, body: '00000000' })
const refused = (seq: number, errno: number): Answer => {
  const body = new Uint8Array(4)
  new DataView(body.buffer).setInt32(0, -errno, true)
  return { type: NLMSG_ERROR, seq, body: body.toHex() }
}
const change = (about: string, tolerate?: number[]): Request => ({
  type: 24,
  flags: NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
  body: new Uint8Array(4),
  about,
  ...(tolerate === undefined ? {} : { tolerate }),
})
const dump: Request = { type: 26, flags: NLM_F_DUMP, body: new Uint8Array(4), about: 'list routes' }

test('execute: sends a batch as one datagram and matches its answers by number, in any order', () => {
  const wire = wireTo(requests => [
    requests
      .slice()
      .reverse()
      .map(({ seq }) => acknowledged(seq)),
  ])
  const replies = converse(wire).execute([change('add a'), change('add b'), change('add c')])
  assert.equal(wire.sent.length, 1)
  assert.deepEqual(
    replies,
    [1, 2, 3].map(() => ({ messages: [], tolerated: undefined })),
  )
})

test('execute: throws the first error of a batch after all its answers came', () => {
  const wire = wireTo(requests =>
    requests.map(({ seq }, index) => [index === 0 ? acknowledged(seq) : refused(seq, 17 + index)]),
  )
  assert.throws(
    () => converse(wire).execute([change('add a'), change('add b'), change('add c')]),
    (error: unknown) => error instanceof NetlinkError && error.errno === 18 && error.request === 'add b',
  )
  assert.equal(wire.receive(), undefined)
})

test('execute: asks for the acknowledgement of the last alone, and hears of every failure before it', () => {
  const wire = wireTo(([a, b, c]) => [[refused(a!.seq, 3)], [refused(b!.seq, 17)], [acknowledged(c!.seq)]])
  const batch = [change('remove a', [3]), change('add b'), change('add c')]
  assert.throws(() => converse(wire).execute(batch), { errno: 17, request: 'add b' })
  assert.deepEqual(
    wire.sent[0]!.map(({ flags }) => (flags & NLM_F_ACK) !== 0),
    [false, false, true],
  )
  assert.equal(wire.receive(), undefined)
  const tolerant = wireTo(([a, b]) => [[refused(a!.seq, 3)], [acknowledged(b!.seq)]])
  const replies = converse(tolerant).execute([change('remove a', [3]), change('add b')])
  assert.deepEqual(
    replies.map(({ tolerated }) => tolerated),
    [3, undefined],
  )
})

test('execute: takes one message for the answer to a question, and goes on with what was asked with it', () => {
  const ask = (about: string): Request => ({
    type: 18,
    flags: 0,
    asks: true,
    body: new Uint8Array(4),
    about,
    tolerate: [19],
  })
  const wire = wireTo(([a, b, c]) => [
    [{ type: 16, seq: a!.seq, body: '01000000' }],
    [refused(b!.seq, 19)],
    [{ type: 16, seq: c!.seq, body: '03000000' }],
  ])
  const replies = converse(wire).execute([ask('find a'), ask('find b'), ask('find c')])
  assert.deepEqual(
    replies.map(({ messages, tolerated }) => [messages.map(({ body }) => body.toHex()), tolerated]),
    [
      [['01000000'], undefined],
      [[], 19],
      [['03000000'], undefined],
    ],
  )
  assert.equal(wire.receive(), undefined)
})

test('execute: tells which errno a request tolerated', () => {
  const wire = wireTo(requests => requests.map(({ seq }) => [refused(seq, 3)]))
  assert.deepEqual(converse(wire).execute([change('remove a', [3, 19])]), [{ messages: [], tolerated: 3 }])
})

test('execute: collects a dump over several datagrams, and keeps it when the buffer is used again', () => {
  const shared = new Uint8Array(256)
  const wire = wireTo(([request]) => [
    [
      { type: 24, seq: request!.seq, body: '01000000' },
      { type: 24, seq: request!.seq, body: '02000000' },
    ],
    [{ type: 24, seq: request!.seq, body: '03000000' }],
    [{ type: NLMSG_DONE, seq: request!.seq, body: '00000000' }],
  ])
  const receive = () => {
    const datagram = wire.receive()
    if (datagram === undefined) return undefined
    shared.fill(0xff)
    shared.set(datagram)
    return shared.subarray(0, datagram.length)
  }
  const [reply] = converse({ send: wire.send, receive }).execute([dump])
  assert.deepEqual(
    reply!.messages.map(({ body }) => body.toHex()),
    ['01000000', '02000000', '03000000'],
  )
})

test('execute: asks for a dump again when the tables changed under it, and returns the second answer alone', () => {
  let tries = 0
  const wire = wireTo(([request]) => {
    const flags = ++tries === 1 ? NLM_F_DUMP_INTR : 0
    return [
      [
        { type: 24, flags, seq: request!.seq, body: `0${tries}000000` },
        { type: NLMSG_DONE, flags, seq: request!.seq, body: '00000000' },
      ],
    ]
  })
  const [reply] = converse(wire).execute([dump])
  assert.equal(tries, 2)
  assert.deepEqual(
    reply!.messages.map(({ body }) => body.toHex()),
    ['02000000'],
  )
})

test('execute: gives up a dump that is interrupted 16 times, with EAGAIN', () => {
  const wire = wireTo(([request]) => [
    [{ type: NLMSG_DONE, flags: NLM_F_DUMP_INTR, seq: request!.seq, body: '00000000' }],
  ])
  assert.throws(() => converse(wire).execute([dump]), /Cannot list routes, 16 times interrupted: .*EAGAIN/)
  assert.equal(wire.sent.length, 16)
})

test('execute: does not take the flags of a change for a dump that was interrupted', () => {
  // 0x10 is NLM_F_DUMP_INTR in a dump only.
  const wire = wireTo(requests => requests.map(({ seq }) => [{ ...acknowledged(seq), flags: NLM_F_DUMP_INTR }]))
  converse(wire).execute([change('add a')])
  assert.equal(wire.sent.length, 1)
})

test('execute: a dump that ends with an errno is an error, not an empty list', () => {
  const wire = wireTo(([request]) => [[{ type: NLMSG_DONE, seq: request!.seq, body: 'f4ffffff' }]])
  assert.throws(() => converse(wire).execute([dump]), /Cannot list routes: .*ENOMEM/)
})

test('execute: skips answers to an exchange that was given up', () => {
  const wire = wireTo(([request]) => [[refused(request!.seq - 1, 17)], [acknowledged(request!.seq)]])
  assert.deepEqual(converse(wire).execute([change('add a')]), [{ messages: [], tolerated: undefined }])
})

test('execute: names the request that was not answered in time', () => {
  const wire = wireTo(([first]) => [[acknowledged(first!.seq)]])
  assert.throws(
    () => converse(wire).execute([change('add a'), change('add b')], deadlineIn(5)),
    /Cannot add b: .*ETIMEDOUT/,
  )
})

test('execute: an error for a request that asked for no answer ends the batch', () => {
  const frame: Request = { type: 0x10, flags: 0, body: new Uint8Array(4), about: 'begin batch' }
  const wire = wireTo(([begin]) => [[refused(begin!.seq, 1)]])
  assert.throws(() => converse(wire).execute([frame, change('add a')]), /Cannot begin batch: .*EPERM/)
})

test('execute: does not wait where no request asks for an answer', () => {
  const wire = wireTo(() => [])
  const replies = converse(wire).execute([{ type: 0x10, flags: 0, body: new Uint8Array(4), about: 'tell' }])
  assert.deepEqual(replies, [{ messages: [], tolerated: undefined }])
})

test('execute: says what was asked when the socket itself fails', () => {
  const failing = {
    send: () => {
      throw new SystemError('send', 105, 'send 36 bytes')
    },
    receive: () => undefined,
  }
  const names = (text: string) => (error: unknown) =>
    error instanceof NetlinkError && error.code === 'ENOBUFS' && error.message.startsWith(text)
  assert.throws(() => converse(failing).execute([change('add a')]), names('Cannot add a: '))
  assert.throws(
    () => converse(failing).execute([change('add a'), change('add b')]),
    names('Cannot add a (and 1 more): '),
  )
  const deaf = {
    send: () => undefined,
    receive: () => {
      throw new SystemError('recv', 105, 'receive')
    },
  }
  assert.throws(() => converse(deaf).execute([dump]), names('Cannot list routes: '))
})
