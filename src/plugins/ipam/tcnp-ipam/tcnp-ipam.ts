// SPDX-License-Identifier: Apache-2.0

import { type AddressOwner, type Journal, type Limits, listKnownPorts, listObjectPools } from '#allocator'
import { type Call, CniError, codes, type Plugin, type Result, type ValidAttachment } from '#cni'
import { levelNames, OpenStackError } from '#openstack'
import { GC_GUARD_MS } from '../../record.ts'
import { everyStep } from '../../steps.ts'
import type { World } from '../../world.ts'
import { adopted } from './adopted/adopted.ts'
import { choose } from './choice.ts'
import { type Config, parseConfig } from './config.ts'
import { eni } from './eni/eni.ts'
import { healthOf } from './health.ts'
import { mix } from './mix.ts'
import { readResolvConf } from './resolv-conf.ts'
import { separate } from './separate/separate.ts'
import { ownerOf, type Source } from './source.ts'
import { fromCloud } from './to-cni-error.ts'

const STATUS_AGE_MS = 10_000

const sources: Readonly<Record<Config['neutronConf']['mode'], Source>> = { mix, mix_route: mix, separate, eni }
/** Releases and CHECK ask all: the journal says whose an address is. */
const everySource = [...new Set([...Object.values(sources), adopted])]

/** Addresses of Neutron for pods; "neutronConf.mode" says how. */
export const tcnpIpam: Plugin<World> = {
  type: 'tcnp-ipam',
  needsNetns: false,
  add: (call, world) => mapped(add(call, world)),
  del: (call, world) => mapped(del(call, world)),
  check: (call, world) => mapped(check(call, world)),
  status: (call, world) => status(call, world),
  gc: (call, world, valid) => mapped(gc(call, world, valid)),
}

async function mapped<T>(work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (error) {
    throw fromCloud(error) ?? error
  }
}

async function add(call: Call, world: World): Promise<Result> {
  const config = parseConfig(call.config)
  const choice = choose(config, call)
  const urgent: Call & Limits = { ...call, purpose: 'pod' }
  // Read first: a file that is missing must not cost an address.
  const resolv = config.resolvConf === undefined ? undefined : await readResolvConf(config.resolvConf)
  const { interfaces, ips, dns } = await sources[config.neutronConf.mode].acquire(config, urgent, world, choice)
  return { ...(interfaces === undefined ? {} : { interfaces }), ips, routes: [...config.routes], dns: resolv ?? dns }
}

async function del(call: Call, world: World): Promise<void> {
  await everyStep(...everySource.map(source => () => source.release(call, world)))
}

async function check(call: Call, world: World): Promise<void> {
  const config = parseConfig(call.config)
  const holding = everySource.filter(source => source.holds(ownerOf(call), world))
  const faults = holding.length === 0 ? ['no address of Neutron is recorded for it'] : []
  for (const source of holding) faults.push(...(await source.findFaults(config, call, world)))
  if (faults.length > 0)
    throw new CniError(codes.checkFailed, `Interface ${call.ifName} of container ${call.containerId}: ${faults[0]}`, {
      details: faults.slice(1).join('; '),
    })
}

type Verdict = { readonly atMs: number; readonly error: CniError | undefined; readonly passes: boolean }
type Memory = { verdict: Verdict | undefined; running: Promise<Verdict> | undefined }
const memories = new WeakMap<Journal, Map<string, Memory>>()

/** Says what was found a moment ago, so that a runtime may ask often; only the first question waits for the cloud. */
async function status(call: Call, world: World): Promise<void> {
  const config = parseConfig(call.config)
  const memory = memoryOf(call, world)
  if (memory.verdict === undefined || performance.now() - memory.verdict.atMs > STATUS_AGE_MS) {
    memory.running ??= examine(config, world).finally(() => {
      memory.running = undefined
    })
    const fresh = memory.running.then(async verdict => {
      // A node that was ready stays so while the cloud is away for a while, or refuses a password that was changed there
      // first: its pods run, its reserve serves, and what a NotReady node costs, the eviction of all its pods, helps
      // nobody. An ADD that cannot be served says so itself.
      const wasReady =
        memory.verdict === undefined ? await hasServed(config, world) : memory.verdict.error === undefined
      const stays = verdict.passes && wasReady
      memory.verdict = stays ? { ...verdict, error: undefined } : verdict
    })
    if (memory.verdict === undefined) await fresh
    else fresh.catch(() => {})
  }
  if (memory.verdict?.error !== undefined) throw memory.verdict.error
}

function memoryOf(call: Call, world: World): Memory {
  const all = memories.get(world.journal) ?? new Map<string, Memory>()
  memories.set(world.journal, all)
  const key = JSON.stringify(call.config['ipam'])
  const memory = all.get(key) ?? { verdict: undefined, running: undefined }
  all.set(key, memory)
  return memory
}

async function examine(config: Config, world: World): Promise<Verdict> {
  try {
    await sources[config.neutronConf.mode].examine(config, world)
    return { atMs: performance.now(), error: undefined, passes: false }
  } catch (error) {
    const known = error instanceof CniError ? error : fromCloud(error)
    if (known === undefined) throw error
    const { message } = known
    const texts = [known.details, await sicknessOf(config, world)].filter(each => each !== undefined)
    const details = texts.length === 0 ? undefined : texts.join('; ')
    return {
      atMs: performance.now(),
      error: new CniError(codes.notAvailable, `No address can be given: ${message}`, { details, cause: error }),
      passes: known.code === codes.tryAgainLater || (error instanceof OpenStackError && error.kind === 'auth'),
    }
  }
}

/** True where the agent that ran before in this boot has seen a port or pool of the configuration's cloud: it was ready. */
async function hasServed(
  { cloud, neutronConf }: Config,
  { journal, bootId, clouds, longLived }: World,
): Promise<boolean> {
  if (!longLived) return false
  const opened = await clouds.open(cloud, { dataDir: neutronConf.dataDir }).catch(() => undefined)
  return [...listKnownPorts(journal), ...listObjectPools(journal)].some(
    ({ access, seenBootId }) => access === opened?.access && seenBootId === bootId,
  )
}

/** The level of the configuration's cloud in words, undefined at `normal`. */
async function sicknessOf({ cloud, neutronConf }: Config, world: World): Promise<string | undefined> {
  const opened = await world.clouds.open(cloud, { dataDir: neutronConf.dataDir }).catch(() => undefined)
  const level = opened === undefined ? 'normal' : healthOf(opened.session, neutronConf.mode).level
  return level === 'normal' ? undefined : `the node is at ${levelNames[level]}`
}

async function gc(call: Call, world: World, valid: readonly ValidAttachment[] | undefined): Promise<void> {
  if (valid === undefined) return
  const beforeMs = Date.now() - GC_GUARD_MS
  const living = new Set(valid.map(({ containerId, ifName }) => `${containerId}/${ifName}`))
  const isLiving = ({ containerId, ifName }: AddressOwner) => living.has(`${containerId}/${ifName}`)
  await everyStep(...everySource.map(source => () => source.releaseOthers(call, world, isLiving, beforeMs)))
}
