// SPDX-License-Identifier: Apache-2.0

/** Application credentials of a user. */
import { randomBytes } from 'node:crypto'
import { type Answer, asObject, type Call, caller, type RouteTable } from '../call.ts'
import { Fault, forbidden } from '../fault.ts'
import { type ApplicationCredential, find, list, put, remove } from '../state.ts'
import { roleId } from './auth.ts'
import { hexId } from './project.ts'

const notFound = (id: string): Fault => new Fault(404, 'Not Found', `Could not find Application Credential: ${id}.`)

/** Without the secret, which is shown once, in the answer to its creation. */
const view = (call: Call, row: ApplicationCredential) => ({
  id: row.id,
  name: row.name,
  description: row.description,
  user_id: row.user_id,
  project_id: row.project_id,
  system: null,
  expires_at: null,
  unrestricted: row.unrestricted || null,
  roles: row.roles.map(name => ({ id: roleId(name), name, domain_id: null, description: null, options: {} })),
  links: { self: `${call.origin}/v3/application_credentials/${row.id}` },
})

function create(call: Call): Answer {
  const token = caller(call)
  if (token.applicationCredentialId !== null) {
    const used = find(call.state, 'applicationCredentials', token.applicationCredentialId)
    if (used?.unrestricted !== true) {
      throw forbidden(
        "Using method 'application_credential' is not allowed for managing additional application credentials.",
      )
    }
  }
  const wanted = asObject(asObject(call.body)?.['application_credential']) ?? {}
  const name = String(wanted['name'])
  if (token.projectId === null || call.parameters['user'] !== token.userId) {
    throw forbidden('identity:create_application_credential')
  }
  if (list(call.state, 'applicationCredentials').some(row => row.user_id === token.userId && row.name === name)) {
    throw new Fault(
      409,
      'Conflict',
      `Conflict occurred attempting to store application_credential - Duplicate entry found with name ${name}.`,
    )
  }
  const row = put(call.state, 'applicationCredentials', {
    id: hexId(),
    name,
    description: typeof wanted['description'] === 'string' ? wanted['description'] : null,
    secret: typeof wanted['secret'] === 'string' ? wanted['secret'] : randomBytes(64).toString('base64url'),
    user_id: token.userId,
    project_id: token.projectId,
    roles: token.roles,
    unrestricted: wanted['unrestricted'] === true,
  })
  return { status: 201, body: { application_credential: { ...view(call, row), secret: row.secret } } }
}

function own(call: Call): ApplicationCredential {
  const id = call.parameters['id'] ?? ''
  const row = find(call.state, 'applicationCredentials', id)
  if (row === undefined || row.user_id !== call.parameters['user']) throw notFound(id)
  return row
}

export const credentialRoutes: RouteTable = [
  ['POST', '/v3/users/:user/application_credentials', create],
  [
    'GET',
    '/v3/users/:user/application_credentials',
    call => ({
      status: 200,
      body: {
        application_credentials: list(call.state, 'applicationCredentials')
          .filter(row => row.user_id === call.parameters['user'])
          .map(row => view(call, row)),
        links: { next: null, self: `${call.origin}/${call.path.join('/')}`, previous: null },
      },
    }),
  ],
  [
    'GET',
    '/v3/users/:user/application_credentials/:id',
    call => ({ status: 200, body: { application_credential: view(call, own(call)) } }),
  ],
  [
    'DELETE',
    '/v3/users/:user/application_credentials/:id',
    call => {
      remove(call.state, 'applicationCredentials', own(call).id)
      return { status: 204 }
    },
  ],
]
