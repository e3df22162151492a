// SPDX-License-Identifier: Apache-2.0

import {
  type CloudObject,
  findObjectPool,
  forgetObjectPool,
  forgetReserveAhead,
  hasReleasingObjects,
  isObjectReleased,
  type Journal,
  type KnownPool,
  type Limits,
  listObjectPools,
  listObjects,
  type ObjectDriver,
  type ObjectPool,
  type ObjectReport,
  openObjectPool,
  releaseObjectsOf,
  releaseOtherObjects,
} from '#allocator'
import { atMost } from '#base'
import type { Call } from '#cni'
import type { CloudSession, Health } from '#openstack'
import type { World } from '../../world.ts'
import { adoptedDriverOf } from './adopted/driver-of.ts'
import { ENI, nicDriverOf } from './eni/driver-of.ts'
import { healthOf } from './health.ts'
import { reachCloud } from './lists.ts'
import { portDriverOf } from './separate/driver-of.ts'
import { isInlineAccess } from './sessions.ts'
import { ownerOf, type Source } from './source.ts'
import { tryBring, warnOfRelease } from './untold.ts'

/** What a pool of objects needs of a world. */
export type ObjectWorld = Pick<World, 'journal' | 'bootId' | 'longLived' | 'arrivals' | 'clouds' | 'host' | 'dataDir'>

/** Makes the driver of a pool from what the journal keeps of it. */
export type DriverMaker = (
  pool: Omit<KnownPool, 'seenBootId'>,
  world: ObjectWorld,
  session: CloudSession,
  /** Starts a round of another pool of this process. */
  kick: (pool: string) => void,
) => ObjectDriver

/** Modes whose leases are whole objects of the cloud. */
const driverMakers: Readonly<Record<string, DriverMaker>> = {
  separate: portDriverOf,
  eni: nicDriverOf,
  adopted: adoptedDriverOf,
}

/** A NIC takes up to a minute and a half, and a reserve of them as many times as long. */
const NIC_ROUND_MS = 1_800_000
/** A DEL that nobody finishes in the background tries for so long, then leaves it to the next call. */
const RELEASE_MS = 20_000

type Pools = { readonly byName: Map<string, ObjectPool>; warn: (error: unknown) => void }

// One set of pools per journal, because one process may be several nodes (tests), and a node has one journal.
const pools = new WeakMap<Journal, Pools>()

function poolsOf(journal: Journal): Pools {
  const known = pools.get(journal) ?? { byName: new Map(), warn: () => {} }
  pools.set(journal, known)
  return known
}

/** The pool with the credentials and settings that the call brought. */
export function objectPoolFor(world: ObjectWorld, known: Omit<KnownPool, 'seenBootId'>): ObjectPool {
  const all = poolsOf(world.journal)
  const { pool, kind, access, settings, detail } = known
  const kick = (name: string) => all.byName.get(name)?.kick()
  let session: CloudSession | undefined
  const driver = async () => {
    session = await reachCloud(world, access)
    return driverMakers[kind]!(known, world, session, kick)
  }
  const health = (): Health => (session === undefined ? { level: 'normal', retryMs: 0 } : healthOf(session, kind))
  const next = { driver, access, settings, detail, health }
  const open = all.byName.get(pool)
  open?.use(next)
  if (open !== undefined) return open
  let told = ''
  const made = openObjectPool({
    ...next,
    pool,
    kind,
    journal: world.journal,
    bootId: world.bootId,
    longLived: world.longLived,
    arrivals: world.arrivals,
    roundMs: kind === ENI ? NIC_ROUND_MS : undefined,
    onError: error => all.warn(error),
    onReport: report => {
      const text = complaint(settings.name, report)
      if (text !== '' && text !== told) all.warn(new Error(text))
      told = text
    },
  })
  all.byName.set(pool, made)
  return made
}

function complaint(name: string, { lost, strange }: ObjectReport): string {
  const texts = []
  if (lost.length > 0)
    texts.push(`The cloud has lost ${lost.map(each => each.id).join(', ')} of the ${name}, which attachments use`)
  if (strange.length > 0)
    texts.push(`${strange.join(', ')} of the ${name} put into quarantine; "mooring ip list" shows them`)
  return texts.join('; ')
}

/** Takes up what an earlier process left: creations without an answer, releases, attachments of an earlier boot. */
export function startObjectPools(world: ObjectWorld, warn: (error: unknown) => void): AsyncDisposable {
  const all = poolsOf(world.journal)
  all.warn = warn
  const started = takeUp(world).catch(warn)
  return {
    async [Symbol.asyncDispose]() {
      await started
      await Promise.all([...all.byName.values()].map(pool => pool.close()))
      all.byName.clear()
    },
  }
}

async function takeUp(world: ObjectWorld): Promise<void> {
  for (const known of listObjectPools(world.journal))
    if ((await world.clouds.reach(known.access)) !== undefined) objectPoolFor(world, known).kick()
  for (const { text } of objectsWaitingForCredentials(world.journal, world.bootId))
    poolsOf(world.journal).warn(new Error(text))
}

/** Objects whose release waits for a call with credentials, or for an agent that has had one, and a text for each pool. */
export function objectsWaitingForCredentials(
  journal: Journal,
  bootId: string,
): { readonly objects: readonly CloudObject[]; readonly text: string }[] {
  return listObjectPools(journal)
    .filter(({ access }) => isInlineAccess(access))
    .map(({ pool, settings }) => ({ settings, objects: listObjects(journal, pool).filter(isUnreleased(bootId)) }))
    .filter(({ objects }) => objects.length > 0)
    .map(({ settings, objects }) => ({
      objects,
      text:
        `Cannot release ${objects.map(nameOfObject).sort().join(', ')} of the ${settings.name} yet: their cloud's ` +
        'credentials stand in no file ("openstackConf"). The agent does it once a call of that network has brought them ' +
        'since its start; without one: mooring drain --conflist FILE while the agent is stopped. With "cloud" nothing waits',
    }))
}

const isUnreleased =
  (bootId: string) =>
  ({ state, bootId: own }: CloudObject) =>
    state === 'releasing' || state === 'removing' || (state === 'assigned' && own !== bootId)

const nameOfObject = ({ addresses, id }: CloudObject) => addresses.map(each => each.address).join(' ') || id

/** What became of a pool that was drained. */
export type DrainedPool = {
  readonly name: string
  /** Addresses of what was removed. */
  readonly removed: readonly string[]
  /** In use, in quarantine, or not removed. */
  readonly remaining: readonly CloudObject[]
  /** Why it could not be drained to the end. */
  readonly error?: unknown
}

/**
 * Removes the reserve and everything released from every pool: before the agent leaves a node for good. A pool of which
 * nothing is left is forgotten.
 */
export async function drainObjectPools(world: ObjectWorld, limits: Limits): Promise<DrainedPool[]> {
  const drained: DrainedPool[] = []
  for (const known of listObjectPools(world.journal)) drained.push(await drainObjectPool(world, known, limits))
  return drained
}

async function drainObjectPool(world: ObjectWorld, known: KnownPool, limits: Limits): Promise<DrainedPool> {
  const { journal } = world
  const { pool, settings } = known
  const before = listObjects(journal, pool)
  let failure: { error?: unknown } = {}
  try {
    forgetReserveAhead(journal, pool)
    await objectPoolFor(world, { ...known, settings: { ...settings, reserve: 0 } }).settle(limits)
  } catch (error) {
    failure = { error }
  }
  const remaining = listObjects(journal, pool)
  if (failure.error === undefined && remaining.length === 0) forgetObjectPool(journal, pool)
  const left = new Set(remaining.map(each => each.mark))
  const removed = before.filter(({ mark }) => !left.has(mark)).map(nameOfObject)
  return { name: settings.name, removed, remaining, ...failure }
}

/** Releases of a mode whose leases are objects. */
export const objectReleases = (kind: string): Pick<Source, 'release' | 'releaseOthers'> => ({
  release: (call, world) => tellCloud(call, world, kind, releaseObjectsOf(world.journal, kind, ownerOf(call))),
  releaseOthers: async (call, world, isLiving, beforeMs) => {
    const which = { kind, network: call.network, beforeMs }
    await tellCloud(call, world, kind, await releaseOtherObjects(world.journal, which, isLiving))
  },
})

/**
 * The release is recorded, which is all that the caller has to wait for: the agent tells the cloud in the background. A process
 * that lives for one call tries it itself, and leaves to the next one what does not succeed.
 */
async function tellCloud(call: Call, world: World, kind: string, released: readonly CloudObject[]): Promise<void> {
  const own = Map.groupBy(released, each => each.pool)
  const all = listObjectPools(world.journal).map(({ pool }) => pool)
  // What an open pool has to tell it tells by itself.
  const untold = world.longLived ? all.filter(name => !poolsOf(world.journal).byName.has(name)) : all
  const waiting = untold.filter(name => hasReleasingObjects(world.journal, name))
  for (const name of new Set([...own.keys(), ...waiting])) {
    const known = findObjectPool(world.journal, name)
    if (known?.kind !== kind) continue
    const marks = (own.get(name) ?? []).map(each => each.mark)
    try {
      const pool = await poolForRelease(call, world, known, own.has(name))
      if (world.longLived) pool?.kick()
      else await pool?.settle(releaseLimits(call), () => marks.length > 0 && marks.every(isGone(world)))
    } catch (error) {
      warnOfRelease(world, known.settings.name, error)
    }
  }
}

const isGone =
  ({ journal }: World) =>
  (mark: string) =>
    isObjectReleased(journal, mark)
const releaseLimits = (call: Call): Limits => ({ deadline: atMost(call.deadline, RELEASE_MS), signal: call.signal })

/**
 * With the credentials that the journal names, else, for an object of this network, with those of this call. What others
 * left is none of this call's business where it does not lead to their cloud.
 * @throws why there is no way to the cloud
 */
async function poolForRelease(
  call: Call,
  world: World,
  known: KnownPool,
  isOwn: boolean,
): Promise<ObjectPool | undefined> {
  // First, because the call may bring what the journal only names.
  const brought = await tryBring(call, world)
  const named = await world.clouds.reach(known.access).catch((error: unknown) => {
    if (!isOwn || 'error' in brought) throw error
    return undefined
  })
  if (named !== undefined) return objectPoolFor(world, known)
  if (!isOwn) return undefined
  if ('error' in brought) throw brought.error
  return objectPoolFor(world, { ...known, access: brought.access })
}
