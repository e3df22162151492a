// SPDX-License-Identifier: Apache-2.0

import { formatIp, formatMac, isV4, networkOf, type Prefix, parsePrefix, tryParseMac } from '#base'
import { CniError, codes, type Result, requireIps } from '#cni'
import { type FirewallPod, nextHops, type PodRoute, type RoutedPod, type Uplink } from '#host'
import { type At, type Attach, type Check, interfacePlugin } from '../../interface.ts'
import { isNameTaken, linkNames, underFreeName } from '../../pair.ts'
import { everyStep } from '../../steps.ts'
import type { World } from '../../world.ts'
import { type Config, parseConfig } from './config.ts'
import { firewallPod, prefixesOf, type Traces, textsOf } from './traces.ts'
import { podMtu, refuseNodeAddress, uplinkFor } from './uplink.ts'

const TYPE = 'veth-route'

/**
 * One veth NIC per pod; the default route goes to 169.254.1.1 (fe80::1), which is the node, and the node routes each
 * pod address (/32, /128) to its veth. The segment learns the pod from the node, which answers ARP for it.
 */
export const vethRoute = interfacePlugin<Config, Traces>({
  type: TYPE,
  ipam: 'required',
  parse: parseConfig,
  attach,
  detach,
  findTraces,
  isThere: async ({ hostLink, owner }, { world }) =>
    (await world.host.describeLink({ name: hostLink }))?.owner === owner,
  findFaults,
  requireReady,
  restore: (all, world) => world.host.addFirewallPods({ pods: all.map(firewallPod) }),
})

async function attach(attach: Attach<Config, Traces>): Promise<Result> {
  const { call, world, config, key, takeAddresses } = attach
  const uplink = await uplinkFor(config, world)
  const mtuBytes = podMtu(config, uplink)
  const lease = await takeAddresses()
  const addresses = requireIps(lease).map(({ address }) => parsePrefix(address))
  refuseNodeAddress(uplink, addresses)
  const { hostMac, podMac } = linkNames(key)
  const pod = {
    ...{ ifName: call.ifName, netnsFd: call.netnsFd!, mtuBytes, hostMac, podMac, addresses },
    routes: podRoutes(lease, addresses),
  }
  const hostLink = await makePair(attach, pod, config.proxyNeighbour ? uplink : undefined)
  const dns = config.dns ?? lease.dns
  return {
    interfaces: [
      { name: hostLink, mac: formatMac(hostMac), mtu: mtuBytes },
      { name: call.ifName, mac: formatMac(podMac), mtu: mtuBytes, sandbox: call.netns },
    ],
    ips: requireIps(lease).map(ip => ({ ...ip, interface: 1 })),
    routes: pod.routes.map(({ destination, ...rest }) => ({
      dst: `${formatIp(destination.ip)}/${destination.length}`,
      gw: formatIp(isV4(destination.ip) ? nextHops.v4 : nextHops.v6),
      ...rest,
    })),
    ...(dns === undefined ? {} : { dns: withoutUndefined(dns) }),
  }
}

const withoutUndefined = (dns: object) =>
  Object.fromEntries(Object.entries(dns).filter(([, value]) => value !== undefined))

/** Joins the pod to the node. @returns the name of the node's link */
function makePair(
  { call, world, config, key, note, undo }: Attach<Config, Traces>,
  pod: Omit<RoutedPod, 'hostLink' | 'owner' | 'uplinkIndex'>,
  uplink: Uplink | undefined,
): Promise<string> {
  const { owner } = linkNames(key)
  const addresses = textsOf(pod.addresses)
  const at = { call, world, key }
  return underFreeName(at, async hostLink => {
    const traces: Traces = {
      ...{ hostLink, owner, addresses },
      ...(uplink === undefined ? {} : { uplinkIndex: uplink.index }),
      ...(config.ipMasq ? { masquerade: addresses } : {}),
      metadata: config.allowMetadata,
    }
    note(traces)
    try {
      const firewall = firewallPod(traces)
      const rebuilt = await world.host.attachRoutedPod({ pod: { ...pod, hostLink, owner }, uplink, firewall })
      undo(() => detach(traces, at))
      if (rebuilt) await world.restoreFirewall()
      return hostLink
    } catch (error) {
      // The verb cleans up behind itself; where it could not, this does, or the record stays. What else may exist
      // already (a route, an address) has nothing to do with the names.
      if (!isNameTaken(error, hostLink)) undo(() => detach(traces, at))
      throw error
    }
  })
}

async function detach(traces: Traces, { world, key }: At): Promise<void> {
  const { hostLink: name, owner, uplinkIndex } = traces
  await everyStep(
    () =>
      world.host.detachRoutedPod({
        traces: { hostLink: name, addresses: prefixesOf(traces.addresses), uplinkIndex },
        firewall: firewallPod(traces),
      }),
    // The host route goes with the link.
    () => world.host.removeLinks({ links: [{ name, owner, mac: linkNames(key).hostMac }] }),
  )
}

/** What an attachment without a record left on the node, by the names that follow from its key. */
async function findTraces({ world, key }: At): Promise<Traces[]> {
  const { hostLinks, owner, hostMac: mac } = linkNames(key)
  const found = await Promise.all(hostLinks.map(name => world.host.findRouted({ name, owner, mac })))
  const routed = found.filter(each => each !== undefined)
  if (routed.length === 0) return []
  const firewall = new Map((await world.host.listFirewallPods()).map((pod): [string, FirewallPod] => [pod.link, pod]))
  return routed.map(({ hostLink, addresses, uplinkIndex }) => {
    const { masquerade, metadata = false } = firewall.get(hostLink) ?? {}
    return {
      ...{ hostLink, owner, addresses: textsOf(addresses), metadata },
      ...(uplinkIndex === undefined ? {} : { uplinkIndex }),
      ...(masquerade === undefined ? {} : { masquerade: textsOf(masquerade) }),
    }
  })
}

async function findFaults({ call, world, config, key, prevResult, pod, addresses }: Check<Config, Traces>) {
  const { hostLinks } = linkNames(key)
  const onNode = prevResult.interfaces?.find(({ name, sandbox }) => hostLinks.includes(name) && (sandbox ?? '') === '')
  const hostLink = onNode?.name ?? hostLinks[0]!
  const texts = textsOf(addresses)
  return await world.host.checkRoutedPod({
    pod: {
      ...{ hostLink, ifName: call.ifName, netnsFd: call.netnsFd!, podMac: tryParseMac(pod?.mac ?? '') },
      addresses: [...addresses],
      routes: (prevResult.routes ?? []).map(podRoute),
      uplinkIndex: config.proxyNeighbour ? (await uplinkFor(config, world))?.index : undefined,
    },
    firewall: firewallPod({
      ...{ hostLink, addresses: texts, metadata: config.allowMetadata },
      ...(config.ipMasq ? { masquerade: texts } : {}),
    }),
  })
}

async function requireReady(config: Config, world: World): Promise<void> {
  try {
    await uplinkFor(config, world)
  } catch (error) {
    throw error instanceof CniError
      ? new CniError(codes.notAvailable, error.message, { details: error.details })
      : error
  }
  const drops = config.allowForwardDrop ? [] : await world.host.findForeignForwardDrop()
  if (drops.length > 0)
    throw new CniError(codes.notAvailable, `Pods cannot be reached: ${drops.join(', ')} drops what is forwarded`, {
      details:
        'let pods pass there (docker: iptables -I DOCKER-USER -j ACCEPT, and iptables -P FORWARD ACCEPT); "allowForwardDrop": true ends this check',
    })
}

/** The routes of the lease; a family without a default route gets one to its own subnet, which is not on the link. */
function podRoutes(lease: Result, addresses: readonly Prefix[]): PodRoute[] {
  const routes = (lease.routes ?? []).map(podRoute)
  for (const address of addresses) {
    const sameFamily = routes.filter(route => isV4(route.destination.ip) === isV4(address.ip))
    if (address.length < address.ip.length * 8 && !sameFamily.some(route => route.destination.length <= address.length))
      routes.push({ destination: networkOf(address) })
  }
  return routes
}

function podRoute({ dst, gw: _, scope: _scope, ...rest }: NonNullable<Result['routes']>[number]): PodRoute {
  return { destination: networkOf(parsePrefix(dst)), ...rest }
}
