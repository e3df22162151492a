// SPDX-License-Identifier: Apache-2.0

import { type Call, checkIpamResult, type Ipam, type Plugin, readValidAttachments, selectIpam } from '#cni'
import { hostLocal } from './ipam/host-local/host-local.ts'
import { staticIpam } from './ipam/static/static.ts'
import { tcnpIpam } from './ipam/tcnp-ipam/tcnp-ipam.ts'
import { loopback } from './main/loopback/loopback.ts'
import { vethRoute } from './main/veth-route/veth-route.ts'
import { isShim } from './shim.ts'
import type { World } from './world.ts'

const ipamPlugins: ReadonlyMap<string, Plugin<World>> = new Map([
  ['host-local', hostLocal],
  ['static', staticIpam],
  ['tcnp-ipam', tcnpIpam],
  ['neutron', tcnpIpam],
])

/** Every plugin by the name of its executable. */
export const plugins: ReadonlyMap<string, Plugin<World>> = new Map([
  ['veth-route', vethRoute],
  ['loopback', loopback],
  ...ipamPlugins,
])

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

/**
 * A world whose IPAM plugins are ours in process, and foreign ones executed. The parts may be getters that open what
 * they stand for when it is first used.
 */
export function worldOf(parts: Omit<World, 'ipam'>): World {
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
    ipam: (call: Call, type: string) => selectIpam(type, call.path, own, isShim),
  }
  const own = new Map(
    [...ipamPlugins].flatMap(([type, plugin]) => {
      const ipam = inProcess(plugin, type, world)
      return [[type, ipam] as const, [TAKEN_PREFIX + type, ipam] as const]
    }),
  )
  return world
}
