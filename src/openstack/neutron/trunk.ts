// SPDX-License-Identifier: Apache-2.0
import { isObject } from '../json.ts'
import type { Limits } from '../limits.ts'
import type { Service } from '../service.ts'
import { queryOf, resource } from './resource.ts'

/** VLANs of one port, its parent, each of which is another port. */
export type Trunk = {
  readonly id: string
  readonly name: string
  readonly port_id: string
  readonly sub_ports: readonly { readonly port_id: string }[]
}

export type Trunks = {
  list(filter: { readonly project_id?: string | undefined }, limits: Limits): Promise<Trunk[]>
}

const kind = {
  singular: 'trunk',
  plural: 'trunks',
  flaw: ({ sub_ports }: Record<string, unknown>) =>
    Array.isArray(sub_ports) && sub_ports.every(each => isObject(each) && typeof each['port_id'] === 'string')
      ? undefined
      : 'a trunk has no list "sub_ports"',
}

export function trunks(service: Service): Trunks {
  const of = resource<Trunk>(service, kind)
  return { list: (filter, limits) => of.list(queryOf(filter), limits) }
}
