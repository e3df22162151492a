// SPDX-License-Identifier: Apache-2.0

// What Neutron, Nova and the journal say of the same ports, side by side. Pure: facts in, report out.

import { markOfName } from '#allocator'
import { compareIp, parseIp, prefixContains, tryParsePrefix } from '#base'
import type { AddressPair, Interface, Port } from '#openstack'
import type { CloudPorts, CloudServer } from './cloud-ports.ts'
import { describeHolder, type Holder, type Lease } from './leases.ts'

/** What an address of a port is for. `primary`: the server itself; `unknown`: the journal of this node says nothing of it. */
export type AddressUse =
  | 'primary'
  | 'making'
  | 'reserve'
  | 'assigned'
  | 'releasing'
  | 'removing'
  | 'quarantined'
  | 'foreign'
  | 'unknown'

export type AddressReport = {
  readonly address: string
  /** Null for an allowed address pair. */
  readonly subnetId: string | null
  readonly use: AddressUse
  readonly holder: Holder | null
  readonly floatingIp: string | null
}

export type PortReport = {
  readonly id: string
  readonly name: string
  readonly description: string
  readonly status: string
  readonly mac: string
  readonly network: { readonly id: string; readonly name: string | null }
  readonly deviceId: string
  readonly deviceOwner: string
  /** True if its name says that Mooring made it; whose it is stands in the description too. */
  readonly isMarked: boolean
  readonly securityGroups: readonly string[]
  /** Null where this user is not shown it. */
  readonly portSecurity: boolean | null
  readonly allowedAddressPairs: readonly AddressPair[]
  readonly addresses: readonly AddressReport[]
  /** What differs between Neutron, Nova and the journal, in words. */
  readonly faults: readonly string[]
}

export type ServerReport = {
  readonly cloud: string
  readonly id: string
  readonly name: string | null
  readonly status: string | null
  readonly ports: readonly PortReport[]
  readonly faults: readonly string[]
}

export type PortsReport = {
  readonly servers: readonly ServerReport[]
  /** Ports of this node that none of these servers has. */
  readonly others: readonly PortReport[]
  readonly faults: readonly string[]
}

/** What the journal of this node knows. */
export type JournalFacts = {
  readonly leases: readonly Lease[]
  /** Ports whose addresses are leases one by one. */
  readonly knownPorts: readonly string[]
  /** What ports shall let pass although it is no address of theirs, by port. */
  readonly pairs: ReadonlyMap<string, readonly string[]>
}

/** Which ports are looked at. */
export type JoinOptions = {
  /** True for those of this node, of which the journal knows all. */
  readonly ofThisNode: boolean
  /** Leaves out the servers' own addresses, and ports that have no others. */
  readonly withoutPrimary: boolean
  /** Why a further cloud could not be looked at: nothing is missing then that may be there. */
  readonly unseen: readonly string[]
}

/** True if something is not as it should be. */
export const hasPortFaults = ({ servers, others, faults }: PortsReport): boolean =>
  faults.length > 0 ||
  others.some(port => port.faults.length > 0) ||
  servers.some(server => server.faults.length > 0 || server.ports.some(port => port.faults.length > 0))

/** Joins what was read. */
export function joinPorts(clouds: readonly CloudPorts[], journal: JournalFacts, options: JoinOptions): PortsReport {
  const reportsOf = (ports: readonly Port[], facts: CloudPorts, server?: CloudServer): PortReport[] => {
    const reports = ports.map(port => reportOf(port, facts, journal, server))
    return options.withoutPrimary ? reports.flatMap(withoutPrimaryOf) : reports
  }
  const servers = clouds.flatMap(facts =>
    facts.servers.map(server => ({
      ...{ cloud: facts.cloud, id: server.id, name: server.name ?? null, status: server.status ?? null },
      ports: reportsOf(portsOf(server, facts), facts, server),
      faults: faultsOf(server, facts),
    })),
  )
  const others = clouds.flatMap(facts => {
    const taken = new Set(facts.servers.flatMap(server => portsOf(server, facts).map(port => port.id)))
    return reportsOf(
      facts.ports.filter(port => !taken.has(port.id)),
      facts,
    )
  })
  const missing = () => (options.ofThisNode ? gone(clouds, journal) : notFound(clouds))
  return { servers, others, faults: options.unseen.length > 0 ? options.unseen : missing() }
}

/** Neutron's view of a server's ports, and what Nova alone calls its own. */
function portsOf({ id, interfaces = [] }: CloudServer, { ports }: CloudPorts): Port[] {
  const shown = new Set(interfaces.map(each => each.port_id))
  return ports.filter(port => port.device_id === id || shown.has(port.id))
}

function faultsOf(server: CloudServer, { ports }: CloudPorts): string[] {
  const unknown = (server.interfaces ?? []).filter(({ port_id }) => !ports.some(port => port.id === port_id))
  return [
    ...(server.error === undefined ? [] : [server.error]),
    ...unknown.map(
      ({ port_id, mac_addr, fixed_ips }) =>
        `Nova shows port ${port_id} (${mac_addr}, ${fixed_ips.map(each => each.ip_address).join(' ')}), and Neutron does not`,
    ),
  ]
}

function reportOf(port: Port, facts: CloudPorts, journal: JournalFacts, server: CloudServer | undefined): PortReport {
  const mark = markOfName(port.name)
  const leases = journal.leases.filter(lease => lease.portId === port.id || (mark !== undefined && lease.mark === mark))
  const addresses = addressesOf(port, facts, leases)
  const isKnown = journal.knownPorts.includes(port.id) || leases.length > 0
  const isLost = mark !== undefined && facts.owners.length > 0 && !isKnown
  return {
    ...{ id: port.id, name: port.name, description: port.description ?? '', status: port.status },
    mac: port.mac_address,
    network: { id: port.network_id, name: facts.networks.find(({ id }) => id === port.network_id)?.name ?? null },
    ...{ deviceId: port.device_id, deviceOwner: port.device_owner },
    isMarked: mark !== undefined,
    securityGroups: port.security_groups ?? [],
    portSecurity: port.port_security_enabled ?? null,
    allowedAddressPairs: port.allowed_address_pairs ?? [],
    addresses,
    faults: [
      ...(server?.interfaces === undefined ? [] : novaFaults(port, server, server.interfaces)),
      ...(isKnown ? journalFaults(port, addresses, leases) : []),
      ...pairFaults(port, journal.pairs.get(port.id) ?? []),
      ...(isLost ? ["it has Mooring's mark, and the journal of this node does not know it"] : []),
    ],
  }
}

function addressesOf(port: Port, facts: CloudPorts, leases: readonly Lease[]): AddressReport[] {
  const floating = facts.floatingIps.filter(each => each.port_id === port.id)
  // The record of a port that is being made has no address yet.
  const leaseOf = (address: string) => leases.find(each => each.address === address) ?? wholePort(leases)
  const one = (address: string, subnetId: string | null): AddressReport => {
    const lease = leaseOf(address)
    return {
      ...{ address, subnetId },
      use: useOf(lease, facts.primary.has(address)),
      holder: lease?.holder ?? null,
      floatingIp: floating.find(each => each.fixed_ip_address === address)?.floating_ip_address ?? null,
    }
  }
  const fixed = port.fixed_ips.map(each => one(each.ip_address, each.subnet_id))
  // Of the pairs, those that are addresses of pods; the others are listed with the port.
  const pairs = (port.allowed_address_pairs ?? [])
    .map(({ ip_address }) => canonical(ip_address))
    .filter(pair => leases.some(({ address }) => address === pair) && !fixed.some(({ address }) => address === pair))
    .map(pair => one(pair, null))
  return [...fixed, ...pairs].sort((a, b) => compareIp(parseIp(a.address), parseIp(b.address)))
}

const wholePort = (leases: readonly Lease[]): Lease | undefined => leases.find(({ kind }) => kind !== 'address')

function useOf(lease: Lease | undefined, isPrimary: boolean): AddressUse {
  if (isPrimary && (lease === undefined || lease.state === 'foreign')) return 'primary'
  if (lease === undefined) return 'unknown'
  return lease.state === 'free' ? 'reserve' : lease.state
}

function novaFaults(port: Port, { id }: CloudServer, interfaces: readonly Interface[]): string[] {
  const seen = interfaces.find(({ port_id }) => port_id === port.id)
  if (seen === undefined) return [`Neutron says that it is server ${id}'s, and Nova does not list it there`]
  const [nova, neutron] = [seen, port].map(({ fixed_ips }) => fixed_ips.map(each => each.ip_address).sort())
  const faults = []
  if (port.device_id !== id)
    faults.push(`Nova lists it with server ${id}, and Neutron says that it is ${port.device_id || 'nobody'}'s`)
  if (nova!.join() !== neutron!.join()) faults.push(`Nova shows ${nova!.join(' ')}, and Neutron ${neutron!.join(' ')}`)
  if (seen.mac_addr.toLowerCase() !== port.mac_address.toLowerCase())
    faults.push(`Nova shows MAC ${seen.mac_addr}, and Neutron ${port.mac_address}`)
  return faults
}

/** A look between a change of ours and its record finds differences too: they are gone at the next. */
function journalFaults(port: Port, addresses: readonly AddressReport[], leases: readonly Lease[]): string[] {
  const isOnPort = (wanted: string) => addresses.some(({ address }) => address === wanted) || inPairs(port, wanted)
  const lost = leases.flatMap(({ address, state, holder }) => {
    if (address === null || (state !== 'assigned' && state !== 'free') || isOnPort(address)) return []
    const whose = holder === null ? 'in the reserve' : `recorded for ${describeHolder(holder)}`
    return [`${address} is ${whose}, and the port does not have it`]
  })
  const strange = addresses.flatMap(({ address, use }) => {
    if (use === 'quarantined') return [`nobody can say whose ${address} is: mooring ip adopt, or mooring ip release`]
    const isRecorded = wholePort(leases) !== undefined || leases.some(lease => lease.address === address)
    return isRecorded ? [] : [`${address} is on the port, and the journal does not know it`]
  })
  return [...lost, ...strange]
}

/** Without port security everything passes. */
function pairFaults(port: Port, wanted: readonly string[]): string[] {
  if (port.port_security_enabled === false) return []
  const held = (port.allowed_address_pairs ?? []).map(({ ip_address }) => canonical(ip_address))
  const missing = wanted.filter(each => !held.includes(canonical(each)))
  return missing.map(each => `${each} is recorded as an allowed pair, and the port does not have it`)
}

/** The same text for an address and for the prefix that is that address alone. */
const canonical = (text: string) => text.replace(/\/(32|128)$/, '')

/** One pair may let a whole prefix pass. */
const inPairs = ({ allowed_address_pairs = [] }: Port, address: string): boolean =>
  allowed_address_pairs.some(({ ip_address }) => {
    const prefix = tryParsePrefix(ip_address)
    return prefix !== undefined && prefixContains(prefix, parseIp(address))
  })

function withoutPrimaryOf(port: PortReport): PortReport[] {
  const addresses = port.addresses.filter(({ use }) => use !== 'primary')
  return addresses.length === 0 && port.addresses.length > 0 ? [] : [{ ...port, addresses }]
}

/** An address that one of several clouds has is found. */
function notFound(clouds: readonly CloudPorts[]): string[] {
  return (clouds[0]?.notFound ?? [])
    .filter(({ address }) => clouds.every(cloud => cloud.notFound.some(each => each.address === address)))
    .map(({ address, text }) => `Cannot find the server with ${address}: ${text}`)
}

function gone(clouds: readonly CloudPorts[], { knownPorts, leases }: JournalFacts): string[] {
  const seen = new Set(clouds.flatMap(({ ports }) => ports.flatMap(port => [port.id, markOfName(port.name) ?? ''])))
  const ports = knownPorts.filter(portId => !seen.has(portId))
  const objects = Map.groupBy(
    // What is being made or removed may be there or not.
    leases.filter(
      ({ state, mark, portId }) =>
        mark !== null && (state === 'assigned' || state === 'free') && !seen.has(mark) && !seen.has(portId),
    ),
    ({ portId }) => portId,
  )
  return [
    ...ports.map(portId => {
      const count = leases.filter(lease => lease.portId === portId && lease.state !== 'foreign').length
      return `Neutron does not show port ${portId}, of which the journal knows ${count} addresses of pods and reserve`
    }),
    ...[...objects].map(([portId, [lease]]) => {
      const whose = lease!.holder === null ? 'in the reserve' : `recorded for ${describeHolder(lease!.holder)}`
      return `Neutron does not show port ${portId}, which is ${whose}`
    }),
  ]
}
