// SPDX-License-Identifier: Apache-2.0
import type { Json } from '../json.ts'
import type { Limits } from '../limits.ts'
import type { Service } from '../service.ts'
import { type CreateLimits, queryOf, resource, type WriteLimits } from './resource.ts'

export type FloatingIp = {
  readonly id: string
  readonly floating_ip_address: string
  readonly floating_network_id: string
  readonly project_id?: string
  readonly description?: string
  /** Null: not associated. */
  readonly port_id: string | null
  /** Stays here after the address was removed from the port: disassociate first. */
  readonly fixed_ip_address: string | null
  readonly router_id?: string | null
  readonly status?: string
  readonly revision_number?: number
  readonly tags?: readonly string[]
}

/** The address of a port to which a floating IP leads; a port with several addresses demands that one is named. */
export type Association = { readonly port_id: string; readonly fixed_ip_address: string }

export type FloatingIpCreate = {
  readonly floating_network_id: string
  readonly description?: string
  readonly floating_ip_address?: string
} & Partial<Association>

export type FloatingIpFilter = {
  readonly id?: string | readonly string[]
  readonly port_id?: string | readonly string[]
  readonly fixed_ip_address?: string
  readonly floating_ip_address?: string
  readonly floating_network_id?: string
  readonly description?: string
  readonly project_id?: string
}

export type FloatingIps = {
  /** Undefined if there is none. */
  get(id: string, limits: Limits): Promise<FloatingIp | undefined>
  list(filter: FloatingIpFilter, limits: Limits): Promise<FloatingIp[]>
  create(floatingIp: FloatingIpCreate, limits: CreateLimits<FloatingIp>): Promise<FloatingIp>
  associate(id: string, to: Association, limits: WriteLimits): Promise<FloatingIp>
  disassociate(id: string, limits: WriteLimits): Promise<FloatingIp>
  /** False if there was none. */
  delete(id: string, limits: WriteLimits): Promise<boolean>
}

export function floatingIps(service: Service): FloatingIps {
  const of = resource<FloatingIp>(service, {
    singular: 'floatingip',
    plural: 'floatingips',
    flaw: each =>
      typeof each['floating_ip_address'] === 'string' ? undefined : `floating IP ${each['id']} has no address`,
  })
  return {
    get: of.get,
    list: (filter, limits) => of.list(queryOf(filter), limits),
    create: (body, limits) => {
      const to =
        body.port_id === undefined ? '' : ` to ${body.fixed_ip_address ?? 'the address'} of port ${body.port_id}`
      return of.create(`create a floating IP of network ${body.floating_network_id}${to}`, body as Json, limits)
    },
    associate: (id, to, limits) =>
      of.update(`point floating IP ${id} to ${to.fixed_ip_address} of port ${to.port_id}`, id, to, {
        ...limits,
        repeat: true,
      }),
    disassociate: (id, limits) =>
      of.update(`disassociate floating IP ${id}`, id, { port_id: null }, { ...limits, repeat: true }),
    delete: (id, limits) => of.delete(`delete floating IP ${id}`, id, limits),
  }
}
