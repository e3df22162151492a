// SPDX-License-Identifier: Apache-2.0
import type { Limits } from '../limits.ts'
import type { Service } from '../service.ts'
import { queryOf, resource } from './resource.ts'

export type SecurityGroup = { readonly id: string; readonly name: string; readonly project_id?: string }

export type SecurityGroupFilter = {
  readonly id?: string | readonly string[]
  readonly name?: string | readonly string[]
  readonly project_id?: string
}

export type SecurityGroups = {
  /** An admin sees those of every project, and every project has one that is called `default`. */
  list(filter: SecurityGroupFilter, limits: Limits): Promise<SecurityGroup[]>
}

export function securityGroups(service: Service): SecurityGroups {
  const of = resource<SecurityGroup>(service, {
    singular: 'security_group',
    plural: 'security_groups',
    path: 'security-groups',
  })
  return { list: (filter, limits) => of.list(queryOf(filter), limits) }
}
