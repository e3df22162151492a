// SPDX-License-Identifier: Apache-2.0

/** Projects, users and roles: what an administrator needs to make a project of its own. */
import { randomBytes } from 'node:crypto'
import { type Answer, asObject, type Call, caller, isAdmin, type RouteTable } from '../call.ts'
import { Fault, forbidden } from '../fault.ts'
import { find, list, type Project, put, remove, type User } from '../state.ts'
import { roleId } from './auth.ts'

export const roleNames = ['admin', 'member', 'reader'] as const

/** An id as Keystone makes them. */
export const hexId = (): string => randomBytes(16).toString('hex')

function demandAdmin(call: Call, action: string): void {
  if (!isAdmin(call)) throw forbidden(`identity:${action}`)
}

const projectView = (call: Call, project: Project) => ({
  ...project,
  domain_id: 'default',
  enabled: true,
  parent_id: 'default',
  is_domain: false,
  tags: [],
  options: {},
  links: { self: `${call.origin}/v3/projects/${project.id}` },
})

const userView = (call: Call, user: User) => ({
  id: user.id,
  name: user.name,
  domain_id: 'default',
  enabled: true,
  default_project_id: user.default_project_id,
  password_expires_at: null,
  options: {},
  links: { self: `${call.origin}/v3/users/${user.id}` },
})

const listBody = (call: Call, key: string, rows: readonly unknown[]) => ({
  [key]: rows,
  links: { next: null, self: `${call.origin}/${call.path.join('/')}`, previous: null },
})

const byName = <Row extends { readonly name: string }>(call: Call, rows: Row[]): Row[] => {
  const name = call.query.get('name')
  return name === null ? rows : rows.filter(row => row.name.toLowerCase() === name.toLowerCase())
}

function createProject(call: Call): Answer {
  demandAdmin(call, 'create_project')
  const wanted = asObject(asObject(call.body)?.['project']) ?? {}
  const name = String(wanted['name'])
  const twin = list(call.state, 'projects').find(project => project.name === name)
  if (twin !== undefined) {
    throw new Fault(
      409,
      'Conflict',
      `Conflict occurred attempting to store project - it is not permitted to have two projects with either the same name or same id in the same domain: name is ${name}, project id ${twin.id}.`,
    )
  }
  const project = put(call.state, 'projects', { id: hexId(), name, description: String(wanted['description'] ?? '') })
  return { status: 201, body: { project: projectView(call, project) } }
}

function createUser(call: Call): Answer {
  demandAdmin(call, 'create_user')
  const wanted = asObject(asObject(call.body)?.['user']) ?? {}
  const name = String(wanted['name'])
  if (list(call.state, 'users').some(user => user.name === name)) {
    throw new Fault(
      409,
      'Conflict',
      `Conflict occurred attempting to store user - Duplicate entry found with name ${name} at domain ID default.`,
    )
  }
  const user = put(call.state, 'users', {
    id: hexId(),
    name,
    password: String(wanted['password'] ?? ''),
    default_project_id: typeof wanted['default_project_id'] === 'string' ? wanted['default_project_id'] : null,
    roles: {},
    systemRoles: [],
  })
  return { status: 201, body: { user: userView(call, user) } }
}

function grantRole(call: Call): Answer {
  demandAdmin(call, 'create_grant')
  const { project = '', user = '', role = '' } = call.parameters
  const row = find(call.state, 'users', user)
  const name = roleNames.find(candidate => roleId(candidate) === role)
  if (row === undefined) throw new Fault(404, 'Not Found', `Could not find user: ${user}.`)
  if (name === undefined) throw new Fault(404, 'Not Found', `Could not find role: ${role}.`)
  const had = row.roles[project] ?? []
  put(call.state, 'users', { ...row, roles: { ...row.roles, [project]: [...new Set([...had, name])] } })
  return { status: 204 }
}

function removeRow(kind: 'project' | 'user') {
  return (call: Call): Answer => {
    demandAdmin(call, `delete_${kind}`)
    const id = call.parameters['id'] ?? ''
    if (find(call.state, `${kind}s`, id) === undefined)
      throw new Fault(404, 'Not Found', `Could not find ${kind}: ${id}.`)
    remove(call.state, `${kind}s`, id)
    return { status: 204 }
  }
}

function showProject(call: Call): Answer {
  const project = find(call.state, 'projects', call.parameters['id'] ?? '')
  if (!isAdmin(call) && project?.id !== caller(call).projectId) throw forbidden('identity:get_project')
  if (project === undefined) throw new Fault(404, 'Not Found', `Could not find project: ${call.parameters['id']}.`)
  return { status: 200, body: { project: projectView(call, project) } }
}

function listProjects(call: Call): Answer {
  demandAdmin(call, 'list_projects')
  const rows = byName(call, list(call.state, 'projects'))
  return {
    status: 200,
    body: listBody(
      call,
      'projects',
      rows.map(row => projectView(call, row)),
    ),
  }
}

function listOwnProjects(call: Call): Answer {
  const user = find(call.state, 'users', caller(call).userId)
  const rows = list(call.state, 'projects').filter(project => user?.roles[project.id] !== undefined)
  return {
    status: 200,
    body: listBody(
      call,
      'projects',
      rows.map(row => projectView(call, row)),
    ),
  }
}

function listUsers(call: Call): Answer {
  demandAdmin(call, 'list_users')
  const rows = byName(call, list(call.state, 'users'))
  return {
    status: 200,
    body: listBody(
      call,
      'users',
      rows.map(row => userView(call, row)),
    ),
  }
}

function listRoles(call: Call): Answer {
  demandAdmin(call, 'list_roles')
  const roles = roleNames.map(name => ({ id: roleId(name), name, domain_id: null, description: null, options: {} }))
  return { status: 200, body: listBody(call, 'roles', byName(call, roles)) }
}

export const projectRoutes: RouteTable = [
  ['GET', '/v3/auth/projects', listOwnProjects],
  ['GET', '/v3/projects', listProjects],
  ['POST', '/v3/projects', createProject],
  ['GET', '/v3/projects/:id', showProject],
  ['DELETE', '/v3/projects/:id', removeRow('project')],
  ['GET', '/v3/users', listUsers],
  ['POST', '/v3/users', createUser],
  ['DELETE', '/v3/users/:id', removeRow('user')],
  ['GET', '/v3/roles', listRoles],
  ['PUT', '/v3/projects/:project/users/:user/roles/:role', grantRole],
]
