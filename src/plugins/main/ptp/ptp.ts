// SPDX-License-Identifier: Apache-2.0

import { formatMac, formatPrefix } from '#base'
import { CniError, codes, type Result, requireIps } from '#cni'
import { type Attach, type Check, interfacePlugin } from '../../interface.ts'
import { dnsOf, leaseOf } from '../../lease.ts'
import { linkNames } from '../../pair.ts'
import {
  findForeignPods,
  findPodFaults,
  findPods,
  isJoined,
  joinPod,
  leavePod,
  type RoutedTraces,
  restorePods,
} from '../../routed-pair.ts'
import type { World } from '../../world.ts'
import { type Config, parseConfig } from './config.ts'
import { isWithin, networkRoutes, nextHopsOf, type PodIp, readIps } from './next-hops.ts'

/** What the kernel gives a veth. */
const MTU_BYTES = 1500

/**
 * One veth NIC per pod, as upstream's plugin of this name makes it: the gateway that the IPAM names is an address of the
 * node's end, everything leads there, and the node routes each pod address (/32, /128) to its veth.
 */
export const ptp = interfacePlugin<Config, RoutedTraces>({
  type: 'ptp',
  ipam: 'required',
  parse: parseConfig,
  attach,
  detach: leavePod,
  async findTraces(at) {
    const own = await findPods(at)
    return own.length > 0 ? own : await findForeignPods(at)
  },
  isThere: isJoined,
  findFaults,
  requireReady,
  firewallPartsOf: all => (all.some(({ masquerade }) => masquerade !== undefined) ? ['masquerade'] : []),
  restore: restorePods,
})

async function attach(attach: Attach<Config, RoutedTraces>): Promise<Result> {
  const { call, config, key, takeAddresses } = attach
  const lease = await takeAddresses()
  const ips = readIps(requireIps(lease))
  const mtu = config.mtu || MTU_BYTES
  const { routes } = leaseOf(lease)
  const hostLink = await joinPod(attach, {
    pod: {
      mtuBytes: mtu,
      addresses: ips.map(({ address }) => address),
      broadcast: true,
      nextHops: nextHopsOf(ips, routes),
      routes: [...networkRoutes(ips), ...routes],
      onlink: true,
    },
    firewall: firewallOf(config, ips),
  })
  const { hostMac, podMac } = linkNames(key)
  return {
    interfaces: [
      { name: hostLink, mac: formatMac(hostMac), mtu },
      { name: call.ifName, mac: formatMac(podMac), mtu, sandbox: call.netns },
    ],
    ips: requireIps(lease).map(ip => ({ ...ip, interface: 1 })),
    ...(lease.routes === undefined ? {} : { routes: lease.routes }),
    ...dnsOf(config.dns, lease.dns),
  }
}

/** What pods send is not checked, as upstream does not: a pod may route for others. */
const firewallOf = ({ ipMasq }: Config, ips: readonly PodIp[]): Pick<RoutedTraces, 'masquerade' | 'unchecked'> => ({
  unchecked: true,
  ...(ipMasq ? { masquerade: ips.map(({ address }) => formatPrefix(address)) } : {}),
})

async function findFaults(check: Check<Config, RoutedTraces>): Promise<string[]> {
  const { config, prevResult, podIndex } = check
  const own = (prevResult.ips ?? []).filter(ip => ip.interface === undefined || ip.interface === podIndex)
  const ips = readIps(own)
  const { routes: all } = leaseOf({
    ips: own,
    ...(prevResult.routes === undefined ? {} : { routes: prevResult.routes }),
  })
  const routes = all.filter(route => isWithin(route, ips))
  return await findPodFaults(check, {
    broadcast: true,
    onlink: true,
    nextHops: nextHopsOf(ips, routes),
    routes: [...networkRoutes(ips), ...routes],
    firewall: firewallOf(config, ips),
    mayBeForeign: true,
  })
}

async function requireReady({ ipMasq }: Config, world: World): Promise<void> {
  if (!ipMasq) return
  try {
    // Reads the rule set, and changes nothing.
    await world.host.findForeignForwardDrop()
  } catch (cause) {
    throw new CniError(codes.notAvailable, `Pods cannot be masqueraded: ${(cause as Error).message}`, {
      details: '"ipMasq" needs nf_tables in the kernel: modprobe nf_tables nft_masq',
      cause,
    })
  }
}
