// SPDX-License-Identifier: Apache-2.0

/** Security groups, as far as a port needs them: they are stored and shown; the data plane lets everything pass. */
import { randomUUID } from 'node:crypto'
import { type Answer, type Call, caller, type RouteTable } from '../call.ts'
import { Fault } from '../fault.ts'
import { list, put, remove, type SecurityGroup, type SecurityGroupRule, type State, timestamp } from '../state.ts'
import { type Attributes, boolean, decodeMember, standardAttributes, string, uuid } from './attribute.ts'
import { demandQuota } from './quota.ts'
import { bump, checkIfMatch, get, index, type Kind, newRow, show, standardView } from './resource.ts'

const attributes: Attributes = {
  ...standardAttributes,
  stateful: { post: true, put: true, convert: boolean },
  security_group_rules: {},
}
const ruleAttributes: Attributes = {
  ...standardAttributes,
  security_group_id: { post: true, required: true, convert: uuid },
  direction: { post: true, required: true, convert: string },
  ethertype: { post: true },
  protocol: { post: true },
  port_range_min: { post: true },
  port_range_max: { post: true },
  remote_ip_prefix: { post: true },
  remote_group_id: { post: true },
}

export const groupKind: Kind<'securityGroups'> = {
  rows: 'securityGroups',
  collection: 'security_groups',
  member: 'security_group',
  notFound: id => new Fault(404, 'SecurityGroupNotFound', `Security group ${id} does not exist`),
  view,
}

const ruleView = (row: SecurityGroup, rule: SecurityGroupRule) => ({
  ...rule,
  tenant_id: rule.project_id,
  normalized_cidr: rule.remote_ip_prefix,
  remote_address_group_id: null,
  tags: [],
  created_at: row.created_at,
  updated_at: row.created_at,
  revision_number: 0,
})

function view(_call: Call, row: SecurityGroup) {
  return {
    ...standardView(row),
    name: row.name,
    stateful: true,
    shared: false,
    security_group_rules: row.rules.map(rule => ruleView(row, rule)),
  }
}

const newRule = (group: string, project: string, rule: Partial<SecurityGroupRule>): SecurityGroupRule => ({
  id: randomUUID(),
  security_group_id: group,
  project_id: project,
  direction: 'egress',
  ethertype: 'IPv4',
  protocol: null,
  port_range_min: null,
  port_range_max: null,
  remote_ip_prefix: null,
  remote_group_id: null,
  description: '',
  ...rule,
})

/** The project's group `default`, which comes into being when it is first needed. */
export function defaultGroup(state: State, projectId: string): SecurityGroup {
  const found = list(state, 'securityGroups').find(row => row.project_id === projectId && row.name === 'default')
  if (found !== undefined) return found
  const id = randomUUID()
  const families = ['IPv4', 'IPv6'] as const
  const now = timestamp()
  return put(state, 'securityGroups', {
    id,
    project_id: projectId,
    name: 'default',
    description: 'Default security group',
    tags: [],
    created_at: now,
    updated_at: now,
    revision_number: 1,
    rules: families.flatMap(ethertype => [
      newRule(id, projectId, { ethertype }),
      newRule(id, projectId, { ethertype, direction: 'ingress', remote_group_id: id }),
    ]),
  })
}

function create(call: Call): Answer {
  const values = decodeMember(call, 'security_group', attributes)
  const row = newRow(call, values, 1)
  defaultGroup(call.state, row.project_id)
  demandQuota(call.state, row.project_id, 'security_group', 1)
  const families = ['IPv4', 'IPv6'] as const
  const rules = families.map(ethertype => newRule(row.id, row.project_id, { ethertype }))
  const group = put(call.state, 'securityGroups', { ...row, rules })
  return { status: 201, body: { security_group: view(call, group) } }
}

function createRule(call: Call): Answer {
  const values = decodeMember(call, 'security_group_rule', ruleAttributes)
  const group = get(call, groupKind, String(values['security_group_id']))
  const { tags: _, ...fields } = values
  const rule = newRule(group.id, group.project_id, fields as Partial<SecurityGroupRule>)
  const same = group.rules.find(other => JSON.stringify({ ...other, id: '' }) === JSON.stringify({ ...rule, id: '' }))
  if (same !== undefined) {
    throw new Fault(409, 'SecurityGroupRuleExists', `Security group rule already exists. Rule id is ${same.id}.`)
  }
  demandQuota(call.state, group.project_id, 'security_group_rule', 1)
  put(call.state, 'securityGroups', bump({ ...group, rules: [...group.rules, rule] }))
  return { status: 201, body: { security_group_rule: ruleView(group, rule) } }
}

function update(call: Call): Answer {
  const values = decodeMember(call, 'security_group', attributes)
  const row = get(call, groupKind, call.parameters['id'] ?? '')
  checkIfMatch(call, row)
  const group = put(call.state, 'securityGroups', bump({ ...row, ...values } as SecurityGroup))
  return { status: 200, body: { security_group: view(call, group) } }
}

function destroy(call: Call): Answer {
  const row = get(call, groupKind, call.parameters['id'] ?? '')
  if (list(call.state, 'ports').some(port => port.security_groups.includes(row.id))) {
    throw new Fault(409, 'SecurityGroupInUse', `Security Group ${row.id} in use.`)
  }
  remove(call.state, 'securityGroups', row.id)
  return { status: 204 }
}

function destroyRule(call: Call): Answer {
  const id = call.parameters['id'] ?? ''
  const group = list(call.state, 'securityGroups').find(row => row.rules.some(rule => rule.id === id))
  if (group === undefined) throw new Fault(404, 'SecurityGroupRuleNotFound', `Security group rule ${id} does not exist`)
  put(call.state, 'securityGroups', bump({ ...group, rules: group.rules.filter(rule => rule.id !== id) }))
  return { status: 204 }
}

/** Every project that asks has its default group. */
function indexGroups(call: Call): Answer {
  const { projectId } = caller(call)
  if (projectId !== null) defaultGroup(call.state, projectId)
  return index(groupKind)(call) as Answer
}

export const securityGroupRoutes: RouteTable = [
  ['GET', '/v2.0/security-groups', indexGroups],
  ['POST', '/v2.0/security-groups', create],
  ['GET', '/v2.0/security-groups/:id', show(groupKind)],
  ['PUT', '/v2.0/security-groups/:id', update],
  ['DELETE', '/v2.0/security-groups/:id', destroy],
  ['POST', '/v2.0/security-group-rules', createRule],
  ['DELETE', '/v2.0/security-group-rules/:id', destroyRule],
]
