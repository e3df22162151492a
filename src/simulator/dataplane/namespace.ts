// SPDX-License-Identifier: Apache-2.0

/** Network namespaces of the data plane: made under a name, worked on by sockets that stay in them, removed again. */
import { closeSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { ensureSysctl, inNetns, openOwnNetns, tryOpenNetns } from '#host'
import { bindMount, EINVAL, SystemError, setNetworkNamespace, unmount, unshareNetwork } from '#libc'
import { NETLINK_NETFILTER, NETLINK_ROUTE, NetlinkSocket } from '#netlink'

/** Where `ip netns` keeps its names. */
const DIRECTORY = '/run/netns'
export const netnsPath = (name: string): string => `${DIRECTORY}/${name}`

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

function makeNetns(name: string): void {
  const path = netnsPath(name)
  mkdirSync(DIRECTORY, { recursive: true, mode: 0o755 })
  writeFileSync(path, '', { mode: 0o444, flag: 'wx' })
  const home = openOwnNetns()
  try {
    unshareNetwork()
    bindMount('/proc/thread-self/ns/net', path)
  } catch (error) {
    rmSync(path)
    throw error
  } finally {
    setNetworkNamespace(home)
    closeSync(home)
  }
}

function removeNetns(name: string): void {
  const path = netnsPath(name)
  if (!existsSync(path)) return
  try {
    unmount(path)
  } catch (error) {
    // Nothing is mounted there any more: somebody else removed it half-way.
    if (!(error instanceof SystemError && error.errno === EINVAL)) throw error
  }
  rmSync(path, { force: true })
}
