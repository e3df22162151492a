// SPDX-License-Identifier: Apache-2.0
import { isObject, type Json } from '../json.ts'
import type { Limits } from '../limits.ts'
import type { Query, Service } from '../service.ts'
import { type CreateLimits, queryOf, resource, type WriteLimits } from './resource.ts'
import { type Tags, tags } from './tag.ts'

/** One address of a port. */
export type FixedIp = { readonly subnet_id: string; readonly ip_address: string }
/** One address to have: named, or any of a subnet. An entry without `ip_address` may also take one that the port has already. */
export type FixedIpRequest =
  | { readonly ip_address: string; readonly subnet_id?: string }
  | { readonly subnet_id: string; readonly ip_address?: undefined }
export type AddressPair = { readonly ip_address: string; readonly mac_address?: string }

/** A port as Neutron answers it; what the role may not see is left out. Lists come in no useful order. */
export type Port = {
  readonly id: string
  readonly name: string
  readonly description?: string
  readonly network_id: string
  readonly project_id?: string
  readonly mac_address: string
  readonly fixed_ips: readonly FixedIp[]
  readonly device_id: string
  readonly device_owner: string
  readonly status: string
  readonly admin_state_up?: boolean
  readonly allowed_address_pairs?: readonly AddressPair[]
  readonly security_groups?: readonly string[]
  readonly port_security_enabled?: boolean
  readonly tags?: readonly string[]
  readonly revision_number?: number
  readonly created_at?: string
  readonly updated_at?: string
  readonly 'binding:host_id'?: string
  readonly 'binding:vif_type'?: string
  readonly trunk_details?: unknown
}

export type PortCreate = {
  readonly network_id: string
  readonly name?: string
  readonly description?: string
  readonly device_id?: string
  readonly device_owner?: string
  readonly mac_address?: string
  readonly admin_state_up?: boolean
  readonly fixed_ips?: readonly FixedIpRequest[]
  readonly allowed_address_pairs?: readonly AddressPair[]
  readonly security_groups?: readonly string[]
  readonly port_security_enabled?: boolean
  readonly 'binding:host_id'?: string
  // No tags: Neutron accepts them here with 201 and drops them.
}

/** One of several ports: with the extension `tag-ports-during-bulk-creation` Neutron keeps the tags of these, and of these only. */
export type PortCreateTagged = PortCreate & { readonly tags?: readonly string[] }

/** Lists replace what is there: name every entry that must stay. */
export type PortUpdate = Omit<Partial<PortCreate>, 'network_id' | 'mac_address'>

/** A list asks for any of its values. */
export type PortFilter = {
  readonly id?: string | readonly string[]
  readonly name?: string | readonly string[]
  readonly network_id?: string | readonly string[]
  readonly project_id?: string
  readonly mac_address?: string | readonly string[]
  /** Empty: ports of no device. */
  readonly device_id?: string | readonly string[]
  readonly device_owner?: string | readonly string[]
  readonly status?: string
  readonly description?: string
  /** Ports with any of these addresses. */
  readonly ip_address?: string | readonly string[]
  /** Ports with an address of this subnet; together with `ip_address` both must hold. */
  readonly subnet_id?: string
  /** Ports with all of these tags. */
  readonly tags?: readonly string[]
  readonly tagsAny?: readonly string[]
}

export type Ports = {
  /** Undefined if there is none. */
  get(id: string, limits: Limits): Promise<Port | undefined>
  list(filter: PortFilter, limits: Limits): Promise<Port[]>
  /** Put the owner in `name`, `device_id` or `description`, so that a lost answer can be found: tags come later or never. */
  create(port: PortCreate, limits: CreateLimits<Port>): Promise<Port>
  /** All or nothing. */
  createMany(ports: readonly PortCreateTagged[], limits: Limits): Promise<Port[]>
  /** The answer is this request's view; after overlapping writes the port can hold more. Read it back. */
  update(id: string, changes: PortUpdate, limits: WriteLimits): Promise<Port>
  /** False if there was none. Neutron asks nothing, also when the port belongs to a running server. */
  delete(id: string, limits: WriteLimits): Promise<boolean>
  readonly tags: Tags
}

export function ports(service: Service): Ports {
  const of = resource<Port>(service, { singular: 'port', plural: 'ports', flaw: flawOfPort })
  return {
    get: of.get,
    list: (filter, limits) => of.list(portQuery(filter), limits),
    create: (port, limits) => of.create(`create ${describe(port)}`, port as Json, limits),
    createMany: (many, limits) => {
      const networks = [...new Set(many.map(port => port.network_id))].join(', ')
      return of.createMany(`create ${many.length} ports on network ${networks}`, many as readonly Json[], limits)
    },
    update: (id, changes, limits) => of.update(describeUpdate(id, changes), id, changes as Json, limits),
    delete: (id, limits) => of.delete(`delete port ${id}`, id, limits),
    tags: tags(service, 'ports'),
  }
}

function portQuery(filter: PortFilter): Query {
  const { ip_address, subnet_id, tags: all, tagsAny, ...rest } = filter
  const addresses = ip_address === undefined ? [] : [ip_address].flat()
  return [
    ...queryOf(rest),
    ...addresses.map(each => ['fixed_ips', `ip_address=${each}`] as const),
    ...(subnet_id === undefined ? [] : [['fixed_ips', `subnet_id=${subnet_id}`] as const]),
    ...(all === undefined || all.length === 0 ? [] : [['tags', all.join(',')] as const]),
    ...(tagsAny === undefined || tagsAny.length === 0 ? [] : [['tags-any', tagsAny.join(',')] as const]),
  ]
}

function describe(port: PortCreate): string {
  const name = port.name === undefined ? 'a port' : `port "${port.name}"`
  return `${name} on network ${port.network_id}${describeAddresses(port.fixed_ips)}`
}

function describeUpdate(id: string, changes: PortUpdate): string {
  const others = Object.keys(changes).filter(key => key !== 'fixed_ips')
  const what = others.length === 0 ? '' : ` (${others.join(', ')})`
  return `update port ${id}${what}${describeAddresses(changes.fixed_ips)}`
}

const listedMax = 8

function describeAddresses(requests: readonly FixedIpRequest[] | undefined): string {
  if (requests === undefined) return ''
  if (requests.length === 0) return ' to no address'
  const named = requests.map(each => each.ip_address ?? `any of ${each.subnet_id}`)
  const rest = named.length > listedMax ? ` and ${named.length - listedMax} more` : ''
  return ` with ${named.slice(0, listedMax).join(', ')}${rest}`
}

function flawOfPort(port: Record<string, unknown>): string | undefined {
  const { fixed_ips } = port
  if (!Array.isArray(fixed_ips)) return `port ${port['id']} has no list "fixed_ips"`
  const whole = fixed_ips.every(
    each => isObject(each) && typeof each['ip_address'] === 'string' && typeof each['subnet_id'] === 'string',
  )
  return whole ? undefined : `port ${port['id']} has an entry in "fixed_ips" without address or subnet`
}
