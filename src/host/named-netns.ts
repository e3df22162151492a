// SPDX-License-Identifier: Apache-2.0

import {
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { bindMount, EINVAL, SystemError, setNetworkNamespace, unmount, unshareNetwork } from '#libc'
import { openOwnNetns } from './netns.ts'

/** Where `ip netns` keeps its names. */
const DIRECTORY = '/run/netns'

/** The path of a namespace by name. */
export const netnsPath = (name: string): string => `${DIRECTORY}/${name}`

/** The names of namespaces that begin so. */
export const listNetns = (prefix: string): string[] =>
  existsSync(DIRECTORY) ? readdirSync(DIRECTORY).filter(name => name.startsWith(prefix)) : []

/** Makes an empty network namespace that `ip netns` knows by this name. @throws {Error} where the name is taken */
export function makeNetns(name: string): void {
  const path = netnsPath(name)
  if (existsSync(path)) throw new Error(`Cannot make network namespace ${name}: ${path} is there already`)
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

/**
 * Gives a process's namespace a name that `ip netns` knows, by a link: it does not keep the namespace alive.
 * @throws {Error} where the name is taken
 */
export function linkNetns(name: string, pid: number): void {
  mkdirSync(DIRECTORY, { recursive: true, mode: 0o755 })
  symlinkSync(`/proc/${pid}/ns/net`, netnsPath(name))
}

/** Takes back what `linkNetns` gave. @returns false where there is no such link: what else has the name stays */
export function unlinkNetns(name: string): boolean {
  const path = netnsPath(name)
  const isLink = lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() ?? false
  if (!isLink || !/^\/proc\/\d+\/ns\/net$/.test(readlinkSync(path))) return false
  rmSync(path)
  return true
}

/** Takes the name away; the namespace ends when nobody is in it any more. Absence is success. */
export function removeNetns(name: string): void {
  const path = netnsPath(name)
  if (!existsSync(path)) return
  try {
    unmount(path)
  } catch (error) {
    // Nothing is mounted there: an earlier attempt ended half-way.
    if (!(error instanceof SystemError && error.errno === EINVAL)) throw error
  }
  rmSync(path, { force: true })
}
