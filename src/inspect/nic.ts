// SPDX-License-Identifier: Apache-2.0

import { closeSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { type Host, type NetnsIdentity, type NicState, tryOpenSameNetns } from '#host'
import type { Target } from './target.ts'

/** What is kept of a NIC that was given away by hand. */
type Given = {
  readonly nic: NicState
  readonly podIndex: number | null
  readonly netns: string
  readonly identity: NetnsIdentity
}

/** By its name on the node. */
const fileOf = (dataDir: string, name: string) => join(dataDir, 'nics', `${encodeURIComponent(name)}.json`)

/**
 * Moves a NIC of the node into a namespace. It is down there, without addresses, as `ip link set … netns …` leaves it; what
 * it had is kept for the way back.
 * @returns a line for the user @throws {Error} where there is none, or the node's default route leads through it
 */
export async function giveNicAway(
  host: Host,
  target: Target,
  options: { device: string; name?: string | undefined; force?: boolean; dataDir: string },
): Promise<string> {
  const { device, dataDir } = options
  const { netnsFd, identity } = target
  if (netnsFd === undefined || identity === undefined)
    throw new Error(`Cannot move ${device}: the namespace ${target.path} is gone`)
  const found = await host.findNic({ selector: { by: 'name', name: device } })
  if (found === undefined || !('nic' in found)) throw new Error(`Cannot move ${device}: the node has no such NIC`)
  const { nic } = found
  if (!options.force && (await host.findUplink({}))?.index === nic.index)
    throw new Error(`Cannot move ${nic.name}: the default route of the node leads through it. --force moves it`)
  const ifName = options.name ?? nic.name
  const given: Given = { nic, podIndex: null, netns: target.path, identity }
  keep(fileOf(dataDir, nic.name), given)
  try {
    const { index } = await host.moveNicIn({ nic, netnsFd, ifName })
    keep(fileOf(dataDir, nic.name), { ...given, podIndex: index })
  } catch (error) {
    // Where the way back failed too, or the second note, what it had is known nowhere else.
    if (await isOnNode(host, nic)) rmSync(fileOf(dataDir, nic.name))
    throw error
  }
  return `${nic.name} is ${ifName} in ${target.path}, down; back with: mooring nic move ${nic.name} host`
}

/**
 * Brings a NIC back to the node, with all that it had where `giveNicAway` moved it.
 * @param from the namespace in which it has the name `device`, for one that was moved by other means
 * @returns a line for the user @throws {Error} where it is not found
 */
export async function bringNicBack(
  host: Host,
  { device, from, dataDir }: { device: string; from?: Target | undefined; dataDir: string },
): Promise<string> {
  const file = fileOf(dataDir, device)
  if (from === undefined && existsSync(file)) {
    const { nic, podIndex, netns, identity } = JSON.parse(readFileSync(file, 'utf8')) as Given
    const netnsFd = tryOpenSameNetns(netns, identity)
    try {
      const isBack = (await host.bringNicHome({ nic, podIndex, netnsFd })) || (await isOnNode(host, nic))
      if (!isBack)
        throw new Error(`Cannot find ${device}, which was moved to ${netns}: it is neither there nor on the node`)
    } finally {
      if (netnsFd !== undefined) closeSync(netnsFd)
    }
    rmSync(file)
    return `${nic.name} is back, with what it had`
  }
  const netnsFd = from?.netnsFd
  if (netnsFd === undefined)
    throw new Error(`Cannot bring ${device} back: nothing is known of it. Say where it is: --from NETNS`)
  const stray =
    (await host.findStrayNic({ netnsFd, ifName: device })) ??
    (await host.findStrayNic({ netnsFd, ifName: device, asNamed: true }))
  if (stray === undefined || !(await host.bringNicHome({ ...stray, netnsFd })))
    throw new Error(`Cannot bring ${device} back: ${from!.path} has no such NIC, or the node has one of its name`)
  return `${stray.nic.name} is back, down: nothing is known of what it had`
}

/** Also where the machine was started again: it was never away then. */
async function isOnNode(host: Host, nic: NicState): Promise<boolean> {
  const found = await host.findNic({ selector: { by: 'name', name: nic.name } })
  return found !== undefined && 'nic' in found && found.nic.permanentMac === nic.permanentMac
}

function keep(file: string, given: Given): void {
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 })
  writeFileSync(`${file}.next`, JSON.stringify(given), { mode: 0o600 })
  renameSync(`${file}.next`, file)
}
