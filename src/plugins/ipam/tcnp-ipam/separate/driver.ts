// SPDX-License-Identifier: Apache-2.0

import {
  type AddressOwner,
  type CloudObject,
  type Limits,
  type MadeObject,
  markOfName,
  nameOfMark,
  type ObjectDriver,
  type ObjectRequest,
} from '#allocator'
import { atMost } from '#base'
import { type CloudSession, type FixedIpRequest, OpenStackError, type Port, type PortCreateTagged } from '#openstack'
import { disassociateFloatingIps } from '../floating-ips.ts'
import type { PlaceSubnet } from '../subnets.ts'
import { descriptionOf, deviceOwnerOf, type OwnerMark, tagsOf } from './owner-mark.ts'
import { findFree } from './room.ts'
import type { Passing } from './with-pairs.ts'

/** What makes the ports of one pool what they are. JSON: the journal keeps it, so that a later process makes the same. */
export type PortPlace = {
  readonly owner: OwnerMark
  readonly networkId: string
  /** Per IP version, the subnets that will do, in order of preference. */
  readonly families: readonly (readonly PlaceSubnet[])[]
  /** By id; undefined: what Neutron gives by itself. */
  readonly securityGroups: readonly string[] | undefined
  readonly portSecurity: boolean | undefined
  readonly keepsTags: boolean
  /** False on a network with SLAAC: of several ports at once Neutron makes addresses from MACs that they do not have yet, and fails. */
  readonly takesSeveral: boolean
  /** The host to which the ports are bound; undefined: to none. */
  readonly boundTo: string | undefined
  /** The port of the node, where the addresses pass by address pairs; undefined: nothing on the node's side is needed. */
  readonly passing: Passing | undefined
  /** After a subnet was found full, until it is tried again. */
  readonly retryFullMs: number
}

/** What one attachment asks for beyond its pool. JSON. */
export type SpecialPort = { readonly addresses: Readonly<Record<string, string>>; readonly mac: string | undefined }

export const MODE = 'separate'
/** Ports in one creation: Neutron takes 0.15 s for each, and nobody is served before the last is made. */
const BATCH_MAX = 64
const PARALLEL = 4
/** Six times what Neutron takes for a port, and the rest of a call: after that the answer is lost, and a look tells more than waiting. */
const PORT_MS = 1_000
const CALL_MS = 20_000

/** Neutron ports of which each is one attachment's. */
export function portDriver({ neutron, identity }: CloudSession, place: PortPlace): ObjectDriver {
  const { owner: mark, networkId, families, keepsTags } = place
  /** Free addresses by subnet, as they were counted last. */
  const free = new Map<string, { count: number; untilMs: number }>()

  const freeIn = ({ id }: PlaceSubnet) => {
    const known = free.get(id)
    return known === undefined || performance.now() > known.untilMs ? Number.POSITIVE_INFINITY : known.count
  }
  const note = (id: string, count: number) => free.set(id, { count, untilMs: performance.now() + place.retryFullMs })

  /** Of each IP version the first subnet that has room, as far as is known; where none has, the last to be said no by. */
  function chooseSubnets(special: SpecialPort | undefined): FixedIpRequest[] {
    return families.map(subnets => {
      const named = subnets.find(({ id }) => special?.addresses[id] !== undefined)
      if (named !== undefined) return { subnet_id: named.id, ip_address: special!.addresses[named.id]! }
      const { id } = subnets.find(each => freeIn(each) > 0) ?? subnets[0]!
      if (free.has(id)) note(id, freeIn({ id } as PlaceSubnet) - 1)
      return { subnet_id: id }
    })
  }

  function bodyOf({ mark: objectMark, owner, special }: ObjectRequest): PortCreateTagged {
    const wish = special === '' ? undefined : (JSON.parse(special) as SpecialPort)
    return {
      network_id: networkId,
      name: nameOfMark(objectMark),
      description: descriptionOf(mark, owner),
      device_owner: deviceOwnerOf(MODE),
      device_id: mark.node,
      fixed_ips: chooseSubnets(wish),
      ...(wish?.mac === undefined ? {} : { mac_address: wish.mac }),
      ...(place.securityGroups === undefined ? {} : { security_groups: place.securityGroups }),
      ...(place.portSecurity === undefined ? {} : { port_security_enabled: place.portSecurity }),
      ...(place.boundTo === undefined ? {} : { 'binding:host_id': place.boundTo }),
      ...(keepsTags ? { tags: tagsOf(mark) } : {}),
    }
  }

  async function create(requests: readonly ObjectRequest[], limits: Limits): Promise<MadeObject[]> {
    const within = { ...limits, deadline: atMost(limits.deadline, CALL_MS + requests.length * PORT_MS) }
    for (;;) {
      const bodies = requests.map(bodyOf)
      try {
        if (place.takesSeveral) return (await neutron.ports.createMany(bodies, within)).map(toMade)
        return [toMade(await neutron.ports.create(bodies[0]!, within))]
      } catch (error) {
        if (requests.length > 1 || !isFullSubnet(error) || !turnToNext(bodies[0]!)) throw error
      }
    }
  }

  /** Neutron does not say which subnet is full. @returns false where there is no other to try */
  function turnToNext({ fixed_ips = [] }: PortCreateTagged): boolean {
    const tried = new Set(fixed_ips.flatMap(each => (each.ip_address === undefined ? [each.subnet_id] : [])))
    for (const id of tried) note(id, 0)
    return families.some(subnets => subnets.some(each => tried.has(each.id)) && subnets.some(each => freeIn(each) > 0))
  }

  async function list(limits: Limits): Promise<MadeObject[]> {
    const ours = { network_id: networkId, device_owner: deviceOwnerOf(MODE), device_id: mark.node }
    const found = await neutron.ports.list(ours, limits)
    return found.filter(({ name }) => markOfName(name) !== undefined).map(toMade)
  }

  async function remove({ id }: Pick<CloudObject, 'id'>, limits: Limits): Promise<void> {
    // Neutron asks nothing before it deletes a port: what somebody gave to a server of his is not ours any more.
    const port = await neutron.ports.get(id, limits)
    if (port !== undefined && (port.device_id !== mark.node || port.device_owner !== deviceOwnerOf(MODE))) return
    // One that is not shown may be too new for the replica that was asked; where it is gone, nothing happens.
    await neutron.ports.delete(id, limits)
  }

  async function describe({ id }: CloudObject, owner: AddressOwner, limits: Limits): Promise<void> {
    await neutron.ports.update(id, { description: descriptionOf(mark, owner) }, limits)
  }

  async function recycle(objects: readonly CloudObject[], limits: Limits): Promise<void> {
    await disassociateFloatingIps(
      neutron,
      objects.map(each => each.id),
      limits,
    )
    const description = descriptionOf(mark, undefined)
    for (let at = 0; at < objects.length; at += PARALLEL)
      await Promise.all(
        objects.slice(at, at + PARALLEL).map(({ id }) => neutron.ports.update(id, { description }, limits)),
      )
  }

  return {
    batchMax: place.takesSeveral ? BATCH_MAX : 1,
    parallel: PARALLEL,
    create,
    list,
    remove,
    describe,
    recycle,
    async room(limits) {
      const found = await findFree({ neutron, identity }, networkId, families, limits)
      for (const [id, count] of found.bySubnet) note(id, count)
      return found.room
    },
  }
}

const isFullSubnet = (error: unknown) => error instanceof OpenStackError && error.kind === 'exhausted'

const toMade = ({ id, name, mac_address, fixed_ips }: Port): MadeObject => ({
  id,
  mark: markOfName(name) ?? '',
  addresses: fixed_ips.map(each => ({ subnetId: each.subnet_id, address: each.ip_address })),
  mac: mac_address.toLowerCase(),
  detail: '',
})
