// SPDX-License-Identifier: Apache-2.0

import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { isSpoolEntry, lockDataDirectory, spoolOf } from '#agent'
import { type Attachment, hasJournal, listAttachments, openJournal } from '#allocator'
import { parseNetworkList } from '#cni'
import { HostContext, inlineHost, readBootId } from '#host'
import {
  bringCredentials,
  type DrainedPool,
  type DrainedPort,
  drainObjectPools,
  drainPorts,
  openSessions,
  worldOf,
} from '#plugins'
import { limitsOf, textOf } from './command.ts'

export type DrainOptions = {
  readonly dataDir: string
  /** Network lists with inline credentials, which no file of ours keeps. */
  readonly conflist?: readonly string[] | undefined
  /** Goes on although attachments are in use; they keep their addresses. */
  readonly force?: boolean | undefined
  /** Seconds for all ports together. */
  readonly timeout: string
}

export type DrainReport = {
  /** For the user. */
  readonly lines: readonly string[]
  /** True if nothing of ours is left on any port, but for what was forced. */
  readonly complete: boolean
}

const NAMED_MAX = 5

/**
 * Takes everything of ours that no pod uses out of Neutron: the reserve and what was released, of addresses and of ports. For an
 * operator whose node leaves, while no agent runs.
 *
 * @throws {Error} where an agent runs, or attachments are in use and nobody forced it
 */
export async function drain({ dataDir, conflist = [], force = false, timeout }: DrainOptions): Promise<DrainReport> {
  const limits = limitsOf(timeout, 'drain the node')
  if (!hasJournal(dataDir))
    throw new Error(`Cannot drain the node: there is no journal in ${dataDir}. Name the agent's --data-dir`)
  using _lock = lockDataDirectory(dataDir, 'drain the node')
  using journal = openJournal(dataDir)
  const bootId = readBootId()
  // What an earlier boot left is no pod's any more.
  const inUse = listAttachments(journal).filter(each => each.bootId === bootId)
  if (!force) refuseWhileInUse(inUse, promisedDels(dataDir))
  const lines: string[] = []
  await using clouds = openSessions({ dataDir, warn: message => lines.push(message) })
  for (const file of conflist)
    for (const { config } of parseNetworkList(readFileSync(file)).plugins) await bringCredentials(clouds, config)
  using context = new HostContext()
  const world = worldOf({ host: inlineHost(context), journal, bootId, clouds, longLived: false, dataDir })
  const ports = await drainPorts(world, limits)
  const pools = await drainObjectPools(world, limits)
  const described = [...ports.flatMap(describe), ...pools.flatMap(describePool)]
  return {
    lines: [...lines, ...(described.length > 0 ? described : ['nothing to drain'])],
    complete: [...ports, ...pools].every(each => each.error === undefined && (force || each.remaining.length === 0)),
  }
}

function refuseWhileInUse(inUse: readonly Attachment[], dels: number): void {
  if (inUse.length === 0 && dels === 0) return
  // An attachment has a record of each plugin of its chain.
  const names = [...new Set(inUse.map(({ ifName, containerId }) => `${ifName} of ${containerId}`))]
  const more = names.length > NAMED_MAX ? [`${names.length - NAMED_MAX} more`] : []
  const what = [
    ...(inUse.length === 0 ? [] : [`attachments are in use: ${[...names.slice(0, NAMED_MAX), ...more].join(', ')}`]),
    ...(dels === 0 ? [] : [`${dels} ${dels === 1 ? 'DEL waits' : 'DELs wait'} for the agent`]),
  ]
  throw new Error(
    `Cannot drain the node: ${what.join('; ')}. Delete its pods while the agent runs, then stop it; ` +
      '--force removes only what no attachment has',
  )
}

function promisedDels(dataDir: string): number {
  const spool = spoolOf(dataDir)
  return existsSync(spool) ? readdirSync(spool).filter(isSpoolEntry).length : 0
}

function describe({ portId, removed, remaining, error }: DrainedPort): string[] {
  const port = `port ${portId}`
  return [
    ...(removed.length > 0 || error === undefined ? [`${port}: removed ${removed.join(', ') || 'nothing'}`] : []),
    ...remaining.map(({ address, state, owner, floatingIp }) => {
      if (owner !== undefined)
        return `${port}: ${address} stays: ${owner.ifName} of container ${owner.containerId} has it`
      if (state === 'quarantined') return `${port}: ${address} stays: nobody can say whose it is`
      if (floatingIp !== undefined) return `${port}: ${address} stays: floating IP ${floatingIp} leads to it`
      return `${port}: ${address} stays: not removed yet`
    }),
    ...(error === undefined ? [] : [`${port}: ${textOf(error)}`]),
  ]
}

function describePool({ name, removed, remaining, error }: DrainedPool): string[] {
  return [
    ...(removed.length > 0 || error === undefined ? [`${name}: removed ${removed.join(', ') || 'nothing'}`] : []),
    ...remaining.map(({ addresses, id, state, owner }) => {
      const what = `${name}: ${addresses.map(each => each.address).join(' ')} (${id || 'no answer yet'}) stays`
      if (owner !== undefined) return `${what}: ${owner.ifName} of container ${owner.containerId} has it`
      return state === 'quarantined' ? `${what}: nobody can say whose it is` : `${what}: not removed yet`
    }),
    ...(error === undefined ? [] : [`${name}: ${textOf(error)}`]),
  ]
}
