// SPDX-License-Identifier: Apache-2.0

import { formatIp, type Ip, ipEquals, networkOf, type Prefix, prefixContains } from '#base'
import { deleteFlow, type Flow, listFlows } from '#conntrack'
import { EEXIST, EINVAL, ENOENT, EOPNOTSUPP } from '#libc'
import { NetlinkError, type Transport } from '#netlink'
import {
  addElement,
  addElements,
  commit,
  type Element,
  type ElementOf,
  type Field,
  formatElement,
  listElements,
  listSets,
  NftablesError,
  readElements,
} from '#nftables'
import { AF_INET, AF_INET6, decodeAddress, decodeRoute, dumpAddresses, lookupRoute } from '#rtnetlink'
import { partFaults } from './chain-faults.ts'
import type { HostContext } from './context.ts'
import { removeElements } from './elements.ts'
import { settingFaults } from './link-faults.ts'
import { tryFindLink } from './links.ts'
import { type IpVersion, ipVersions, versionOf } from './match.ts'
import { ensureParts, table } from './part.ts'
import {
  addPortmapNeeds,
  type Condition,
  everywhere,
  localhost,
  nearSet,
  type PortmapNeeds,
  parseNearSet,
  parsePortMap,
  portMap,
  portmap,
  portmapRules,
} from './portmap-rules.ts'
import { removeUpstreamPorts, type UpstreamPod } from './portmap-upstream.ts'
import { ensureSysctl } from './sysctl.ts'

/** IPPROTO_*, by the names that configurations use. */
export const portProtocols = Object.freeze({ tcp: 6, udp: 17, sctp: 132 } as const)

/** A port of the node that leads to a pod. */
export type HostPort = {
  readonly protocol: number
  readonly hostPort: number
  /** The node's address to which connections are taken; undefined: all of the node's addresses. */
  readonly hostIp?: Ip | undefined
  readonly pod: Ip
  readonly podPort: number
}

/** All ports of one attachment. */
export type HostPorts = {
  /** Names the attachment; the comment of every element. At most 127 bytes. */
  readonly owner: string
  readonly ports: readonly HostPort[]
  /** Given: sources whose address is replaced by the node's, told by this bit of the connection's mark. */
  readonly masquerade?: { readonly bit: number; readonly all: boolean; readonly near: readonly Prefix[] } | undefined
  readonly conditions: { readonly [V in IpVersion]: readonly Condition[] }
}

/** Whose a port is that was asked for. */
export type TakenPort = { readonly owner: string; readonly port: HostPort }

/** The elements of the ports, each with the port that it is of. */
function elementsOf({ owner: comment, ports, masquerade, conditions }: HostPorts): (ElementOf & { port: HostPort })[] {
  return ports.flatMap(port => {
    const { protocol, hostPort, hostIp, pod, podPort } = port
    const version = versionOf(pod)
    const group = { target: hostIp === undefined ? 'any' : 'to', version, conditions: conditions[version] } as const
    const asked: Field[] = [...(hostIp === undefined ? [] : [hostIp]), protocol, hostPort]
    const near = sourcesOf(masquerade, version).map(({ ip, length }) => ({
      set: nearSet({ ...group, length, bit: masquerade!.bit }),
      element: { key: [ip, ...asked], comment },
      port,
    }))
    return [{ set: portMap(group), element: { key: asked, value: [pod, podPort], comment }, port }, ...near]
  })
}

/** Whose source is replaced: everybody's, or theirs to whom an answer would not go by way of the node. */
function sourcesOf(masquerade: HostPorts['masquerade'], version: IpVersion): Prefix[] {
  if (masquerade === undefined) return []
  if (masquerade.all) return [everywhere[version]]
  const near = masquerade.near.filter(({ ip }) => versionOf(ip) === version).map(networkOf)
  // ::1 cannot leave the node at all.
  return version === 'v4' ? [...near, localhost] : near
}

/**
 * Leads ports to a pod, all or none. Makes what the table lacks.
 * @returns `taken` where another has one of the ports: nothing was done then. `rebuilt` where the chains had to be made,
 *   so that the other pods' elements may be missing.
 * @throws {NetlinkError}
 */
export function addPorts(transport: Transport, ports: HostPorts): { rebuilt: boolean; taken?: TakenPort } {
  const elements = elementsOf(ports)
  const changes = addElements(elements, { exclusive: true })
  let rebuilt = false
  for (let tries = 1; ; tries++) {
    try {
      commit(transport, changes)
      return { rebuilt }
    } catch (error) {
      if (!(error instanceof NftablesError) || tries === TRIES_MAX) throw error
      if (error.errno === ENOENT) rebuilt = ensurePortmap(transport, [ports]) || rebuilt
      else if (error.errno === EEXIST) {
        const found = readElements(transport, elements)
        const other = found.findIndex(each => each !== undefined && each.comment !== ports.owner)
        if (other >= 0) return { rebuilt, taken: { owner: found[other]!.comment ?? '', port: elements[other]!.port } }
        // What an earlier attempt of the same attachment left.
        removeElements(
          transport,
          elements.filter((_, index) => found[index] !== undefined),
        )
      } else throw error
    }
  }
}

/** One for what is missing, one for what an earlier attempt left, and as many again for a table that is flushed meanwhile. */
const TRIES_MAX = 5

/** Makes what is missing of the chains, and of what these ports need. @returns whether the chains had to be made anew */
export function ensurePortmap(transport: Transport, all: readonly HostPorts[]): boolean {
  const needs = needsOf(all)
  const renewed = ensureParts(transport, {
    parts: [portmap],
    more: (kernel, { renewed: anew }) => addPortmapNeeds(needs, listSets(kernel, table), anew.includes(portmap)),
  })
  return renewed.includes(portmap)
}

/** What ports need of the chains, beside what every node has. */
function needsOf(all: readonly HostPorts[]): PortmapNeeds {
  const names = new Set(all.flatMap(elementsOf).map(({ set }) => set.name))
  return {
    maps: [...names].flatMap(name => parsePortMap(name) ?? []),
    sets: [...names].flatMap(name => parseNearSet(name) ?? []),
  }
}

/**
 * Puts back what is missing of several attachments, after somebody flushed the table. A port that another took meanwhile
 * is that one's.
 * @returns the ports that were missing, whose flows are to be forgotten. @throws {NetlinkError}
 */
export function restorePorts(transport: Transport, all: readonly HostPorts[]): HostPort[] {
  if (all.length === 0) return []
  ensurePortmap(transport, all)
  const missing = new Set<HostPort>()
  for (const ports of all) {
    const elements = elementsOf(ports)
    const found = readElements(transport, elements)
    for (const [index, { set, element, port }] of elements.entries()) {
      if (found[index] !== undefined) continue
      try {
        commit(transport, [addElement(set, element, { exclusive: true })])
        missing.add(port)
      } catch (error) {
        if (!(error instanceof NftablesError && error.errno === EEXIST)) throw error
      }
    }
  }
  return [...missing]
}

/**
 * Ends what leads to a pod by its ports; what is not there, or another's by now, is no matter.
 * @returns the ports that are not another's. @throws {NetlinkError}
 */
export function removePorts(transport: Transport, { owner, ...rest }: HostPorts): HostPort[] {
  const elements = elementsOf({ owner, ...rest })
  const found = readElements(transport, elements)
  const own = elements.filter((_, index) => found[index]?.comment === owner)
  if (own.length > 0) removeElements(transport, own)
  const foreign = new Set(
    elements.filter((_, index) => (found[index]?.comment ?? owner) !== owner).map(({ port }) => port),
  )
  return rest.ports.filter(port => !foreign.has(port))
}

/** The owners that have ports, read from the kernel. @throws {NetlinkError} */
export function listPorts(transport: Transport): { owner: string; ports: HostPort[] }[] {
  const owners = new Map<string, HostPort[]>()
  for (const name of listSets(transport, table)) {
    const group = parsePortMap(name)
    if (group === undefined) continue
    for (const element of listElements(transport, portMap(group)) ?? []) {
      const owner = element.comment ?? ''
      owners.set(owner, [...(owners.get(owner) ?? []), portOf(element)])
    }
  }
  return [...owners].map(([owner, ports]) => ({ owner, ports }))
}

/** The port of a map's element; one field more in the key is the node's address. */
function portOf({ key, value }: Element): HostPort {
  const [protocol, hostPort] = key.slice(-2) as [number, number]
  const [pod, podPort] = value as unknown as [Ip, number]
  return { protocol, hostPort, ...(key.length === 3 ? { hostIp: key[0] as Ip } : {}), pod, podPort }
}

/**
 * Ends what an owner has, found by its name alone: all sets are read.
 * @returns its ports. @throws {NetlinkError}
 */
export function removeOwner(transport: Transport, owner: string): HostPort[] {
  const found = listSets(transport, table).flatMap((name): ElementOf[] => {
    const [group, near] = [parsePortMap(name), parseNearSet(name)]
    const set = group !== undefined ? portMap(group) : near !== undefined ? nearSet(near) : undefined
    const elements = set === undefined ? undefined : listElements(transport, set, { mentioning: [owner] })
    return (elements ?? []).filter(({ comment }) => comment === owner).map(element => ({ set: set!, element }))
  })
  if (found.length > 0) removeElements(transport, found)
  return found.filter(({ set }) => set.data !== undefined).map(({ element }) => portOf(element))
}

/** The differences between the node and what ADD made, in words; none: all is well. @throws {NetlinkError} */
export function checkPorts(transport: Transport, ports: HostPorts): string[] {
  const elements = elementsOf(ports)
  const found = readElements(transport, elements)
  const faults = elements.flatMap(({ set, element }, index) => {
    const there = found[index]
    const what = formatElement(set, element)
    if (there === undefined) return [`${what} is missing`]
    if (there.comment !== ports.owner) return [`${what} is of "${there.comment ?? ''}", not of "${ports.owner}"`]
    const [pod, podPort] = (there.value ?? []) as unknown as [Ip?, number?]
    const [wanted, wantedPort] = (('value' in element ? element.value : undefined) ?? []) as unknown as [Ip?, number?]
    if (wanted === undefined || (pod !== undefined && ipEquals(pod, wanted) && podPort === wantedPort)) return []
    return [`${what} leads to ${pod === undefined ? 'nothing' : formatIp(pod)} port ${podPort}, not to the pod`]
  })
  return [...faults, ...partFaults(transport, portmap, portmapRules(needsOf([ports])))]
}

/** True where packets that go on keep their old way: a flow of UDP has no end. */
export const keepsFlows = (ports: readonly HostPort[]): boolean =>
  ports.some(({ protocol }) => protocol === portProtocols.udp)

/**
 * Forgets the UDP connections to ports of the node, so that the next packet of each is led where the port leads now. The
 * kernel walks through its whole table of connections, 5 ms and more.
 * @throws {NetlinkError}
 */
export function forgetFlows({ netfilter, route }: HostContext, ports: readonly HostPort[]): void {
  const udp = ports.filter(({ protocol }) => protocol === portProtocols.udp)
  for (const version of ipVersions) {
    const wanted = udp.filter(({ pod }) => versionOf(pod) === version)
    if (wanted.length === 0) continue
    const family = version === 'v4' ? AF_INET : AF_INET6
    const own = route.execute([dumpAddresses(0, family)])[0]!.messages.map(message => decodeAddress(message).prefix.ip)
    const isOwn = (ip: Ip) => own.some(each => ipEquals(each, ip)) || prefixContains(localhost, ip)
    const isOurs = (flow: Flow) =>
      wanted.some(
        ({ hostPort, hostIp }) =>
          flow.destinationPort === hostPort &&
          isOwn(flow.destination) &&
          (hostIp === undefined || ipEquals(flow.destination, hostIp)),
      )
    const flows = listUdp(netfilter, version, [...new Set(wanted.map(({ hostPort }) => hostPort))]).filter(isOurs)
    if (flows.length > 0) netfilter.execute(flows.map(deleteFlow))
  }
}

/** With one port the kernel compares it, else all of UDP is read at once. */
function listUdp(transport: Transport, version: IpVersion, ports: readonly number[]): Flow[] {
  const [first, second] = ports
  const filter = { version, protocol: portProtocols.udp }
  try {
    return listFlows(
      transport,
      first === undefined || second !== undefined ? filter : { ...filter, destinationPort: first },
    )
  } catch (error) {
    // A kernel without ctnetlink (CONFIG_NF_CT_NETLINK).
    if (error instanceof NetlinkError && (error.errno === EINVAL || error.errno === EOPNOTSUPP)) return []
    throw error
  }
}

/** The link that leads to a pod; undefined where no route does. */
function linkTo({ route }: HostContext, pod: Ip): string | undefined {
  const found = route.execute([lookupRoute(pod)])[0]!.messages[0]
  const index = found === undefined ? undefined : decodeRoute(found).outInterface
  return index === undefined ? undefined : tryFindLink(route, { index })?.ifname
}

/** The link by which packets of 127.0.0.1 leave, and their answers come; undefined where there are none. */
function localnetLink(context: HostContext, { masquerade, ports }: HostPorts): string | undefined {
  const v4 = ports.find(({ pod }) => versionOf(pod) === 'v4')
  return masquerade === undefined || v4 === undefined ? undefined : linkTo(context, v4.pod)
}

/** Adds ports and what their packets need, or nothing. See `addPorts`. */
export function attachPorts(context: HostContext, ports: HostPorts): { rebuilt: boolean; taken?: TakenPort } {
  const outcome = addPorts(context.netfilter, ports)
  if (outcome.taken !== undefined) return outcome
  using undo = new DisposableStack()
  undo.defer(() => removePorts(context.netfilter, ports))
  const link = localnetLink(context, ports)
  // Goes with the link.
  if (link !== undefined) ensureSysctl('1', 'ipv4', 'conf', link, 'route_localnet')
  undo.move()
  return outcome
}

/** An attachment of which no more is known: its ports are looked for, ours and those of upstream's plugin. */
export type UnknownPorts = UpstreamPod & { readonly owner: string }

/**
 * The opposite: by what the ADD noted, or, without it, by names.
 * @returns the ports whose flows are to be forgotten
 */
export function detachPorts({ netfilter }: HostContext, owned: HostPorts | UnknownPorts): HostPort[] {
  if ('ports' in owned) return removePorts(netfilter, owned)
  const ports = removeOwner(netfilter, owned.owner)
  removeUpstreamPorts(netfilter, owned)
  return ports
}

/** For verbs.ts: ports of the node that lead to pods. */
export const portVerbs = {
  attachPorts: (context: HostContext, { ports }: { ports: HostPorts }) => attachPorts(context, ports),
  detachPorts: (context: HostContext, { owned }: { owned: HostPorts | UnknownPorts }): HostPort[] =>
    detachPorts(context, owned),
  /** Blocks its thread while the kernel walks through all connections of the machine. */
  forgetFlows: (context: HostContext, { ports }: { ports: readonly HostPort[] }): void => forgetFlows(context, ports),
  listPorts: (context: HostContext) => listPorts(context.netfilter),
  checkPorts(context: HostContext, { ports }: { ports: HostPorts }): string[] {
    const link = localnetLink(context, ports)
    const local = link === undefined ? [] : settingFaults('on the node', '1', 'ipv4', 'conf', link, 'route_localnet')
    return [...checkPorts(context.netfilter, ports), ...local]
  },
  restorePorts: (context: HostContext, { all }: { all: readonly HostPorts[] }): HostPort[] =>
    restorePorts(context.netfilter, all),
}
