// SPDX-License-Identifier: Apache-2.0

import { type Deadline, deadlineIn, remainingMs } from '#base'
import { EAGAIN, ETIMEDOUT, SystemError } from '#libc'
import { decodeError, NetlinkError } from './error.ts'
import {
  decodeMessages,
  encodeBatch,
  type Message,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLMSG_DONE,
  NLMSG_ERROR,
  type Request,
} from './message.ts'

/** A dump that the tables changed under is asked for again this often before it is an error. */
const DUMP_TRIES_MAX = 16
const DEADLINE_MS = 10_000

/** What the kernel answered to one request. */
export type Reply = {
  readonly messages: readonly Message[]
  /** The errno that the request said it tolerates; undefined where the kernel did what was asked. */
  readonly tolerated: number | undefined
}

/** Something that carries requests to the kernel: the socket, or a fake of it in tests. */
export type Transport = { execute(requests: readonly Request[], deadline?: Deadline): Reply[] }

/** The two calls of a socket. What `receive` returns is valid until the next one; undefined when the time is over. */
export type Wire = {
  send(datagram: Uint8Array): void
  receive(timeoutMs: number): Uint8Array | undefined
}

/** NLM_F_DUMP is two bits, each of which means something else with a change (NLM_F_REPLACE, NLM_F_EXCL). */
const isDump = ({ flags }: Request) => (flags & NLM_F_DUMP) === NLM_F_DUMP
const isAnswered = (request: Request) => request.asks === true || (request.flags & NLM_F_ACK) !== 0 || isDump(request)

/**
 * What is waited for. The kernel works a batch off in order and tells of every failure, asked or not: once the last request
 * is answered all are, and its acknowledgement stands for the others'. A dump alone goes on after that.
 */
function awaited(requests: readonly Request[]): boolean[] {
  const last = requests.findLastIndex(isAnswered)
  const hasDump = requests.some(isDump)
  return requests.map((request, index) => index === last || (hasDump && isAnswered(request)))
}

/** Requests and their answers over a wire, matched by sequence number. */
export function converse(wire: Wire): Required<Transport> {
  let seq = 1
  return {
    execute(requests, deadline = deadlineIn(DEADLINE_MS)) {
      for (let tries = 1; ; tries++) {
        const first = seq
        seq = (seq + requests.length) >>> 0
        const { replies, interrupted } = exchange(wire, requests, first, deadline)
        if (interrupted === undefined) return replies
        if (tries === DUMP_TRIES_MAX) throw new NetlinkError(`${interrupted.about}, ${tries} times interrupted`, EAGAIN)
      }
    },
  }
}

function exchange(
  wire: Wire,
  requests: readonly Request[],
  first: number,
  deadline: Deadline,
): { replies: Reply[]; interrupted: Request | undefined } {
  const isOpen = awaited(requests)
  naming(requests, () => wire.send(encodeBatch(requests, first, isOpen)))
  const replies = requests.map((): Answered => ({ messages: [], tolerated: undefined }))
  let failure: NetlinkError | undefined
  let interrupted: Request | undefined
  for (let next = isOpen.indexOf(true); next >= 0; next = isOpen.indexOf(true)) {
    const datagram = naming(requests, () => wire.receive(remainingMs(deadline)))
    if (datagram === undefined) throw new NetlinkError(requests[next]!.about, ETIMEDOUT)
    for (const message of decodeMessages(datagram)) {
      const index = (message.seq - first) >>> 0
      const request = requests[index]
      if (request === undefined) continue // an answer to an exchange that was given up
      const reply = replies[index]!
      if ((message.flags & NLM_F_DUMP_INTR) !== 0 && isDump(request)) interrupted = request
      if (message.type !== NLMSG_ERROR && message.type !== NLMSG_DONE) {
        reply.messages.push({ ...message, body: message.body.slice() })
        if (request.asks === true) isOpen[index] = false
        continue
      }
      const error = decodeError(message, request)
      if (error !== undefined && request.tolerate?.includes(error.errno)) reply.tolerated = error.errno
      else failure ??= error
      // An error for a request that asked for no answer (the frame of an nf_tables batch) ends the whole batch.
      if (!isAnswered(request) && message.type === NLMSG_ERROR) isOpen.fill(false)
      isOpen[index] = false
    }
  }
  if (failure !== undefined) throw failure
  return { replies, interrupted }
}

type Answered = { readonly messages: Message[]; tolerated: number | undefined }

/** The socket's own failures, of memory or of rights, as errors of what was asked. */
function naming<T>(requests: readonly Request[], call: () => T): T {
  try {
    return call()
  } catch (error) {
    if (!(error instanceof SystemError) || requests.length === 0) throw error
    const others = requests.length === 1 ? '' : ` (and ${requests.length - 1} more)`
    throw Object.assign(new NetlinkError(`${requests[0]!.about}${others}`, error.errno), { cause: error })
  }
}
