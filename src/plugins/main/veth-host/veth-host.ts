// SPDX-License-Identifier: Apache-2.0

import {
  formatIp,
  formatMac,
  formatPrefix,
  type Ip,
  ipEquals,
  isV4,
  networkOf,
  type Prefix,
  parseIp,
  parsePrefix,
  prefixContains,
} from '#base'
import { CniError, codes, type Result } from '#cni'
import { claimsTable, type VethHostRules } from '#host'
import { EEXIST } from '#libc'
import { NetlinkError } from '#netlink'
import { type At, type Attach, type Check, interfacePlugin } from '../../interface.ts'
import { isNameTaken, linkNames, underFreeName } from '../../pair.ts'
import { awaitCarrier } from '../../settle.ts'
import { everyStep } from '../../steps.ts'
import { type NodeUplink, podMtu, refuseNodeAddress, requireReachable, uplinkFor } from '../../uplink.ts'
import type { World } from '../../world.ts'
import { type Config, parseConfig } from './config.ts'
import { takeTable } from './tables.ts'
import { type Traces, tracesAsFound, vethHostRules } from './traces.ts'

const TYPE = 'veth-host'

/**
 * A second NIC for pods whose own one is on the network beside the node's (ipvlan, macvlan, a NIC of the node): a veth, by
 * which they reach their node, and by way of it services. kube-proxy works there as for the node's own packets; what it
 * sends elsewhere goes back into the pod and out by the pod's own NIC.
 */
export const vethHost = interfacePlugin<Config, Traces>({
  type: TYPE,
  ipam: 'none',
  parse: parseConfig,
  attach,
  detach,
  findTraces,
  isThere: async ({ hostLink, owner }, { world }) =>
    (await world.host.describeLink({ name: hostLink }))?.owner === owner,
  findFaults,
  requireReady: requireReachable,
  firewallPart: 'vethHost',
  restore: (all, world) => world.host.addVethHostRules({ pods: all.map(vethHostRules) }),
})

async function attach(attach: Attach<Config, Traces>): Promise<Result> {
  const { call, world, config, key } = attach
  const { prevResult } = call
  if (prevResult === undefined)
    throw new CniError(codes.invalidConfig, 'must be called as chained plugin: "prevResult" is missing', {
      details: 'name an interface plugin before it in the list, for example ipvlan, macvlan or host-device',
    })
  const netnsFd = call.netnsFd!
  const underlay = call.ifName
  const uplink = await requireUplink(config, world)
  const { addresses, gateways } = addressesOf(prevResult, call.ifName)
  refuseNodeAddress(uplink, addresses)
  const found = joinable(config, uplink, addresses)
  const { mtuBytes: nicMtu, destinations, tables } = await world.host.surveyVethHost({ netnsFd, underlay })
  if (nicMtu === undefined)
    throw new CniError(codes.invalidConfig, `Cannot attach: the container has no interface ${underlay}`, {
      details: 'an earlier plugin of the list has to make it',
    })
  // A default route by the node needs no others beside it, unless one of the pod's would be more specific.
  const isNeeded = (service: Prefix) => !config.isDefaultGateway || destinations.some(each => overlap(each, service))
  const pod = { ...found, services: found.services.filter(isNeeded) }
  const mtuBytes = config.mtu === 0 ? Math.min(uplink.mtuBytes, nicMtu) : podMtu(config, uplink)
  const hostLink = await join(attach, { ...pod, gateways, mtuBytes }, { uplink: uplink.name, tables })
  await awaitCarrier(hostLink, attach)
  const { hostMac, podMac } = linkNames(key)
  return {
    ...prevResult,
    interfaces: [
      ...(prevResult.interfaces ?? []),
      { name: hostLink, mac: formatMac(hostMac), mtu: mtuBytes },
      { name: config.containerInterface, mac: formatMac(podMac), mtu: mtuBytes, sandbox: call.netns },
    ],
    routes: [...keptRoutes(prevResult, config, pod), ...ownRoutes(config, pod)],
  }
}

const overlap = (a: Prefix, b: Prefix) => prefixContains(a, b.ip) || prefixContains(b, a.ip)

/** What of the pod and the node is joined. */
type Joinable = { addresses: Prefix[]; nodeAddresses: Ip[]; services: Prefix[] }

async function requireUplink(config: Config, world: World): Promise<NodeUplink> {
  const uplink = await uplinkFor(config, world)
  if (uplink !== undefined) return uplink
  throw new CniError(codes.invalidConfig, 'Cannot find the host interface: the node has no default route', {
    details: 'name the NIC of the node whose addresses pods shall use: "hostInterface"',
  })
}

/** The addresses of the container's own NIC in the result of the earlier plugins. @throws {CniError} 7 where there are none */
function addressesOf({ interfaces = [], ips = [] }: Result, ifName: string): { addresses: Prefix[]; gateways: Ip[] } {
  const index = interfaces.findIndex(({ name, sandbox }) => name === ifName && (sandbox ?? '') !== '')
  const own = ips.filter(ip => ip.interface === undefined || ip.interface === index)
  if (own.length === 0)
    throw new CniError(codes.invalidConfig, `Cannot attach: prevResult has no address of ${ifName}`, {
      details: 'an earlier plugin of the list has to give the container an address: see its "ipam"',
    })
  return {
    addresses: own.map(({ address }) => parsePrefix(address)),
    gateways: own.flatMap(({ gateway }) => (gateway === undefined ? [] : [parseIp(gateway)])),
  }
}

/**
 * The families that pod and node have both: a family that the node's NIC has not, stays as the earlier plugins made it.
 * @throws {CniError} 7 where nothing is left, or a service network is of a family that the pod has and the node has not
 */
function joinable(config: Config, uplink: NodeUplink, addresses: Prefix[]): Joinable {
  const usable = uplink.addresses.map(({ ip }) => ip).filter(ip => !isNobodys(ip))
  const hasNode = ({ ip }: Prefix) => usable.some(address => isV4(address) === isV4(ip))
  const hasPod = (ip: Ip) => addresses.some(address => isV4(address.ip) === isV4(ip))
  const odd = config.services.find(service => hasPod(service.ip) && !hasNode(service))
  const joined = addresses.filter(hasNode)
  if (odd !== undefined || joined.length === 0) {
    const [what, version] =
      odd === undefined
        ? ['join the pod', 'address of the same version as the pod']
        : [`route ${formatPrefix(odd)}`, `IPv${isV4(odd.ip) ? 4 : 6} address`]
    throw new CniError(codes.invalidConfig, `Cannot ${what} by ${uplink.name}: it has no ${version}`, {
      details: '"hostInterface" names the NIC of the node whose addresses pods shall use',
    })
  }
  return {
    addresses: joined,
    nodeAddresses: usable.filter(hasPod),
    services: config.services.filter(({ ip }) => hasPod(ip)),
  }
}
/** True for addresses that others cannot know a machine by: link-local and loopback. */
const isNobodys = (ip: Ip) =>
  isV4(ip)
    ? ip[0] === 127 || (ip[0] === 169 && ip[1] === 254)
    : (ip[0] === 0xfe && (ip[1]! & 0xc0) === 0x80) || formatIp(ip) === '::1'

/** The routes of earlier plugins that are still there. */
const keptRoutes = ({ routes = [] }: Result, { isDefaultGateway }: Config, { addresses }: Joinable) =>
  routes.filter(({ dst, table }) => {
    const { ip, length } = parsePrefix(dst)
    const isReplaced = length === 0 && table === undefined && addresses.some(each => isV4(each.ip) === isV4(ip))
    return !(isDefaultGateway && isReplaced)
  })

/** The routes that lead by the node. Those to the node itself are on the link, as the kernel's own are, and not told. */
function ownRoutes(
  { isDefaultGateway }: Config,
  { addresses, nodeAddresses, services }: Joinable,
): Result['routes'] & {} {
  const gateway = (v4: boolean) => formatIp(nodeAddresses.find(each => isV4(each) === v4)!)
  const defaults = [true, false].filter(v4 => isDefaultGateway && addresses.some(({ ip }) => isV4(ip) === v4))
  return [
    ...services.map(service => ({ dst: formatPrefix(networkOf(service)), gw: gateway(isV4(service.ip)) })),
    ...defaults.map(v4 => ({ dst: v4 ? '0.0.0.0/0' : '::/0', gw: gateway(v4) })),
  ]
}

/** Makes pair and routes under a free name and with a free routing table. @returns the name of the node's link */
function join(
  { call, world, config, key, note, undo }: Attach<Config, Traces>,
  pod: Joinable & { gateways: Ip[]; mtuBytes: number },
  { uplink, tables }: { uplink: string; tables: readonly number[] },
): Promise<string> {
  const { owner, hostMac, podMac } = linkNames(key)
  const at = { call, world, key }
  const { containerInterface: ifName, isDefaultGateway: isDefault, nodePortMark: mark } = config
  const taken = new Set(tables)
  const make = async (hostLink: string): Promise<string> => {
    const table = takeTable(world.journal, config.routeTableStart, taken)
    const traces: Traces = {
      ...{ hostLink, owner, ifName, table, mark },
      addresses: pod.addresses.map(formatPrefix),
      nodeAddresses: pod.nodeAddresses.map(formatIp),
      services: pod.services.map(formatPrefix),
      plain: !config.ipMasq,
      metadata: config.allowMetadata,
    }
    note(traces)
    try {
      const renewed = await world.host.attachVethHost({
        pod: {
          ...{ hostLink, owner, ifName, netnsFd: call.netnsFd!, underlay: call.ifName, hostMac, podMac },
          ...{ ...pod, isDefault, table, mark },
        },
        uplink,
        firewall: vethHostRules(traces),
      })
      undo(() => detach(traces, at))
      if (renewed) await world.restoreFirewall()
      return hostLink
    } catch (error) {
      if (error instanceof NetlinkError && error.errno === EEXIST && error.request === claimsTable(table)) {
        // Somebody was faster, or has routes there.
        taken.add(table)
        return make(hostLink)
      }
      // The verb cleans up behind itself; where it could not, this does, or the record stays.
      if (!isNameTaken(error, hostLink)) undo(() => detach(traces, at))
      throw error
    }
  }
  return underFreeName(at, make, { key: '"containerInterface"', ifName })
}

async function detach(traces: Traces, { call, world, key }: At): Promise<void> {
  const { hostLink, owner, ifName, table, mark, isFound } = traces
  const { hostMac, podMac } = linkNames(key)
  const addresses = traces.addresses.map(parsePrefix)
  await everyStep(
    () =>
      world.host.detachVethHost({
        traces: { hostLink, ifName, underlay: call.ifName, podMac, table, mark, addresses },
        firewall: vethHostRules(traces),
        netnsFd: call.netnsFd,
      }),
    () => (isFound ? world.host.forgetVethHostLink({ link: hostLink }) : undefined),
    // Routes go with the link.
    () => world.host.removeLinks({ links: [{ name: hostLink, owner, mac: hostMac }] }),
  )
}

/** What an attachment without a record left on the node, by the names that follow from its key. */
async function findTraces({ call, world, key }: At): Promise<Traces[]> {
  const { hostLinks, owner, hostMac: mac } = linkNames(key)
  const found = await world.host.findVethHosts({ links: hostLinks.map(name => ({ name, owner, mac })) })
  return found.map(each => tracesAsFound({ ...each, owner }, call.config))
}

async function findFaults({ call, world, config, key, prevResult, addresses, ...check }: Check<Config, Traces>) {
  const { owner, hostMac, podMac } = linkNames(key)
  const ifName = config.containerInterface
  const { interfaces = [] } = prevResult
  const told = interfaces.find(({ name, sandbox }) => name === ifName && sandbox === call.netns)
  if (told === undefined) return [`interface ${ifName} is missing in prevResult`]
  const traces = check.traces ?? (await findTraces({ call, world, key }))[0]
  if (traces === undefined) return [`nothing of the attachment is on the node`]
  const uplink = await requireUplink(config, world)
  const pod = joinable(config, uplink, addresses.length > 0 ? [...addresses] : traces.addresses.map(parsePrefix))
  // What the node had then: of what it got later the pod knows nothing, and that is no fault.
  const recorded = traces.nodeAddresses.map(parseIp)
  const nodeAddresses = recorded.length > 0 ? recorded : pod.nodeAddresses
  const services = traces.isFound ? (config.isDefaultGateway ? [] : pod.services) : traces.services.map(parsePrefix)
  const lost = [true, false]
    .map(v4 => nodeAddresses.find(each => isV4(each) === v4))
    .filter(first => first !== undefined && !pod.nodeAddresses.some(each => ipEquals(each, first)))
  const { hostLink, table, mark } = traces
  const rules: VethHostRules = vethHostRules({
    ...{ ...traces, plain: !config.ipMasq, metadata: config.allowMetadata },
    ...{ addresses: pod.addresses.map(formatPrefix), nodeAddresses: nodeAddresses.map(formatIp) },
  })
  const drops = config.allowForwardDrop ? [] : await world.host.findForeignForwardDrop()
  return [
    ...lost.map(address => `the node has lost its address ${formatIp(address!)}, which is the pod's next hop`),
    ...(await world.host.checkVethHost({
      pod: {
        ...{ hostLink, owner, ifName, netnsFd: call.netnsFd!, underlay: call.ifName, hostMac, podMac },
        ...{ mtuBytes: interfaces.find(({ name }) => name === hostLink)?.mtu, podMtuBytes: told.mtu },
        ...{ ...pod, nodeAddresses, services, isDefault: config.isDefaultGateway, table, mark },
      },
      uplink: uplink.name,
      firewall: rules,
    })),
    ...drops.map(drop => `${drop}: what is forwarded is dropped`),
  ]
}
