// SPDX-License-Identifier: Apache-2.0

import { formatIp, ipEquals, type Prefix } from '#base'
import { CniError, codes } from '#cni'
import { requireAvailable } from './ready.ts'
import type { World } from './world.ts'

/** The keys of a configuration that say by which NIC pods are reached. */
export type UplinkKeys = { hostInterface: string; mtu: number; allowForwardDrop: boolean }

/** The NIC by which pods are reached, with the node's own addresses on it. */
export type NodeUplink = NonNullable<Awaited<ReturnType<World['host']['findUplink']>>>

/** The NIC that the configuration names, or that of the default route. @throws {CniError} 7 where a named one is missing */
export async function uplinkFor(
  config: Pick<UplinkKeys, 'hostInterface'>,
  world: World,
): Promise<NodeUplink | undefined> {
  const name = config.hostInterface === '' ? undefined : config.hostInterface
  const uplink = await world.host.findUplink({ name })
  if (uplink === undefined && name !== undefined)
    throw new CniError(codes.invalidConfig, `Cannot find host interface "${name}"`, {
      details: '"hostInterface" names a NIC of the node (ip link); left out, it is the one of the default route',
    })
  return uplink
}

/** The MTU of both ends of the pair, in bytes. @throws {CniError} 7 where it is more than the uplink's */
export function podMtu(config: Pick<UplinkKeys, 'mtu'>, uplink: NodeUplink | undefined): number {
  if (config.mtu === 0) return uplink?.mtuBytes ?? 1500
  if (uplink !== undefined && config.mtu > uplink.mtuBytes)
    throw new CniError(
      codes.invalidConfig,
      `invalid MTU ${config.mtu}, must be [0, ${uplink.name} MTU(${uplink.mtuBytes})]`,
    )
  return config.mtu
}

/** A pod with the node's address would never get a packet. @throws {CniError} 7 naming the address */
export function refuseNodeAddress(uplink: NodeUplink | undefined, addresses: readonly Prefix[]): void {
  const own = addresses.find(({ ip }) => uplink?.addresses.some(address => ipEquals(address.ip, ip)))
  if (own !== undefined)
    throw new CniError(
      codes.invalidConfig,
      `Cannot attach: the IPAM gave ${formatIp(own.ip)}, which is the node's own address on ${uplink!.name}`,
      { details: "take the node's addresses out of the IPAM's range" },
    )
}

/** STATUS: that the NIC is there, and nobody drops what is forwarded. @throws {CniError} 50 */
export async function requireReachable(config: UplinkKeys, world: World): Promise<void> {
  await requireAvailable(() => uplinkFor(config, world))
  const drops = config.allowForwardDrop ? [] : await world.host.findForeignForwardDrop()
  if (drops.length > 0)
    throw new CniError(codes.notAvailable, `Pods cannot be reached: ${drops.join(', ')} drops what is forwarded`, {
      details:
        'let pods pass there (docker: iptables -I DOCKER-USER -j ACCEPT, and iptables -P FORWARD ACCEPT); "allowForwardDrop": true ends this check',
    })
}
