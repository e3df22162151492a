// SPDX-License-Identifier: Apache-2.0

import { formatIp, formatMac, isV4, networkOf, type Prefix, parsePrefix } from '#base'
import { type Result, requireIps } from '#cni'
import { commonNextHops, nextHopFor, type PodRoute } from '#host'
import { type Attach, type Check, interfacePlugin } from '../../interface.ts'
import { dnsOf } from '../../lease.ts'
import { linkNames } from '../../pair.ts'
import {
  findPodFaults,
  findPods,
  isJoined,
  joinPod,
  leavePod,
  type RoutedTraces,
  restorePods,
  textsOf,
} from '../../routed-pair.ts'
import { podMtu, refuseNodeAddress, requireReachable, uplinkFor } from '../../uplink.ts'
import { type Config, parseConfig } from './config.ts'

/**
 * One veth NIC per pod; the default route goes to 169.254.1.1 (fe80::1), which is the node, and the node routes each
 * pod address (/32, /128) to its veth. The segment learns the pod from the node, which answers ARP for it.
 */
export const vethRoute = interfacePlugin<Config, RoutedTraces>({
  type: 'veth-route',
  ipam: 'required',
  parse: parseConfig,
  attach,
  detach: leavePod,
  findTraces: findPods,
  isThere: isJoined,
  findFaults,
  requireReady: requireReachable,
  restore: restorePods,
})

async function attach(attach: Attach<Config, RoutedTraces>): Promise<Result> {
  const { call, world, config, key, takeAddresses } = attach
  const uplink = await uplinkFor(config, world)
  const mtuBytes = podMtu(config, uplink)
  const lease = await takeAddresses()
  const addresses = requireIps(lease).map(({ address }) => parsePrefix(address))
  refuseNodeAddress(uplink, addresses)
  const routes = podRoutes(lease, addresses)
  const hostLink = await joinPod(attach, {
    pod: { mtuBytes, addresses, nextHops: commonNextHops(addresses), routes },
    uplink: config.proxyNeighbour ? uplink : undefined,
    firewall: firewallOf(config, addresses),
  })
  const { hostMac, podMac } = linkNames(key)
  return {
    interfaces: [
      { name: hostLink, mac: formatMac(hostMac), mtu: mtuBytes },
      { name: call.ifName, mac: formatMac(podMac), mtu: mtuBytes, sandbox: call.netns },
    ],
    ips: requireIps(lease).map(ip => ({ ...ip, interface: 1 })),
    routes: routes.map(({ destination, gateway, ...rest }) => ({
      dst: `${formatIp(destination.ip)}/${destination.length}`,
      gw: formatIp(gateway),
      ...rest,
    })),
    ...dnsOf(config.dns, lease.dns),
  }
}

const firewallOf = (config: Config, addresses: readonly Prefix[]): Pick<RoutedTraces, 'masquerade' | 'metadata'> => ({
  ...(config.ipMasq ? { masquerade: textsOf(addresses) } : {}),
  metadata: config.allowMetadata,
})

async function findFaults(check: Check<Config, RoutedTraces>): Promise<string[]> {
  const { world, config, prevResult, addresses } = check
  return await findPodFaults(check, {
    nextHops: commonNextHops(addresses),
    routes: (prevResult.routes ?? []).map(podRoute),
    uplinkIndex: config.proxyNeighbour ? (await uplinkFor(config, world))?.index : undefined,
    firewall: firewallOf(config, addresses),
  })
}

type Routed = PodRoute & Required<Pick<PodRoute, 'gateway'>>

/** The routes of the lease; a family without a default route gets one to its own subnet, which is not on the link. */
function podRoutes(lease: Result, addresses: readonly Prefix[]): Routed[] {
  const routes = (lease.routes ?? []).map(podRoute)
  for (const address of addresses) {
    const sameFamily = routes.filter(route => isV4(route.destination.ip) === isV4(address.ip))
    if (address.length < address.ip.length * 8 && !sameFamily.some(route => route.destination.length <= address.length))
      routes.push({ destination: networkOf(address), gateway: nextHopFor(address.ip) })
  }
  return routes
}

/** Every one leads to the node, whatever gateway the IPAM names. */
function podRoute({ dst, gw: _, scope: _scope, ...rest }: NonNullable<Result['routes']>[number]): Routed {
  const destination = networkOf(parsePrefix(dst))
  return { destination, gateway: nextHopFor(destination.ip), ...rest }
}
