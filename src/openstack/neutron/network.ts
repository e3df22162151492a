// SPDX-License-Identifier: Apache-2.0
import type { Json } from '../json.ts'
import type { Limits } from '../limits.ts'
import type { Service } from '../service.ts'
import { type CreateLimits, queryOf, resource, type WriteLimits } from './resource.ts'

export type Network = {
  readonly id: string
  readonly name: string
  readonly project_id?: string
  readonly subnets: readonly string[]
  readonly status?: string
  readonly mtu?: number
  readonly shared?: boolean
  readonly admin_state_up?: boolean
  readonly port_security_enabled?: boolean
  readonly 'router:external'?: boolean
  readonly revision_number?: number
  readonly tags?: readonly string[]
}

export type NetworkCreate = {
  readonly name?: string
  readonly description?: string
  readonly mtu?: number
  readonly port_security_enabled?: boolean
  readonly shared?: boolean
}
export type NetworkFilter = {
  readonly id?: string | readonly string[]
  readonly name?: string | readonly string[]
  readonly project_id?: string
  readonly 'router:external'?: boolean
}

export type Networks = {
  /** Undefined if there is none. */
  get(id: string, limits: Limits): Promise<Network | undefined>
  list(filter: NetworkFilter, limits: Limits): Promise<Network[]>
  create(network: NetworkCreate, limits: CreateLimits<Network>): Promise<Network>
  /** False if there was none. */
  delete(id: string, limits: WriteLimits): Promise<boolean>
}

export function networks(service: Service): Networks {
  const of = resource<Network>(service, {
    singular: 'network',
    plural: 'networks',
    flaw: network => (Array.isArray(network['subnets']) ? undefined : `network ${network['id']} has no list "subnets"`),
  })
  return {
    get: of.get,
    list: (filter, limits) => of.list(queryOf(filter), limits),
    create: (network, limits) => of.create(`create network "${network.name ?? ''}"`, network as Json, limits),
    delete: (id, limits) => of.delete(`delete network ${id}`, id, limits),
  }
}
