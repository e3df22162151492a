// SPDX-License-Identifier: Apache-2.0

import { type Deadline, remainingMs } from '#base'
import { closeDescriptor, netlinkSocket, receive, send, setReceiveBuffer, setSendBuffer, setSocketOption } from '#libc'
import { converse, type Reply, type Transport } from './exchange.ts'
import type { Request } from './message.ts'

// linux/netlink.h
export const NETLINK_ROUTE = 0
export const NETLINK_NETFILTER = 12
const SOL_NETLINK = 270
const NETLINK_CAP_ACK = 10
const NETLINK_EXT_ACK = 11
const NETLINK_GET_STRICT_CHK = 12

const RECEIVE_BUFFER_BYTES = 4 << 20
/** A batch of nf_tables is one datagram, whatever it changes. */
const BATCH_BYTES_MAX = 4 << 20
/** The kernel packs dumps into datagrams of at most 32 KiB; a single link with many VFs may be larger. */
const DATAGRAM_BYTES_MAX = 256 << 10

/** One per thread: an exchange is synchronous, and what it returns is copied. */
const buffer = new Uint8Array(DATAGRAM_BYTES_MAX)

/**
 * A netlink socket of the namespace in which it was opened. Blocking: for worker threads and one-shot processes.
 *
 * Requests go out in one send, which the kernel works off before it returns; answers are matched by sequence number.
 */
export class NetlinkSocket implements Transport {
  readonly #fd: number
  readonly #conversation: Required<Transport>

  /** @param groups multicast groups to listen to (a bit mask, linux/rtnetlink.h: RTMGRP_*) */
  constructor(protocol: number, groups = 0) {
    const fd = netlinkSocket(protocol, groups)
    this.#fd = fd
    this.#conversation = converse({
      send: datagram => send(fd, datagram),
      receive: timeoutMs => receive(fd, buffer, timeoutMs),
    })
    try {
      setReceiveBuffer(fd, RECEIVE_BUFFER_BYTES)
      if (protocol === NETLINK_NETFILTER) setSendBuffer(fd, BATCH_BYTES_MAX)
      setSocketOption(fd, SOL_NETLINK, NETLINK_EXT_ACK, 1)
      setSocketOption(fd, SOL_NETLINK, NETLINK_CAP_ACK, 1)
      if (protocol === NETLINK_ROUTE) setSocketOption(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
    } catch (error) {
      closeDescriptor(fd)
      throw error
    }
  }

  /** For who leaves the socket to the kernel at the end of a process. */
  get descriptor(): number {
    return this.#fd
  }

  /**
   * Sends the requests as one datagram and waits for all answers.
   *
   * The kernel does not stop at the first failure: what follows it is done too, and the first error is thrown.
   * @throws {NetlinkError} of the first request that was refused with an errno that it does not tolerate.
   */
  execute(requests: readonly Request[], deadline?: Deadline): Reply[] {
    return this.#conversation.execute(requests, deadline)
  }

  /** Waits until a message of the socket's groups arrives, and drops what has arrived. @returns false when the time is over. */
  awaitNotification(deadline: Deadline): boolean {
    if (receive(this.#fd, buffer, remainingMs(deadline)) === undefined) return false
    while (receive(this.#fd, buffer, 0) !== undefined);
    return true
  }

  [Symbol.dispose](): void {
    closeDescriptor(this.#fd)
  }
}
