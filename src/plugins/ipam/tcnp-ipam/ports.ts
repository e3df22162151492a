// SPDX-License-Identifier: Apache-2.0

import {
  forgetPort,
  forgetReserveAhead,
  type Journal,
  type KnownPort,
  type Limits,
  listKnownPorts,
  listPortAddresses,
  listUnreleased,
  openPortPool,
  type PortAddress,
  type PortPool,
  type PortProbe,
  type PortSettings,
  type RoundReport,
} from '#allocator'
import { formatIp } from '#base'
import { CniError, codes, type JsonObject } from '#cni'
import type { World } from '../../world.ts'
import { parseConfig } from './config.ts'
import { coverFor } from './cover.ts'
import { reachCloud, startLists } from './lists.ts'
import { objectsWaitingForCredentials, startObjectPools } from './object-pools.ts'
import { isInlineAccess } from './sessions.ts'

/** What a pool needs of a world. */
export type PortWorld = Pick<World, 'journal' | 'bootId' | 'longLived' | 'arrivals'>

type Pools = {
  readonly byPort: Map<string, PortPool>
  /** Addresses that pods of this node have, as the kernel said when the agent started. */
  inUse: ReadonlySet<string>
  warn: (error: unknown) => void
  /** What was said of ports that wait for credentials. */
  readonly told: Map<string, string>
}

// One set of pools per journal, because one process may be several nodes (tests), and a node has one journal.
const pools = new WeakMap<Journal, Pools>()

function poolsOf(journal: Journal): Pools {
  const known = pools.get(journal) ?? { byPort: new Map(), inUse: new Set(), warn: () => {}, told: new Map() }
  pools.set(journal, known)
  return known
}

/** The pool of a port, with the credentials and settings that the call brought. */
export function poolFor(
  world: PortWorld & Pick<World, 'clouds'>,
  port: { portId: string; access: string; settings: PortSettings; probe?: PortProbe | undefined },
): PortPool {
  const all = poolsOf(world.journal)
  const known = all.byPort.get(port.portId)
  const neutron = async () => {
    const session = await reachCloud(world, port.access)
    return { ...session.neutron, health: () => session.health('network') }
  }
  const cover = coverFor(world, port)
  // A call without a NIC at hand (a release) leaves the probe as it is.
  known?.use({ ...port, neutron, cover })
  if (known !== undefined) return known
  let told = ''
  let isFirst = true
  const pool = openPortPool({
    ...port,
    neutron,
    cover,
    journal: world.journal,
    bootId: world.bootId,
    longLived: world.longLived,
    arrivals: world.arrivals,
    // What the kernel had when the agent started says something about the writes of the agent before it.
    inUse: address => isFirst && all.inUse.has(address),
    onError: error => all.warn(error),
    onOverlap: () => all.warn(new Error(overlapOn(port.portId))),
    onReport: report => {
      isFirst = false
      const text = complaint(port.portId, report)
      if (text !== '' && text !== told) all.warn(new Error(text))
      told = text
    },
  })
  all.byPort.set(port.portId, pool)
  all.told.delete(port.portId)
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
  if (session !== undefined) return poolFor(world, known)
  tellWaiting(world, known.portId)
  return undefined
}

/** Says that releases wait for credentials, again only when it is for other addresses. */
function tellWaiting(world: PortWorld, portId: string): void {
  const { told, warn } = poolsOf(world.journal)
  const waiting = listUnreleased(world.journal, portId, world.bootId)
  const text = waitingText(portId, waiting)
  if (!world.longLived || waiting.length === 0 || told.get(portId) === text) return
  told.set(portId, text)
  warn(new Error(text))
}

function waitingText(portId: string, waiting: readonly PortAddress[]): string {
  const addresses = waiting.map(each => each.address).sort()
  return (
    `Cannot release ${addresses.join(', ')} of port ${portId} yet: its cloud's credentials stand in no file ("openstackConf"). ` +
    'The agent does it once a call of that network has brought them since its start; without one: ' +
    'mooring drain --conflist FILE while the agent is stopped. With "cloud" nothing waits'
  )
}

/** Addresses whose release waits for a call with credentials, or for an agent that has had one, and a text for each port. */
export function listWaitingForCredentials(
  journal: Journal,
  bootId: string,
): { readonly addresses: readonly Pick<PortAddress, 'portId' | 'address'>[]; readonly text: string }[] {
  const ports = listKnownPorts(journal)
    .filter(({ access }) => isInlineAccess(access))
    .map(({ portId }) => ({ portId, addresses: listUnreleased(journal, portId, bootId) }))
    .filter(({ addresses }) => addresses.length > 0)
    .map(({ portId, addresses }) => ({ addresses, text: waitingText(portId, addresses) }))
  const objects = objectsWaitingForCredentials(journal, bootId).map(({ objects, text }) => ({
    addresses: objects.flatMap(({ id, addresses }) => addresses.map(({ address }) => ({ portId: id, address }))),
    text,
  }))
  return [...ports, ...objects]
}

const overlapOn = (portId: string) =>
  `Somebody has written port ${portId} at the same moment as we did, and Neutron may have undone it: whoever it was should ` +
  'look whether the change is there'

function complaint(portId: string, { lost, repaired, returned, strange }: RoundReport): string {
  const texts = []
  if (repaired.length > 0)
    texts.push(`Somebody has taken ${repaired.join(', ')} off port ${portId}, which attachments use: put back`)
  if (returned.length > 0)
    texts.push(`Somebody has put ${returned.join(', ')} on port ${portId} again, which we had removed: removed again`)
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
  world: PortWorld & Pick<World, 'clouds' | 'host' | 'dataDir'>,
  warn: (error: unknown) => void,
): AsyncDisposable {
  const all = poolsOf(world.journal)
  all.warn = warn
  let ended = false
  const lists = startLists(world, warn)
  const objects = startObjectPools(world, warn)
  const started = takeUp(world, all, () => ended).catch(warn)
  return {
    async [Symbol.asyncDispose]() {
      ended = true
      await started
      await Promise.all([...all.byPort.values()].map(pool => pool.close()))
      all.byPort.clear()
      await lists[Symbol.asyncDispose]()
      await objects[Symbol.asyncDispose]()
    },
  }
}

async function takeUp(
  world: PortWorld & Pick<World, 'clouds' | 'host' | 'dataDir'>,
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

/** What became of a port that was drained. */
export type DrainedPort = {
  readonly portId: string
  readonly removed: readonly string[]
  /** On the port and not foreign to us: in use, in quarantine, or the end of somebody's floating IP. */
  readonly remaining: readonly PortAddress[]
  /** Why it could not be drained to the end. */
  readonly error?: unknown
}

/**
 * Removes the reserve and everything released from every port: before the agent leaves a node for good. A port of which
 * nothing is left is forgotten.
 */
export async function drainPorts(
  world: PortWorld & Pick<World, 'clouds'>,
  limits: Parameters<PortPool['settle']>[0],
): Promise<DrainedPort[]> {
  const drained: DrainedPort[] = []
  for (const known of listKnownPorts(world.journal)) drained.push(await drainPort(world, known, limits))
  return drained
}

async function drainPort(
  world: PortWorld & Pick<World, 'clouds'>,
  { portId, access, settings }: KnownPort,
  limits: Parameters<PortPool['settle']>[0],
): Promise<DrainedPort> {
  const { journal } = world
  const ours = () => listPortAddresses(journal, portId).filter(each => each.state !== 'foreign')
  const before = ours()
  let failure: { error?: unknown } = {}
  try {
    const session = await world.clouds.reach(access)
    if (session === undefined)
      throw new CniError(codes.invalidConfig, 'its credentials stand in no file', {
        details: 'name the network list that holds them: --conflist FILE',
      })
    forgetReserveAhead(journal, portId)
    const pool = poolFor(world, { portId, access, settings: { ...settings, reserve: 0 } })
    await pool.settle(limits)
  } catch (error) {
    failure = { error }
  }
  const remaining = ours()
  if (failure.error === undefined && remaining.length === 0) {
    forgetPort(journal, portId)
    if (settings.holder !== undefined) failure = await deleteHolder(world, portId, access, limits)
  }
  const left = new Set(remaining.map(each => each.address))
  const removed = before.map(each => each.address).filter(address => !left.has(address))
  return { portId, removed, remaining, ...failure }
}

/** A holder is ours, and of no use without us; unless somebody has put an address on it. */
async function deleteHolder(
  world: PortWorld & Pick<World, 'clouds'>,
  portId: string,
  access: string,
  limits: Limits,
): Promise<{ error?: unknown }> {
  try {
    const { ports } = (await reachCloud(world, access)).neutron
    const port = await ports.get(portId, limits)
    if (port !== undefined && port.fixed_ips.length === 0)
      await ports.delete(portId, { ...limits, ifRevision: port.revision_number })
    return {}
  } catch (error) {
    return { error }
  }
}

/** Logs in with the inline credentials of a plugin's configuration, for ports that were used with them; does nothing where there are none. */
export async function bringCredentials(clouds: World['clouds'], config: JsonObject): Promise<void> {
  const ipam = config['ipam']
  if (typeof ipam !== 'object' || ipam === null || !('openstackConf' in ipam)) return
  const { cloud, neutronConf } = parseConfig(config)
  await clouds.open(cloud, { dataDir: neutronConf.dataDir })
}
