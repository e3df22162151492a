// SPDX-License-Identifier: Apache-2.0

import { isV4, type Prefix, parsePrefix } from '#base'
import { CniError, codes, type Result } from '#cni'
import { type HostPort, type HostPorts, keepsFlows, type UnknownPorts } from '#host'
import { type At, type Attach, type Check, interfacePlugin } from '../../interface.ts'
import type { World } from '../../world.ts'
import { type Config, formatPort, parseConfig } from './config.ts'
import { describeOwner, hostPortsOf, ownerOf, type Traces, tracesOf } from './traces.ts'

/**
 * Ports of the node lead to ports of the pod that earlier plugins of the chain have attached. A port is an element of a
 * map in nf_tables; it belongs to one attachment, until that one is deleted.
 */
export const portmap = interfacePlugin<Config, Traces>({
  type: 'portmap',
  ipam: 'none',
  parse: parseConfig,
  attach,
  detach: (traces, { world, key }) => detach(hostPortsOf(traces) ?? { owner: traces.owner, ...key }, world),
  findTraces: async ({ key }) => [{ owner: ownerOf(key) }],
  async isThere({ owner }, { world }) {
    return (await world.host.listPorts()).some(each => each.owner === owner)
  },
  findFaults,
  requireReady,
  firewallPart: 'portmap',
  restore,
})

async function attach({ call, world, config, key, note, undo }: Attach<Config, Traces>): Promise<Result> {
  const { prevResult } = call
  if (prevResult === undefined) throw new CniError(codes.invalidConfig, 'must be called as chained plugin')
  const wanted = hostPortsFor(config, { call, world, key }, podAddresses(call.ifName, prevResult))
  if (wanted.ports.length === 0) return prevResult
  note(tracesOf(wanted))
  const takeBack = () => undo(() => detach(wanted, world))
  const { rebuilt, taken } = await world.host.attachPorts({ ports: wanted }).catch((error: unknown) => {
    // The verb cleans up behind itself; where it could not, this does, or the record stays.
    takeBack()
    throw error
  })
  if (taken !== undefined)
    throw new CniError(
      codes.addressUnavailable,
      `Cannot lead host port ${formatPort(taken.port)} to ${call.containerId}: it is taken by ${describeOwner(taken.owner)}`,
      { details: 'give the pod another hostPort or hostIP, or delete the other one first' },
    )
  takeBack()
  if (rebuilt) await world.restoreFirewall()
  await forgetFlows(wanted.ports, world)
  return prevResult
}

async function restore(traces: readonly Traces[], world: World): Promise<void> {
  const all = traces.flatMap(each => hostPortsOf(each) ?? [])
  await forgetFlows(await world.host.restorePorts({ all }), world)
}

/** The next packet of what goes on is led where the port leads now. */
async function forgetFlows(ports: readonly HostPort[], world: World): Promise<void> {
  if (keepsFlows(ports)) await world.host.forgetFlows({ ports })
}

async function detach(owned: HostPorts | UnknownPorts, world: World): Promise<void> {
  await forgetFlows(await world.host.detachPorts({ owned }), world)
}

/** The pod's first address of each family, with its subnet. */
type PodAddresses = { v4: Prefix | undefined; v6: Prefix | undefined }

/** Addresses that the result gives to another interface, or to one of the node, are none of the pod's. */
function podAddresses(ifName: string, { ips = [], interfaces = [] }: Result): PodAddresses {
  const own = ips
    .filter(({ interface: index }) => {
      const known = index === undefined ? undefined : interfaces[index]
      return known === undefined || (known.name === ifName && (known.sandbox ?? '') !== '')
    })
    .map(({ address }) => parsePrefix(address))
  return { v4: own.find(({ ip }) => isV4(ip)), v6: own.find(({ ip }) => !isV4(ip)) }
}

function hostPortsFor(config: Config, { key }: At, pod: PodAddresses): HostPorts {
  const { snat, masqAll, markBit, conditions, mappings } = config
  const near = [pod.v4, pod.v6].filter(prefix => prefix !== undefined)
  const ports = mappings.flatMap(({ host, ...rest }) =>
    near.flatMap(({ ip }): HostPort[] => {
      const family = isV4(ip) ? 'v4' : 'v6'
      if (typeof host === 'string') return host === family ? [{ ...rest, pod: ip }] : []
      return host.length === ip.length ? [{ ...rest, hostIp: host, pod: ip }] : []
    }),
  )
  return {
    ...{ owner: ownerOf(key), ports, conditions },
    ...(snat ? { masquerade: { bit: markBit, all: masqAll, near } } : {}),
  }
}

async function findFaults(check: Check<Config, Traces>): Promise<readonly string[]> {
  const { call, world, config, prevResult } = check
  const wanted = hostPortsFor(config, check, podAddresses(call.ifName, prevResult))
  return wanted.ports.length === 0 ? [] : await world.host.checkPorts({ ports: wanted })
}

async function requireReady(config: Config, world: World): Promise<void> {
  const drops = config.allowForwardDrop ? [] : await world.host.findForeignForwardDrop()
  if (drops.length > 0)
    throw new CniError(codes.notAvailable, `Pods cannot be reached: ${drops.join(', ')} drops what is forwarded`, {
      details:
        'let pods pass there (docker: iptables -I DOCKER-USER -j ACCEPT, and iptables -P FORWARD ACCEPT); "allowForwardDrop": true ends this check',
    })
}
