// SPDX-License-Identifier: Apache-2.0
import { type Answer, asObject, type Call, caller, isAdmin, type RouteTable } from '../call.ts'
import { Fault, notAuthorized } from '../fault.ts'
import { defaultQuota, list, type Quota, type State } from '../state.ts'

/** What the project may have, by resource; -1 is no limit. */
const quotaOf = (state: State, projectId: string): Quota => ({ ...defaultQuota, ...state.quotas.get(projectId) })

const counted: Readonly<
  Record<string, 'networks' | 'subnets' | 'ports' | 'routers' | 'floatingips' | 'securityGroups' | 'trunks'>
> = {
  network: 'networks',
  subnet: 'subnets',
  port: 'ports',
  router: 'routers',
  floatingip: 'floatingips',
  security_group: 'securityGroups',
  trunk: 'trunks',
}

/** How much the project has. */
function usedOf(state: State, projectId: string, resource: string): number {
  const name = counted[resource]
  if (resource === 'security_group_rule') {
    const groups = list(state, 'securityGroups').filter(group => group.project_id === projectId)
    return groups.reduce((sum, group) => sum + group.rules.length, 0)
  }
  if (name === undefined) return 0
  return list(state, name).filter(row => row.project_id === projectId).length
}

/** True if the project may have `more` of the resource. */
export function hasQuota(state: State, projectId: string, resource: string, more: number): boolean {
  const limit = quotaOf(state, projectId)[resource] ?? -1
  return limit < 0 || usedOf(state, projectId, resource) + more <= limit
}

/** @throws {Fault} 409 `OverQuota`. */
export function demandQuota(state: State, projectId: string, resource: string, more: number): void {
  if (hasQuota(state, projectId, resource, more)) return
  throw new Fault(409, 'OverQuota', `Quota exceeded for resources: ['${resource}'].`)
}

function demandOwn(call: Call): string {
  const project = call.parameters['project'] ?? ''
  if (!isAdmin(call) && project !== caller(call).projectId) throw notAuthorized('rule:get_quota')
  return project
}

const showQuota = (call: Call): Answer => ({ status: 200, body: { quota: quotaOf(call.state, demandOwn(call)) } })

function showDefault(call: Call): Answer {
  demandOwn(call)
  return { status: 200, body: { quota: defaultQuota } }
}

function showDetails(call: Call): Answer {
  const project = demandOwn(call)
  const details = Object.entries(quotaOf(call.state, project)).map(([resource, limit]) => [
    resource,
    { limit, used: usedOf(call.state, project, resource), reserved: 0 },
  ])
  return { status: 200, body: { quota: Object.fromEntries(details) } }
}

function setQuota(call: Call): Answer {
  if (!isAdmin(call)) throw notAuthorized('rule:update_quota')
  const project = call.parameters['project'] ?? ''
  const wanted = asObject(asObject(call.body)?.['quota']) ?? {}
  const known = Object.entries(wanted).filter(
    (entry): entry is [string, number] => defaultQuota[entry[0]] !== undefined && typeof entry[1] === 'number',
  )
  call.state.quotas.set(project, { ...call.state.quotas.get(project), ...Object.fromEntries(known) })
  return { status: 200, body: { quota: quotaOf(call.state, project) } }
}

function resetQuota(call: Call): Answer {
  if (!isAdmin(call)) throw notAuthorized('rule:delete_quota')
  call.state.quotas.delete(call.parameters['project'] ?? '')
  return { status: 204 }
}

function listQuotas(call: Call): Answer {
  if (!isAdmin(call)) throw notAuthorized('rule:get_quota')
  const quotas = [...call.state.quotas.keys()].map(project => ({
    ...quotaOf(call.state, project),
    project_id: project,
    tenant_id: project,
  }))
  return { status: 200, body: { quotas } }
}

export const quotaRoutes: RouteTable = [
  ['GET', '/v2.0/quotas', listQuotas],
  ['GET', '/v2.0/quotas/:project', showQuota],
  ['GET', '/v2.0/quotas/:project/default', showDefault],
  ['GET', '/v2.0/quotas/:project/details.json', showDetails],
  ['PUT', '/v2.0/quotas/:project', setQuota],
  ['DELETE', '/v2.0/quotas/:project', resetQuota],
]
