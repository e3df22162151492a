// SPDX-License-Identifier: Apache-2.0

import type { AttachmentKey } from '#allocator'
import { formatMac, formatPrefix, ipEquals, type Prefix, parseIp, parsePrefix, tryParseMac } from '#base'
import { CniError, checkExpressible, codes, type Result, requireIps } from '#cni'
import type { BridgedFirewall, FoundBridge, GatewayWanted } from '#host'
import { NetlinkError } from '#netlink'
import { type At, type Attach, type Check, interfacePlugin } from '../../interface.ts'
import { dnsOf, hasOtherLinks, leaseOf, resultRoutes } from '../../lease.ts'
import { isNameTaken, type LinkNames, linkNames, underFreeName } from '../../pair.ts'
import { requireAvailable } from '../../ready.ts'
import { awaitCarrier, settleAddresses } from '../../settle.ts'
import { everyStep } from '../../steps.ts'
import { findUpstreamPair } from '../../upstream.ts'
import type { World } from '../../world.ts'
import { type Config, parseConfig } from './config.ts'
import { withGateways } from './gateways.ts'

/** What an attachment has on the node: all that DEL must know, when nothing else is left to ask. */
type Traces = {
  hostLink: string
  owner: string
  /** The link by which its packets come in, and its addresses with their prefix lengths. */
  masquerade?: { link: string; addresses: string[] }
  /** The only MAC that it may send from. */
  onlyMac?: string
  /** The MAC of `hostLink`, where it is not the one that follows from the key: upstream's plugin made it. */
  hostMac?: string
}

/** Pods as neighbours on a bridge of the node, which may have an address there and be their gateway. */
export const bridge = interfacePlugin<Config, Traces>({
  type: 'bridge',
  ipam: 'optional',
  parse: parseConfig,
  attach,
  detach,
  findTraces,
  isThere: async ({ hostLink, owner }, { world }) =>
    (await world.host.describeLink({ name: hostLink }))?.owner === owner,
  findFaults,
  requireReady,
  firewallPartsOf: all => [
    ...(all.some(({ masquerade }) => masquerade !== undefined) ? (['masquerade'] as const) : []),
    ...(all.some(({ onlyMac }) => onlyMac !== undefined) ? (['macCheck'] as const) : []),
  ],
  restore: (all, world) => world.host.addBridgedFirewall({ all: all.map(firewallOf) }),
})

async function attach(asked: Attach<Config, Traces>): Promise<Result> {
  const found = await ensureBridge(asked.config, asked.world)
  const attach = { ...asked, config: { ...asked.config, bridge: found.name } }
  const { call, world, config, key, takeAddresses } = attach
  const mtuBytes = config.mtu === 0 ? found.mtuBytes : config.mtu
  const podMac = config.mac ?? namesOf(key).podMac
  const bare = { mtuBytes, podMac, ips: [], routes: [] }
  const early = attach.asksByLink ? await makePair(attach, found, bare) : undefined
  const lease = await takeAddresses()
  if (config.layer3) requireIps(lease)
  checkExpressible(lease, call.cniVersion)
  const { ips, routes, gateways } = withGateways(lease, config)
  const gateway = gateways.length === 0 ? undefined : await ensureGateway(config, world, found, gateways)
  const { hostMac } = namesOf(key)
  const inside = { mtuBytes, podMac, ips, routes }
  const hostLink = early === undefined ? await makePair(attach, found, inside) : await addLease(attach, early, inside)
  if (config.enabledad && ips.some(({ address }) => address.includes(':'))) await settleAddresses(call, world)
  // An operator's bridge may have got its MAC with its first port just now.
  const bridgeMac = config.isGateway
    ? found.mac
    : ((await world.host.findBridge({ name: config.bridge }))?.mac ?? found.mac)
  return {
    interfaces: [
      { name: config.bridge, mac: formatMac(bridgeMac), mtu: found.mtuBytes },
      { name: hostLink, mac: formatMac(hostMac), mtu: mtuBytes },
      { name: call.ifName, mac: formatMac(podMac), mtu: mtuBytes, sandbox: call.netns },
      ...(gateway === undefined || config.vlan === 0 ? [] : [{ name: gateway.name, mac: formatMac(gateway.mac) }]),
    ],
    ...(config.layer3 ? { ips: ips.map(ip => ({ ...ip, interface: 2 })) } : {}),
    ...(routes.length === 0 ? {} : { routes: resultRoutes(leaseOf({ ips, routes }).routes) }),
    ...dnsOf(config.dns, lease.dns),
  }
}

/** A bridge without a MAC of its own takes the lowest of its ports': never that of the node's end of a pair. */
function namesOf(key: AttachmentKey): LinkNames {
  const names = linkNames(key)
  const hostMac = names.hostMac.slice()
  hostMac[0] = 0xfe
  return { ...names, hostMac }
}

/** @throws {CniError} 7 where what there is of the name does not do */
async function ensureBridge(config: Config, world: World): Promise<FoundBridge> {
  const { bridge: name, mtu: mtuBytes, promiscMode: promiscuous, vlans } = config
  const found = await world.host.ensureBridge({ name, mtuBytes, promiscuous, vlanFiltering: vlans.length > 0 })
  refuseBridge(config, found)
  return found
}

function refuseBridge({ bridge: name, vlans }: Config, { kind, vlanFiltering }: FoundBridge): void {
  if (kind !== 'bridge')
    throw new CniError(codes.invalidConfig, `"${name}" already exists but is not a bridge`, {
      details: `it is ${kind === '' ? 'a device' : `a link of kind ${kind}`}: choose another name in "bridge"`,
    })
  if (vlans.length > 0 && !vlanFiltering)
    throw new CniError(codes.invalidConfig, `Cannot use VLANs on bridge ${name}: it does not filter them`, {
      details: `its pods would not be apart; if nothing else on it minds: ip link set ${name} type bridge vlan_filtering 1`,
    })
}

/** @throws {CniError} 7 where the bridge has another address, and nobody said that it may go */
async function ensureGateway(
  config: Config,
  world: World,
  { index, mac, mtuBytes, defaultVlan }: FoundBridge,
  addresses: GatewayWanted['addresses'],
): Promise<{ name: string; mac: Uint8Array }> {
  const { bridge: name, vlan: id, forceAddress: force, preserveDefaultVlan } = config
  const vlan = id === 0 ? {} : { vlan: { id, leave: preserveDefaultVlan || defaultVlan === id ? 0 : defaultVlan } }
  const found = await world.host.ensureBridgeGateway({
    bridge: { index, name, mac, mtuBytes },
    ...vlan,
    addresses,
    force,
  })
  if (!('conflict' in found)) return found
  const { present, wanted } = found.conflict
  throw new CniError(
    codes.invalidConfig,
    `failed to set bridge addr: "${found.name}" already has an IP address different from ${formatPrefix(wanted)}`,
    {
      details: `it has ${formatPrefix(present)}: give this network another bridge, or let the address go with "forceAddress": true`,
    },
  )
}

type Inside = { mtuBytes: number; podMac: Uint8Array } & Required<Pick<Result, 'ips' | 'routes'>>

/** Joins the pod to the bridge, and returns when frames pass. @returns the name of the node's link */
async function makePair(
  { call, world, config, key, note, undo }: Attach<Config, Traces>,
  { index: masterIndex, defaultVlan }: FoundBridge,
  { mtuBytes, podMac, ips, routes }: Inside,
): Promise<string> {
  const { owner, hostMac } = namesOf(key)
  const at = { call, world, key }
  const lease = leaseOf({ ips, routes })
  const { ifName, netnsFd } = call
  const podLink = config.disableContainerInterface
    ? undefined
    : { ifName, ...lease, detectDuplicates: config.enabledad }
  const { pair, isUp } = await underFreeName(at, async hostLink => {
    const traces = tracesOf(config, owner, hostLink, podMac, lease.addresses)
    const pair = { hostLink, ifName, netnsFd: netnsFd!, mtuBytes, hostMac, podMac, masterIndex }
    note(traces)
    try {
      const { rebuilt, isUp } = await world.host.attachBridgedPod({
        pod: {
          pair,
          owner,
          port: {
            hairpin: config.hairpinMode,
            isolated: config.portIsolation,
            vlans:
              config.vlans.length === 0
                ? undefined
                : { join: config.vlans, leave: config.preserveDefaultVlan ? 0 : defaultVlan },
          },
          podLink,
          firewall: firewallOf(traces),
        },
      })
      undo(() => detach(traces, at))
      if (rebuilt) await world.restoreFirewall()
      return { pair, isUp }
    } catch (error) {
      // The verb cleans up behind itself; where it could not, this does, or the record stays.
      if (!isNameTaken(error, hostLink)) undo(() => detach(traces, at))
      throw explain(error, ifName, config.bridge)
    }
  })
  if (!isUp) await awaitCarrier(pair.hostLink, at, () => world.host.announceFromPort({ pair, podLink }))
  return pair.hostLink
}

/** For addresses that could be asked for with the link there only. @returns the name of the node's link */
async function addLease(
  { call, world, config, key, note, undo }: Attach<Config, Traces>,
  hostLink: string,
  { podMac, ips, routes }: Inside,
): Promise<string> {
  const lease = leaseOf({ ips, routes })
  const traces = tracesOf(config, linkNames(key).owner, hostLink, podMac, lease.addresses)
  note(traces)
  undo(() => detach(traces, { world, key }))
  const pod = { ifName: call.ifName, ...lease, detectDuplicates: config.enabledad }
  await world.host.configureNic({ netnsFd: call.netnsFd!, pod })
  if (traces.masquerade !== undefined) await world.host.addBridgedFirewall({ all: [firewallOf(traces)] })
  return hostLink
}

const tracesOf = (
  config: Config,
  owner: string,
  hostLink: string,
  podMac: Uint8Array,
  addresses: readonly Prefix[],
): Traces => ({
  ...{ hostLink, owner },
  ...(config.ipMasq && config.layer3
    ? { masquerade: { link: gatewayOf(config), addresses: addresses.map(formatPrefix) } }
    : {}),
  ...(config.macspoofchk ? { onlyMac: formatMac(podMac) } : {}),
})

/** The kernel's refusal of one port more, in words that name the cause. */
function explain(error: unknown, ifName: string, bridge: string): unknown {
  if (!(error instanceof NetlinkError) || error.errno !== EXFULL) return error
  return new CniError(codes.kernel, `Cannot attach ${ifName}: bridge ${bridge} has as many ports as Linux allows`, {
    details: 'a bridge takes 1023 ports: give further pods a network with another bridge',
    cause: error,
  })
}
const EXFULL = 54

/** The link of the node by which pods' packets come to be routed. */
const gatewayOf = ({ bridge, vlan, isGateway }: Config): string =>
  isGateway && vlan !== 0 ? `${bridge}.${vlan}` : bridge

const firewallOf = ({ hostLink, owner, masquerade, onlyMac }: Traces): BridgedFirewall => ({
  owner,
  masquerade: masquerade && { link: masquerade.link, addresses: masquerade.addresses.map(parsePrefix) },
  macCheck: onlyMac === undefined ? undefined : { link: hostLink, mac: tryParseMac(onlyMac)! },
})

async function detach(traces: Traces, { world, key }: Pick<At, 'world' | 'key'>): Promise<void> {
  const { hostLink: name, owner, hostMac } = traces
  const mac = tryParseMac(hostMac ?? '') ?? namesOf(key).hostMac
  await everyStep(
    () => world.host.removeBridgedFirewall({ firewall: firewallOf(traces) }),
    async () => {
      if (hostMac !== undefined) await world.host.removeForeignMasquerade(key)
    },
    async () => {
      if (name !== '') await world.host.removeLinks({ links: [{ name, owner, mac }] })
    },
  )
}

/** Without a record: the link by its names, and what the firewall says is the attachment's. */
async function findTraces(at: At): Promise<Traces[]> {
  const { world, key } = at
  const { hostLinks, owner, hostMac } = namesOf(key)
  const links = await Promise.all(
    hostLinks.map(async hostLink => ({ hostLink, link: await world.host.describeLink({ name: hostLink }) })),
  )
  const own = links.find(
    ({ link }) => link !== undefined && (link.owner ?? owner) === owner && ipEquals(link.mac, hostMac),
  )
  const { masquerade, macCheck } = await world.host.findBridgedFirewall({ owner })
  const hostLink = own?.hostLink ?? macCheck?.link
  if (hostLink === undefined && masquerade === undefined) return await findUpstreams(at)
  return [
    {
      ...{ hostLink: hostLink ?? hostLinks[0]!, owner },
      ...(masquerade === undefined
        ? {}
        : { masquerade: { link: masquerade.link, addresses: masquerade.addresses.map(formatPrefix) } }),
      ...(macCheck === undefined ? {} : { onlyMac: formatMac(macCheck.mac) }),
    },
  ]
}

async function findUpstreams(at: At): Promise<Traces[]> {
  const pair = await findUpstreamPair(at)
  return pair === undefined ? [] : [{ hostLink: pair.hostLink, owner: namesOf(at.key).owner, hostMac: pair.mac }]
}

async function findFaults(check: Check<Config, Traces>): Promise<readonly string[]> {
  const { call, world, key, prevResult, pod, podIndex, addresses, traces } = check
  const found = await world.host.findBridge({ name: check.config.bridge })
  const config = { ...check.config, bridge: found?.name ?? check.config.bridge }
  const { hostLinks, owner } = namesOf(key)
  const onNode = (prevResult.interfaces ?? []).filter(({ sandbox }) => (sandbox ?? '') === '')
  // Upstream's plugin, which may have made it, chose another name.
  const host =
    onNode.find(({ name }) => hostLinks.includes(name)) ??
    onNode.find(({ name }) => name !== config.bridge && name !== gatewayOf(config))
  const hostLink = host?.name ?? traces?.hostLink ?? hostLinks[0]!
  const isUpstreams = traces === undefined && host !== undefined && !hostLinks.includes(host.name)
  const ips = (prevResult.ips ?? []).filter(ip => ip.interface === undefined || ip.interface === podIndex)
  const podMac = tryParseMac(pod?.mac ?? '')
  const macOf = (link: string) => tryParseMac(onNode.find(({ name }) => name === link)?.mac ?? '')
  const firewall = firewallOf({
    ...{ hostLink, owner },
    ...(config.ipMasq && config.layer3 && !isUpstreams
      ? { masquerade: { link: gatewayOf(config), addresses: addresses.map(formatPrefix) } }
      : {}),
    ...(config.macspoofchk && pod?.mac !== undefined && !isUpstreams ? { onlyMac: pod.mac } : {}),
  })
  const gateways = config.isGateway
    ? ips.flatMap(({ address, gateway }) =>
        gateway === undefined ? [] : [{ ip: parseIp(gateway), length: parsePrefix(address).length }],
      )
    : []
  return await world.host.checkBridgedPod({
    want: {
      bridge: {
        ...{ name: config.bridge, mac: config.isGateway ? macOf(config.bridge) : undefined },
        ...{ promiscuous: config.promiscMode, vlanFiltering: config.vlans.length > 0 },
      },
      ...{ hostLink, netnsFd: call.netnsFd! },
      host: {
        ...{ mac: tryParseMac(host?.mac ?? ''), mtuBytes: host?.mtu },
        owner: hostLinks.includes(hostLink) ? owner : undefined,
      },
      port: {
        ...{ hairpin: config.hairpinMode, isolated: config.portIsolation, vlans: config.vlans },
        preserveDefaultVlan: config.preserveDefaultVlan,
      },
      gateway:
        gateways.length === 0
          ? undefined
          : {
              ...{ name: gatewayOf(config), vlan: config.vlan, addresses: gateways },
              mac: config.vlan === 0 ? undefined : macOf(gatewayOf(config)),
            },
      podLink: config.disableContainerInterface
        ? undefined
        : {
            ...{ ifName: call.ifName, kind: 'veth' },
            ...{ mac: podMac, mtuBytes: pod?.mtu },
            ...leaseOf({ ips, routes: prevResult.routes ?? [] }),
            byAnyLink: hasOtherLinks(prevResult, call),
            ...(traces === undefined ? {} : { made: { detectDuplicates: config.enabledad } }),
          },
      firewall,
    },
  })
}

/** @throws {CniError} 50 where no pod could be attached */
async function requireReady(config: Config, world: World): Promise<void> {
  const vlanFiltering = config.vlans.length > 0
  const found = await world.host.findBridge({ name: config.bridge })
  await requireAvailable(() => found !== undefined && refuseBridge(config, found))
  const lacks = await world.host.lacksForBridge({ vlanFiltering, macCheck: config.macspoofchk })
  if (lacks.length > 0)
    throw new CniError(
      codes.notAvailable,
      `Cannot attach pods to ${config.bridge}: this kernel lacks ${lacks.join(', ')}`,
      {
        details:
          'load the modules (bridge, veth, nf_tables), or start a kernel with CONFIG_BRIDGE_VLAN_FILTERING and CONFIG_NF_TABLES_BRIDGE',
      },
    )
}
