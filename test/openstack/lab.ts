// SPDX-License-Identifier: Apache-2.0

// A project of its own in the real OpenStack of `lab/openstack`, so that quotas and leftovers concern nobody else.

import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { deadlineIn } from '#base'
import {
  type Cloud,
  CloudConfigError,
  type CloudSession,
  cloudFromConf,
  listClouds,
  loadCloud,
  openCloud,
} from '#openstack'

/** Why the lab cannot be used, undefined if it can. */
export async function labMissing(): Promise<string | undefined> {
  if (!process.env['OS_CLIENT_CONFIG_FILE']) return 'no lab: eval "$(lab/openstack env)"'
  try {
    const { file, names } = await listClouds()
    return names.includes('oslab-admin') && process.env['OSLAB_ADMIN_PASSWORD']
      ? undefined
      : `${file} is not of lab/openstack`
  } catch (error) {
    if (error instanceof CloudConfigError) return error.message
    throw error
  }
}

export type LabProject = AsyncDisposable & {
  readonly id: string
  readonly password: Cloud
  /** The same as `openstackConf` of a plugin. */
  readonly openstackConf: object
  readonly applicationCredential: Cloud
  readonly applicationCredentialId: string
  readonly admin: CloudSession
  /** Ids of what the lab's demo made: `external_network_id`, `flavor_id` ... */
  readonly demo: Readonly<Record<string, string>>
  /** A call to a service that Mooring itself does not make, as the project's user. */
  compute(method: string, path: string, body?: unknown): Promise<unknown>
  network(method: string, path: string, body?: unknown): Promise<unknown>
}

/** Makes project, user and application credential; takes them away again with everything in the project. */
export async function createLabProject(): Promise<LabProject> {
  const adminCloud = await loadCloud('oslab-admin')
  const { authUrl } = adminCloud
  const admin = await login(authUrl, {
    username: process.env['OSLAB_ADMIN_USERNAME']!,
    password: process.env['OSLAB_ADMIN_PASSWORD']!,
    project: process.env['OSLAB_ADMIN_PROJECT_NAME']!,
  })
  const name = `mooring-test-${randomBytes(4).toString('hex')}`
  const secret = randomBytes(12).toString('hex')
  const { project } = await admin.call('POST', `${authUrl}/projects`, { project: { name, domain_id: 'default' } })
  const user = { name, password: secret, domain_id: 'default', default_project_id: project.id }
  const made = await admin.call('POST', `${authUrl}/users`, { user })
  const { roles } = await admin.call('GET', `${authUrl}/roles?name=member`)
  await admin.call('PUT', `${authUrl}/projects/${project.id}/users/${made.user.id}/roles/${roles[0].id}`)

  const own = { username: name, password: secret, project: name }
  const openstackConf = { ...own, authUrl, region: 'RegionOne' }
  const member = await login(authUrl, own)
  const { application_credential: credential } = await member.call(
    'POST',
    `${authUrl}/users/${made.user.id}/application_credentials`,
    { application_credential: { name: 'mooring' } },
  )
  const adminSession = openCloud(adminCloud)
  return {
    id: project.id,
    password: cloudFromConf(openstackConf),
    openstackConf,
    applicationCredential: cloudFromConf({
      applicationCredentialId: credential.id,
      applicationCredentialSecret: credential.secret,
      authUrl,
      region: 'RegionOne',
    }),
    applicationCredentialId: credential.id,
    admin: adminSession,
    demo: JSON.parse(await readFile(process.env['OSLAB_DEMO_JSON']!, 'utf8')),
    compute: (method, path, body) => member.call(method, `${member.endpoint('compute')}${path}`, body),
    network: (method, path, body) => member.call(method, `${member.endpoint('network')}${path}`, body),
    async [Symbol.asyncDispose]() {
      try {
        await clean(adminSession, project.id)
      } finally {
        await adminSession.close()
        await admin.call('DELETE', `${authUrl}/users/${made.user.id}`)
        await admin.call('DELETE', `${authUrl}/projects/${project.id}`)
      }
    },
  }
}

async function clean(admin: CloudSession, project_id: string): Promise<void> {
  const limits = { deadline: deadlineIn(120_000) }
  const { neutron } = admin
  for (const floatingIp of await neutron.floatingIps.list({ project_id }, limits))
    await neutron.floatingIps.delete(floatingIp.id, limits)
  for (const router of await neutron.routers.list({ project_id }, limits)) {
    await neutron.routers.removeExtraRoutes(router.id, router.routes, limits)
    const connected = await neutron.ports.list(
      { device_id: router.id, device_owner: 'network:router_interface' },
      limits,
    )
    for (const port of connected)
      for (const { subnet_id } of port.fixed_ips) await neutron.routers.removeInterface(router.id, subnet_id, limits)
    await neutron.routers.delete(router.id, limits)
  }
  for (const port of await neutron.ports.list({ project_id }, limits)) await neutron.ports.delete(port.id, limits)
  for (const network of await neutron.networks.list({ project_id }, limits))
    await neutron.networks.delete(network.id, limits)
  await neutron.quotas.reset(project_id, limits)
}

// biome-ignore lint/suspicious/noExplicitAny: the lab's own answers, read once
type Answer = { readonly [key: string]: any }

async function login(authUrl: string, as: { username: string; password: string; project: string }) {
  const domain = { id: 'default' }
  const user = { name: as.username, password: as.password, domain }
  const auth = {
    identity: { methods: ['password'], password: { user } },
    scope: { project: { name: as.project, domain } },
  }
  const response = await fetch(`${authUrl}/auth/tokens`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ auth }),
  })
  if (!response.ok) throw new Error(`Cannot log in to the lab as ${as.username}: ${response.status}`)
  const token = response.headers.get('x-subject-token')!
  const { token: info } = (await response.json()) as Answer
  return {
    endpoint: (type: string): string =>
      info.catalog
        .find((entry: Answer) => entry['type'] === type)
        .endpoints.find((endpoint: Answer) => endpoint['interface'] === 'public').url,
    async call(method: string, url: string, body?: unknown): Promise<Answer> {
      const answer = await fetch(url, {
        method,
        headers: { 'content-type': 'application/json', 'x-auth-token': token },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      })
      const text = await answer.text()
      if (!answer.ok) throw new Error(`Cannot ${method} ${url}: ${answer.status} ${text.slice(0, 500)}`)
      return text === '' ? {} : JSON.parse(text)
    },
  }
}
