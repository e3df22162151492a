// SPDX-License-Identifier: Apache-2.0

import { formatPrefix, hostPrefix, type Ip, networkOf, type Prefix } from '#base'
import { familyOf, protocols, type Route, RT_TABLE_MAIN, type Rule, type RulePattern, scopes } from '#rtnetlink'
import type { Pair } from './pair.ts'

// What a veth to the node consists of on both sides, as data: ADD makes it, CHECK compares it, DEL takes it away.
// Indices of links are added where they are known.

/** A pod with a NIC of its own, and a veth to its node beside it. */
export type VethHostPod = Omit<Pair, 'masterIndex'> & {
  /** IFLA_IFALIAS of the node's end: whose it is. */
  owner: string
  /** The pod's own NIC. */
  underlay: string
  /** The addresses of that NIC; the veth has none. */
  addresses: Prefix[]
  /** The node's addresses, which the pod reaches by the veth. The first of each family is the next hop. */
  nodeAddresses: Ip[]
  /** What else the pod reaches by way of the node: service networks. */
  services: Prefix[]
  /** The pod's default route goes by way of the node. */
  isDefault: boolean
  /** Gateways of the NIC that no route of the pod names. */
  gateways: Ip[]
  /** Routing table on the node, and in the pod. */
  table: number
  /** The bit that we use of packets' marks. */
  mark: number
}

/** What follows from the addresses alone. */
export type Shape = Pick<VethHostPod, 'addresses' | 'nodeAddresses' | 'services' | 'isDefault' | 'table' | 'mark'>

/** The address families of a pod. */
export const familiesOf = ({ addresses }: Pick<VethHostPod, 'addresses'>): number[] => [
  ...new Set(addresses.map(({ ip }) => familyOf(ip))),
]

/** The node's address that is the pod's next hop, and stands for the pod where its own would not do. */
export const nextHopOf = ({ nodeAddresses }: Pick<VethHostPod, 'nodeAddresses'>, family: number): Ip =>
  nodeAddresses.find(address => familyOf(address) === family)!

/** Before this, the local table only: what comes from a pod's link and has our mark is the node's own business. */
const PRIORITY_MARKED = 1023
/** As the tables are named in `ip rule`: from all iif veth… lookup 256. */
const PRIORITY_POD = 1024

/** Rules on the node: marked packets of the pod go by the main table, all others back into the pod. */
export const nodeRules = ({ hostLink, ...shape }: Pick<VethHostPod, 'hostLink' | 'table' | 'mark' | 'addresses'>) =>
  familiesOf(shape).flatMap((family): Rule[] => [
    {
      ...{ family, priority: PRIORITY_MARKED, inInterface: hostLink, mark: shape.mark, markMask: shape.mark },
      ...{ table: RT_TABLE_MAIN, protocol: protocols.mooring },
    },
    { family, priority: PRIORITY_POD, inInterface: hostLink, table: shape.table, protocol: protocols.mooring },
  ])

/**
 * What tells the rules on the node from all others: their place, and the link that they name. What else they say somebody may
 * have changed.
 */
export const nodeRulePatterns = (traces: Parameters<typeof nodeRules>[0]): RulePattern[] =>
  nodeRules(traces).map(({ family, priority, inInterface }) => ({ family, priority, inInterface: inInterface! }))

/** Which address a machine speaks from; undefined: the kernel chooses the right one by itself. */
export type ChooseSource = (family: number) => Ip | undefined

/** The pod's host routes on the node. */
export const nodeRoutes = (shape: Shape, source: ChooseSource): Route[] =>
  shape.addresses.map(({ ip }) => ({
    ...{ family: familyOf(ip), destination: hostPrefix(ip), scope: scopes.link },
    ...optionalSource(source(familyOf(ip))),
  }))

/** The pod's table on the node: back into the pod. Whoever makes the first of them has the table. */
export const nodeTable = (shape: Shape): Route[] =>
  familiesOf(shape).map(family => ({
    family,
    gateway: shape.addresses.find(({ ip }) => familyOf(ip) === family)!.ip,
    table: shape.table,
  }))

/** Routes in the pod, by the veth. */
export function podRoutes(shape: Shape, source: ChooseSource): Route[] {
  return familiesOf(shape).flatMap(family => {
    const common = { family, protocol: protocols.boot, ...optionalSource(source(family)) }
    const gateway = nextHopOf(shape, family)
    const own = shape.nodeAddresses.filter(address => familyOf(address) === family)
    const services = shape.services.filter(({ ip }) => familyOf(ip) === family)
    return [
      ...own.map(address => ({ ...common, destination: hostPrefix(address), scope: scopes.link })),
      ...services.map(service => ({ ...common, destination: networkOf(service), gateway })),
      ...(shape.isDefault ? [{ ...common, gateway }] : []),
    ]
  })
}
const optionalSource = (preferredSource: Ip | undefined) => (preferredSource === undefined ? {} : { preferredSource })

/** Answers to what came by the veth go there, whatever the main table says. */
export const podTableRoutes = (shape: Shape): Route[] =>
  familiesOf(shape).map(family => ({
    ...{ family, protocol: protocols.boot, gateway: nextHopOf(shape, family), table: shape.table },
  }))

/** Another bit than the mark's, in the pod alone: connections that came by the pod's own NIC. */
export const underlayMark = (mark: number): number => (mark === 0x80000000 ? mark >>> 1 : mark << 1) >>> 0

const UNDERLAY_TABLES = 0x10000
/** The pod's routes as they would be without us, where its default route is ours. */
export const underlayTable = (table: number): number => table + UNDERLAY_TABLES

/** Rules in the pod. */
export const podRules = ({ ifName, ...shape }: Shape & Pick<VethHostPod, 'ifName'>): Rule[] =>
  familiesOf(shape).flatMap(family => {
    const marked = (mark: number, table: number): Rule => ({
      ...{ family, priority: PRIORITY_POD, mark, markMask: mark, table, protocol: protocols.mooring },
    })
    const rules = [marked(shape.mark, shape.table)]
    if (!shape.isDefault) return rules
    const table = underlayTable(shape.table)
    return [
      ...rules,
      marked(underlayMark(shape.mark), table),
      // A service that the node sent back into the pod: it must not go to the node again.
      { family, priority: PRIORITY_POD, inInterface: ifName, table, protocol: protocols.mooring },
    ]
  })

const isSamePrefix = (a: Prefix | undefined, b: Prefix | undefined) =>
  a === undefined || b === undefined ? a === b : formatPrefix(a) === formatPrefix(b)

/** True for a rule that looks up the same table for the same packets. */
export const isSameRule = (entry: Rule, want: Rule): boolean =>
  entry.priority === want.priority &&
  entry.table === want.table &&
  entry.inInterface === want.inInterface &&
  entry.outInterface === want.outInterface &&
  (entry.mark ?? 0) === (want.mark ?? 0) &&
  (entry.markMask ?? 0) === (want.markMask ?? 0) &&
  isSamePrefix(entry.source, want.source) &&
  isSamePrefix(entry.destination, want.destination) &&
  entry.protocol === want.protocol
