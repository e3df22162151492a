// SPDX-License-Identifier: Apache-2.0

/** Network namespaces of the data plane: made under a name, worked on by sockets that stay in them, removed again. */
import { closeSync, existsSync } from 'node:fs'
import { ensureSysctl, inNetns, makeNetns, netnsPath, openOwnNetns, removeNetns, tryOpenNetns } from '#host'
import { NETLINK_NETFILTER, NETLINK_ROUTE, NetlinkSocket } from '#netlink'

/** A namespace with sockets in it; a socket belongs to the namespace in which it was opened, so nobody has to go there. */
export class Namespace {
  readonly name: string
  readonly fd: number
  readonly route: NetlinkSocket
  readonly netfilter: NetlinkSocket
  /** False if it was there before: then it stays. */
  readonly isOurs: boolean
  readonly #home: number

  /** Opens the namespace of that name, or makes it. @throws the system's error */
  constructor(name: string) {
    this.name = name
    this.isOurs = !existsSync(netnsPath(name))
    if (this.isOurs) makeNetns(name)
    const fd = tryOpenNetns(netnsPath(name))
    if (fd === undefined) throw new Error(`Cannot open network namespace ${name}: ${netnsPath(name)} is none`)
    this.fd = fd
    this.#home = openOwnNetns()
    const [route, netfilter] = inNetns(fd, this.#home, () => [
      new NetlinkSocket(NETLINK_ROUTE),
      new NetlinkSocket(NETLINK_NETFILTER),
    ])
    this.route = route as NetlinkSocket
    this.netfilter = netfilter as NetlinkSocket
  }

  /** Writes a setting of the namespace; a kernel without it is no error. */
  set(value: string, ...key: string[]): void {
    inNetns(this.fd, this.#home, () => ensureSysctl(value, ...key))
  }

  /** Closes the sockets and, if we made the namespace, takes its name away: it ends with the last process in it. */
  [Symbol.dispose](): void {
    this.route[Symbol.dispose]()
    this.netfilter[Symbol.dispose]()
    closeSync(this.fd)
    closeSync(this.#home)
    if (this.isOurs) removeNetns(this.name)
  }
}
