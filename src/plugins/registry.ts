// SPDX-License-Identifier: Apache-2.0

import { type Attachment, listAttachments } from '#allocator'
import {
  type Call,
  CniError,
  checkIpamResult,
  codes,
  findPlugin,
  type Ipam,
  type Plugin,
  readValidAttachments,
  selectIpam,
} from '#cni'
import { executedIpam } from './executed-ipam.ts'
import { requireInstalled } from './installed.ts'
import type { RecordedPlugin } from './interface.ts'
import { hostLocal } from './ipam/host-local/host-local.ts'
import { staticIpam } from './ipam/static/static.ts'
import { tcnpIpam } from './ipam/tcnp-ipam/tcnp-ipam.ts'
import { bridge } from './main/bridge/bridge.ts'
import { hostDevice } from './main/host-device/host-device.ts'
import { ipvlan } from './main/ipvlan/ipvlan.ts'
import { loopback } from './main/loopback/loopback.ts'
import { macvlan } from './main/macvlan/macvlan.ts'
import { ptp } from './main/ptp/ptp.ts'
import { vethHost } from './main/veth-host/veth-host.ts'
import { vethRoute } from './main/veth-route/veth-route.ts'
import { portmap } from './meta/portmap/portmap.ts'
import { isShim } from './shim.ts'
import { everyStep } from './steps.ts'
import type { World } from './world.ts'

const ipamPlugins: ReadonlyMap<string, Plugin<World>> = new Map([
  ['host-local', hostLocal],
  ['static', staticIpam],
  ['tcnp-ipam', tcnpIpam],
  ['neutron', tcnpIpam],
])

const interfacePlugins: ReadonlyMap<string, RecordedPlugin> = new Map([
  ['bridge', bridge],
  ['host-device', hostDevice],
  ['host-device-plus', hostDevice],
  ['ipvlan', ipvlan],
  ['macvlan', macvlan],
  ['ptp', ptp],
  ['portmap', portmap],
  ['veth-host', vethHost],
  ['veth-route', vethRoute],
])

/** The same plugin, whose STATUS looks first whether what it is called with is still what was installed. */
const asInstalled = (plugin: Plugin<World>): Plugin<World> => ({
  ...plugin,
  async status(call, world) {
    requireInstalled(call, world)
    await plugin.status(call, world)
  },
})

/** Every plugin by the name of its executable. */
export const plugins: ReadonlyMap<string, Plugin<World>> = new Map(
  [...interfacePlugins, ['loopback', loopback] as const, ...ipamPlugins].map(
    ([name, plugin]) => [name, asInstalled(plugin === tcnpIpam ? executedIpam(tcnpIpam) : plugin)] as const,
  ),
)

/** Where a name was taken, ours is installed with this before it. */
export const TAKEN_PREFIX = 'mooring-'

/** The plugin behind an executable's name, undefined if it is none of ours. */
export const findOwnPlugin = (type: string): Plugin<World> | undefined =>
  plugins.get(type) ?? (type.startsWith(TAKEN_PREFIX) ? plugins.get(type.slice(TAKEN_PREFIX.length)) : undefined)

/** A plugin of ours as the IPAM of another: what an executed one would do, without the process. */
function inProcess(plugin: Plugin<World>, type: string, world: World): Ipam {
  return {
    add: async call => checkIpamResult(await plugin.add(call, world), type),
    del: call => plugin.del(call, world),
    check: call => plugin.check(call, world),
    status: call => plugin.status(call, world),
    gc: call => plugin.gc(call, world, readValidAttachments(call.config)),
  }
}

/** What was never asked for an address has none to release. */
const NO_IPAM = { del: async () => {} } as unknown as Ipam

/** @throws {CniError} 7 where it is a plugin of ours that gives no addresses: it would be asked for some, without end */
async function ipamOf(call: Call, type: string, own: ReadonlyMap<string, Ipam>): Promise<Ipam> {
  if (own.has(type) || findOwnPlugin(type) === undefined) return await selectIpam(type, call.path, own, isShim)
  const file = await findPlugin(type, call.path).catch(() => undefined)
  if (file !== undefined && !(await isShim(file))) return await selectIpam(type, call.path, own, isShim)
  if (call.command === 'DEL') return NO_IPAM
  throw new CniError(codes.invalidConfig, `Cannot ask "${type}" for an address: it is no IPAM plugin`, {
    details: `"ipam.type" names one: ${[...ipamPlugins.keys()].join(', ')}, or another's`,
  })
}

/**
 * A world whose IPAM plugins are ours in process, and foreign ones executed. The parts may be getters that open what
 * they stand for when it is first used.
 */
export function worldOf(parts: Omit<World, 'ipam' | 'restoreFirewall'>): World {
  const takesFromPort = new Set<Ipam>()
  const world: World = {
    get host() {
      return parts.host
    },
    get journal() {
      return parts.journal
    },
    get clouds() {
      return parts.clouds
    },
    bootId: parts.bootId,
    longLived: parts.longLived,
    dataDir: parts.dataDir,
    arrivals: parts.arrivals,
    warn: parts.warn,
    async ipam(call: Call, type: string) {
      const ipam = await ipamOf(call, type, own)
      // It takes nothing from a port: nobody need wait for this call.
      if (!takesFromPort.has(ipam)) parts.arrivals?.arrived()
      return ipam
    },
    restoreFirewall: () => restoreFirewall(world),
  }
  const own = new Map(
    [...ipamPlugins].flatMap(([type, plugin]) => {
      const ipam = inProcess(plugin, type, world)
      if (plugin === tcnpIpam) takesFromPort.add(ipam)
      return [[type, ipam] as const, [TAKEN_PREFIX + type, ipam] as const]
    }),
  )
  return world
}

/** What CHECK of an attachment finds on the machine, in words, without a question to the IPAM plugin. */
export const findFaultsOf = async (type: string, call: Call, world: World): Promise<readonly string[]> =>
  (await interfacePlugins.get(type)?.findFaults(call, world)) ?? []

/** Puts back what somebody took away who flushed the node's rule set (firewalld, a restart of nftables). */
export async function keepFirewall(world: World): Promise<void> {
  const parts = new Set(
    [...readyByType(world)].flatMap(([type, ready]) => {
      const plugin = interfacePlugins.get(type)
      return plugin?.firewallParts?.(ready.map(({ traces }) => traces)) ?? []
    }),
  )
  if (parts.size > 0 && (await world.host.ensureFirewall({ parts: [...parts] }))) owing.add(world)
  if (owing.has(world)) await restoreFirewall(world)
}

/** Worlds whose attachments lack elements, because putting them back has failed: the next round tries again. */
const owing = new WeakSet<World>()

async function restoreFirewall(world: World): Promise<void> {
  owing.add(world)
  const steps = [...readyByType(world).keys()].map(type => async () => {
    // Read when it is this type's turn: what was detached meanwhile must not come back.
    const traces = readyByType(world)
      .get(type)
      ?.map(attachment => attachment.traces)
    if (traces !== undefined) await interfacePlugins.get(type)?.restore?.(traces, world)
  })
  await everyStep(...steps)
  owing.delete(world)
}

const readyByType = ({ journal }: World): Map<string, Attachment[]> =>
  Map.groupBy(
    listAttachments(journal).filter(({ state }) => state === 'ready'),
    ({ type }) => type,
  )
