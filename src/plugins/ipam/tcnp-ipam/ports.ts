// SPDX-License-Identifier: Apache-2.0

import {
  type Journal,
  type KnownPort,
  listKnownPorts,
  openPortPool,
  type PortPool,
  type PortSettings,
  type RoundReport,
} from '#allocator'
import { formatIp } from '#base'
import type { Neutron } from '#openstack'
import type { World } from '../../world.ts'

/** What a pool needs of a world. */
export type PortWorld = Pick<World, 'journal' | 'bootId' | 'longLived'>

type Pools = {
  readonly byPort: Map<string, PortPool>
  /** Addresses that pods of this node have, as the kernel said when the agent started. */
  inUse: ReadonlySet<string>
  warn: (error: unknown) => void
}

// One set of pools per journal, because one process may be several nodes (tests), and a node has one journal.
const pools = new WeakMap<Journal, Pools>()

function poolsOf(journal: Journal): Pools {
  const known = pools.get(journal) ?? { byPort: new Map(), inUse: new Set(), warn: () => {} }
  pools.set(journal, known)
  return known
}

/** The pool of a port, with the credentials and settings that the call brought. */
export function poolFor(
  world: PortWorld,
  port: { portId: string; access: string; neutron: Neutron; settings: PortSettings },
): PortPool {
  const all = poolsOf(world.journal)
  const known = all.byPort.get(port.portId)
  known?.use(port)
  if (known !== undefined) return known
  let told = ''
  const pool = openPortPool({
    ...port,
    journal: world.journal,
    bootId: world.bootId,
    longLived: world.longLived,
    inUse: address => all.inUse.has(address),
    onError: error => all.warn(error),
    onReport: report => {
      const text = complaint(port.portId, report)
      if (text !== '' && text !== told) all.warn(new Error(text))
      told = text
    },
  })
  all.byPort.set(port.portId, pool)
  return pool
}

/** The pool of a port that the journal knows, undefined while nobody brought the credentials for it. */
export async function poolOfKnown(
  world: PortWorld & Pick<World, 'clouds'>,
  portId: string,
): Promise<PortPool | undefined> {
  const open = poolsOf(world.journal).byPort.get(portId)
  if (open !== undefined) return open
  const known = listKnownPorts(world.journal).find(each => each.portId === portId)
  return known === undefined ? undefined : await reopen(world, known)
}

async function reopen(world: PortWorld & Pick<World, 'clouds'>, known: KnownPort): Promise<PortPool | undefined> {
  const session = await world.clouds.reach(known.access)
  if (session === undefined) return undefined
  const { portId, access, settings } = known
  return poolFor(world, { portId, access, settings, neutron: session.neutron })
}

function complaint(portId: string, { lost, strange }: RoundReport): string {
  const texts = []
  if (lost.length > 0)
    texts.push(`Port ${portId} has lost ${lost.map(each => each.address).join(', ')}, which attachments use`)
  if (strange.length > 0)
    texts.push(
      `Port ${portId} has ${strange.join(', ')} that nobody can attribute: put into quarantine; "mooring ip list" shows them`,
    )
  return texts.join('; ')
}

/**
 * Takes up what an earlier process left: unfinished writes, releases that the cloud has not heard of, attachments of an
 * earlier boot. Ports whose credentials stand in no file wait for the call that brings them.
 *
 * @param warn told of what goes wrong in the background; it is tried again.
 * @returns disposing of it ends the work in the background.
 */
export function startPorts(
  world: PortWorld & Pick<World, 'clouds' | 'host'>,
  warn: (error: unknown) => void,
): AsyncDisposable {
  const all = poolsOf(world.journal)
  all.warn = warn
  let ended = false
  const started = takeUp(world, all, () => ended).catch(warn)
  return {
    async [Symbol.asyncDispose]() {
      ended = true
      await started
      await Promise.all([...all.byPort.values()].map(pool => pool.close()))
      all.byPort.clear()
    },
  }
}

async function takeUp(
  world: PortWorld & Pick<World, 'clouds' | 'host'>,
  all: Pools,
  isOver: () => boolean,
): Promise<void> {
  const ports = listKnownPorts(world.journal)
  if (ports.length === 0) return
  const pods = await world.host.listFirewallPods()
  all.inUse = new Set(pods.flatMap(pod => pod.addresses.map(formatIp)))
  for (const port of ports) {
    if (isOver()) return
    try {
      const pool = await reopen(world, port)
      pool?.kick()
    } catch (error) {
      all.warn(error)
    }
  }
}

/** Removes the reserve and everything released from every port that can be reached: before the agent leaves a node for good. */
export async function drainPorts(
  world: PortWorld & Pick<World, 'clouds'>,
  limits: Parameters<PortPool['settle']>[0],
): Promise<void> {
  for (const known of listKnownPorts(world.journal)) {
    const settings = { ...known.settings, reserve: 0 }
    const session = await world.clouds.reach(known.access)
    if (session === undefined) continue
    const pool = poolFor(world, { ...known, settings, neutron: session.neutron })
    await pool.settle(limits)
  }
}
