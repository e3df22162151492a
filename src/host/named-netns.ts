// SPDX-License-Identifier: Apache-2.0

import { closeSync, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
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
