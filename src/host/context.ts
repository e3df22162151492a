// SPDX-License-Identifier: Apache-2.0

import { closeSync } from 'node:fs'
import { abandonDescriptors, closeDescriptor, packetListener, packetSocket } from '#libc'
import { NETLINK_NETFILTER, NETLINK_ROUTE, NetlinkSocket } from '#netlink'
import { ETH_P_ARP } from './arp.ts'
import { inNetns, openOwnNetns, refuseLostThread } from './netns.ts'

/**
 * What a thread needs to work on the node: its namespace and the long-lived sockets there.
 *
 * Long-lived matters: closing a netfilter socket after a deletion waits for RCU, 7-13 ms.
 */
export class HostContext {
  /** The node's namespace. */
  readonly home: number
  /** The thread's own, where that is another: it is left during a verb only. */
  readonly #own: number | undefined
  readonly route: NetlinkSocket
  #netfilter: NetlinkSocket | undefined
  #packet: number | undefined
  readonly #arpListeners = new Map<number, number>()

  #closed = false
  /** The namespace that the thread is in by `inNetns`. */
  #visited: number | undefined

  /** @param home the node's namespace, where it is not the thread's; it is the context's to close */
  constructor(home?: number) {
    const own = openOwnNetns()
    this.home = home ?? own
    this.#own = home === undefined ? undefined : own
    this.route = this.onNode(() => new NetlinkSocket(NETLINK_ROUTE))
  }

  /** Runs something in the node's namespace. */
  onNode<T>(run: () => T): T {
    if (this.#closed) throw new Error('Cannot work on the node: its sockets are closed')
    refuseLostThread()
    return this.#own === undefined ? run() : inNetns(this.home, this.#own, run)
  }

  get netfilter(): NetlinkSocket {
    this.#netfilter ??= this.#atHome(() => new NetlinkSocket(NETLINK_NETFILTER))
    return this.#netfilter
  }

  /** A packet socket for announcements. */
  get packet(): number {
    this.#packet ??= this.#atHome(packetSocket)
    return this.#packet
  }

  /** A packet socket that hears the ARP of a link. */
  arpListener(link: number): number {
    const listener = this.#arpListeners.get(link) ?? this.#atHome(() => packetListener(link, ETH_P_ARP))
    this.#arpListeners.set(link, listener)
    return listener
  }

  /** Within `onNode`: runs something in another namespace with an rtnetlink socket of that namespace. */
  inNetns<T>(fd: number, run: (route: NetlinkSocket) => T): T {
    return inNetns(fd, this.home, () => {
      this.#visited = fd
      try {
        using route = new NetlinkSocket(NETLINK_ROUTE)
        return run(route)
      } finally {
        this.#visited = undefined
      }
    })
  }

  /** A socket is of the namespace in which it is opened, for good: those that are kept must be the node's. */
  #atHome<T>(open: () => T): T {
    return this.#visited === undefined ? open() : inNetns(this.home, this.#visited, open)
  }

  /** Instead of disposing, at the end of a process: the sockets whose closing waits for RCU are left to the kernel. */
  abandon(): void {
    this.#closed = true
    const sockets = [this.#netfilter?.descriptor, this.#packet, ...this.#arpListeners.values()]
    abandonDescriptors(sockets.filter(socket => socket !== undefined))
  }

  [Symbol.dispose](): void {
    if (this.#closed) return
    this.#closed = true
    this.route[Symbol.dispose]()
    this.#netfilter?.[Symbol.dispose]()
    if (this.#packet !== undefined) closeDescriptor(this.#packet)
    for (const listener of this.#arpListeners.values()) closeDescriptor(listener)
    closeSync(this.home)
    if (this.#own !== undefined) closeSync(this.#own)
  }
}
