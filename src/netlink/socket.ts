// SPDX-License-Identifier: Apache-2.0

import { closeSync } from 'node:fs'
import { type Deadline, deadlineIn, remainingMs } from '#base'
import { EAGAIN, ETIMEDOUT, netlinkSocket, receive, send, setReceiveBuffer, setSocketOption } from '#libc'
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

// linux/netlink.h
export const NETLINK_ROUTE = 0
export const NETLINK_NETFILTER = 12
const SOL_NETLINK = 270
const NETLINK_CAP_ACK = 10
const NETLINK_EXT_ACK = 11
const NETLINK_GET_STRICT_CHK = 12

/** A dump that the tables changed under is asked for again this often before it is an error. */
const DUMP_TRIES_MAX = 16
const RECEIVE_BUFFER_BYTES = 4 << 20
/** The kernel packs dumps into datagrams of at most 32 KiB; a single link with many VFs may be larger. */
const DATAGRAM_BYTES_MAX = 256 << 10
const DEADLINE_MS = 10_000

/** One per thread: an exchange is synchronous, and what it returns is copied. */
const buffer = new Uint8Array(DATAGRAM_BYTES_MAX)

/** What the kernel answered to one request. */
export type Reply = {
  readonly messages: readonly Message[]
  /** The errno that the request said it tolerates; undefined where the kernel did what was asked. */
  readonly tolerated: number | undefined
}

/** NLM_F_DUMP is two bits, each of which means something else with a change (NLM_F_REPLACE, NLM_F_EXCL). */
const isAnswered = (flags: number) => (flags & NLM_F_ACK) !== 0 || (flags & NLM_F_DUMP) === NLM_F_DUMP

/** Something that carries requests to the kernel: the socket, or a fake of it in tests. */
export type Transport = { execute(requests: readonly Request[], deadline?: Deadline): Reply[] }

/**
 * A netlink socket of the namespace in which it was opened. Blocking: for worker threads and one-shot processes.
 *
 * Requests go out in one send, which the kernel works off before it returns; answers are matched by sequence number.
 */
export class NetlinkSocket implements Transport {
  readonly #fd: number
  #seq = 1

  /** @param groups multicast groups to listen to (a bit mask, linux/rtnetlink.h: RTMGRP_*) */
  constructor(protocol: number, groups = 0) {
    this.#fd = netlinkSocket(protocol, groups)
    setReceiveBuffer(this.#fd, RECEIVE_BUFFER_BYTES)
    setSocketOption(this.#fd, SOL_NETLINK, NETLINK_EXT_ACK, 1)
    setSocketOption(this.#fd, SOL_NETLINK, NETLINK_CAP_ACK, 1)
    if (protocol === NETLINK_ROUTE) setSocketOption(this.#fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
  }

  /**
   * Sends the requests as one datagram and waits for all answers.
   *
   * The kernel does not stop at the first failure: what follows it is done too, and the first error is thrown.
   * @throws {NetlinkError} of the first request that was refused with an errno that it does not tolerate.
   */
  execute(requests: readonly Request[], deadline: Deadline = deadlineIn(DEADLINE_MS)): Reply[] {
    for (let tries = 1; ; tries++) {
      const { replies, interrupted } = this.#exchange(requests, deadline)
      if (interrupted === undefined) return replies
      if (tries === DUMP_TRIES_MAX) throw new NetlinkError(`${interrupted.about}, ${tries} times interrupted`, EAGAIN)
    }
  }

  #exchange(requests: readonly Request[], deadline: Deadline): { replies: Reply[]; interrupted: Request | undefined } {
    const first = this.#seq
    this.#seq = (this.#seq + requests.length) >>> 0
    send(this.#fd, encodeBatch(requests, first))

    const messages = requests.map((): Message[] => [])
    const tolerated: (number | undefined)[] = requests.map(() => undefined)
    const open = new Set(requests.keys().filter(index => isAnswered(requests[index]!.flags)))
    let failure: NetlinkError | undefined
    let interrupted: Request | undefined
    while (open.size > 0) {
      const datagram = receive(this.#fd, buffer, remainingMs(deadline))
      if (datagram === undefined) throw new NetlinkError(requests[open.values().next().value!]!.about, ETIMEDOUT)
      for (const message of decodeMessages(datagram)) {
        const index = (message.seq - first) >>> 0
        const request = requests[index]
        if (request === undefined) continue // an answer to an exchange that was given up
        if ((message.flags & NLM_F_DUMP_INTR) !== 0 && (request.flags & NLM_F_DUMP) === NLM_F_DUMP)
          interrupted = request
        if (message.type === NLMSG_ERROR) {
          const error = decodeError(message, request)
          if (error !== undefined && request.tolerate?.includes(error.errno)) tolerated[index] = error.errno
          else failure ??= error
          // An error for a request that asked for no answer (the frame of an nf_tables batch) ends the whole batch.
          if (!open.delete(index)) open.clear()
        } else if (message.type === NLMSG_DONE) open.delete(index)
        else messages[index]!.push({ ...message, body: message.body.slice() })
      }
    }
    if (failure !== undefined) throw failure
    return {
      replies: requests.map((_, index) => ({ messages: messages[index]!, tolerated: tolerated[index] })),
      interrupted,
    }
  }

  /** Waits until a message of the socket's groups arrives, and drops what has arrived. @returns false when the time is over. */
  awaitNotification(deadline: Deadline): boolean {
    if (receive(this.#fd, buffer, remainingMs(deadline)) === undefined) return false
    while (receive(this.#fd, buffer, 0) !== undefined);
    return true
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd)
  }
}
