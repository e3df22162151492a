// SPDX-License-Identifier: Apache-2.0
import type { Json } from '../json.ts'
import type { Limits } from '../limits.ts'
import type { Service } from '../service.ts'
import { type CreateLimits, queryOf, resource, type WriteLimits } from './resource.ts'

export type Subnet = {
  readonly id: string
  readonly name: string
  readonly network_id: string
  readonly project_id?: string
  readonly cidr: string
  readonly ip_version: 4 | 6
  /** Null: the subnet has none. */
  readonly gateway_ip: string | null
  readonly enable_dhcp?: boolean
  /** `slaac` and `dhcpv6-stateless` give one address per port, made from the MAC. */
  readonly ipv6_address_mode?: string | null
  readonly ipv6_ra_mode?: string | null
  readonly allocation_pools?: readonly { readonly start: string; readonly end: string }[]
  readonly host_routes?: readonly { readonly destination: string; readonly nexthop: string }[]
  readonly dns_nameservers?: readonly string[]
  readonly revision_number?: number
}

export type SubnetCreate = {
  readonly network_id: string
  readonly cidr: string
  readonly ip_version: 4 | 6
  readonly name?: string
  readonly enable_dhcp?: boolean
  readonly gateway_ip?: string | null
  readonly allocation_pools?: readonly { readonly start: string; readonly end: string }[]
  readonly ipv6_address_mode?: string
  readonly ipv6_ra_mode?: string
}
export type SubnetFilter = {
  readonly id?: string | readonly string[]
  readonly name?: string | readonly string[]
  readonly network_id?: string | readonly string[]
  readonly cidr?: string
  readonly ip_version?: 4 | 6
}

export type Subnets = {
  /** Undefined if there is none. */
  get(id: string, limits: Limits): Promise<Subnet | undefined>
  list(filter: SubnetFilter, limits: Limits): Promise<Subnet[]>
  create(subnet: SubnetCreate, limits: CreateLimits<Subnet>): Promise<Subnet>
  /** False if there was none. */
  delete(id: string, limits: WriteLimits): Promise<boolean>
}

export function subnets(service: Service): Subnets {
  const of = resource<Subnet>(service, {
    singular: 'subnet',
    plural: 'subnets',
    flaw: subnet => (typeof subnet['cidr'] === 'string' ? undefined : `subnet ${subnet['id']} has no "cidr"`),
  })
  return {
    get: of.get,
    list: (filter, limits) => of.list(queryOf(filter), limits),
    create: (subnet, limits) =>
      of.create(`create subnet ${subnet.cidr} of network ${subnet.network_id}`, subnet as Json, limits),
    delete: (id, limits) => of.delete(`delete subnet ${id}`, id, limits),
  }
}
