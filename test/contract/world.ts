// SPDX-License-Identifier: Apache-2.0

/**
 * The cloud under contract. By default a simulator in this process; with CONTRACT=real the cloud that OS_AUTH_URL,
 * OSLAB_ADMIN_USERNAME, OSLAB_ADMIN_PASSWORD and OSLAB_DEMO_JSON name (`eval "$(lab/openstack env)"`).
 *
 * Every file gets a project and a user of its own, made through Keystone by the administrator, with a network, a router
 * and nothing else, and takes them away again: the suite disturbs nobody and leaves nothing. Plain `fetch`, so that the
 * suite depends on no client of ours.
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Simulator, startSimulator } from '#simulator'

// biome-ignore lint/suspicious/noExplicitAny: what a foreign service sends, asserted on field by field
export type Json = any
export type Reply = { readonly status: number; readonly headers: Headers; readonly text: string; readonly body: Json }
export type Send = (method: string, path: string, body?: unknown, headers?: Record<string, string>) => Promise<Reply>

/** One identity with its token, and the three services as it sees them. */
export type Caller = {
  readonly token: string
  readonly projectId: string
  readonly userId: string
  readonly neutron: Send
  readonly nova: Send
  readonly keystone: Send
}

export type World = {
  /** Undefined when the cloud is a real one. */
  readonly simulator: Simulator | undefined
  readonly authUrl: string
  readonly admin: Caller
  readonly member: Caller
  readonly username: string
  readonly password: string
  readonly project: string
  readonly externalNetworkId: string
  readonly flavorId: string
  /** A network with the subnet 10.10.10.0/24, connected to the external network by the router. */
  readonly networkId: string
  readonly subnetId: string
  readonly routerId: string
  readonly close: () => Promise<void>
}

export const isReal = process.env['CONTRACT'] === 'real'
/** An id that nothing has. */
export const nobody = '11111111-1111-1111-1111-111111111111'

async function send(
  url: string,
  method: string,
  token: string | undefined,
  body: unknown,
  headers: object,
): Promise<Reply> {
  const response = await fetch(url, {
    method,
    headers: {
      accept: 'application/json',
      ...(token !== undefined && { 'x-auth-token': token }),
      ...(body !== undefined && { 'content-type': 'application/json' }),
      ...headers,
    },
    ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  })
  const text = await response.text()
  return { status: response.status, headers: response.headers, text, body: tryJson(text) }
}

function tryJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** The body of a request for a token by password. */
export function passwordAuth(username: string, password: string, project?: string): unknown {
  const domain = { name: 'Default' }
  return {
    auth: {
      identity: { methods: ['password'], password: { user: { name: username, domain, password } } },
      ...(project !== undefined && { scope: { project: { name: project, domain } } }),
    },
  }
}

/** `POST /auth/tokens`, answered whatever it is. */
export const requestToken = (authUrl: string, body: unknown, query = ''): Promise<Reply> =>
  send(`${authUrl}/auth/tokens${query}`, 'POST', undefined, body, {})

export async function login(authUrl: string, username: string, password: string, project: string): Promise<Caller> {
  const reply = await requestToken(authUrl, passwordAuth(username, password, project))
  assert.equal(reply.status, 201, `log in as ${username}: ${reply.text}`)
  return callerOf(authUrl, reply)
}

/** The caller that a token's answer describes. */
export function callerOf(authUrl: string, reply: Reply): Caller {
  const { token } = reply.body
  const value = reply.headers.get('x-subject-token') ?? ''
  const endpoint = (type: string): string => {
    const service = token.catalog.find((entry: Json) => entry.type === type)
    return service.endpoints.find((entry: Json) => entry.interface === 'public').url
  }
  const to =
    (base: string): Send =>
    (method, path, body, headers = {}) =>
      send(base + path, method, value, body, headers)
  return {
    token: value,
    projectId: token.project.id,
    userId: token.user.id,
    neutron: to(`${endpoint('network')}/v2.0`),
    nova: to(endpoint('compute')),
    keystone: to(authUrl),
  }
}

/** The same caller with another token, or none. */
export const withToken =
  (base: string, token: string | undefined): Send =>
  (method, path, body, headers = {}) =>
    send(base + path, method, token, body, headers)

type Cloud = {
  readonly simulator: Simulator | undefined
  readonly authUrl: string
  readonly admin: Caller
  readonly demo: { readonly external_network_id: string; readonly flavor_id: string }
}

async function openCloud(options: Parameters<typeof startSimulator>[0]): Promise<Cloud> {
  if (!isReal) {
    const simulator = await startSimulator({ wireDelayMs: 100, ...options })
    const { username, password, project } = simulator.accounts.admin
    const admin = await login(simulator.authUrl, username, password, project)
    return { simulator, authUrl: simulator.authUrl, admin, demo: simulator.demo() }
  }
  const setting = (name: string): string => {
    const value = process.env[name]
    assert.ok(value, `CONTRACT=real needs ${name}; run eval "$(lab/openstack env)" first`)
    return value
  }
  const authUrl = setting('OS_AUTH_URL')
  const name = setting('OSLAB_ADMIN_USERNAME')
  const admin = await login(authUrl, name, setting('OSLAB_ADMIN_PASSWORD'), name)
  const demo = JSON.parse(readFileSync(setting('OSLAB_DEMO_JSON'), 'utf8')) as Cloud['demo']
  return { simulator: undefined, authUrl, admin, demo }
}

/**
 * A project of its own in the cloud, with a network and, unless it is told otherwise, a router. `options` are those of the
 * simulator; a real cloud is as it is.
 */
export async function makeWorld(options: Parameters<typeof startSimulator>[0] = {}, hasRouter = true): Promise<World> {
  const cloud = await openCloud(options)
  const { admin, authUrl } = cloud
  const name = `contract-${randomBytes(4).toString('hex')}`
  const password = randomBytes(12).toString('hex')
  const project = (await admin.keystone('POST', '/projects', { project: { name, domain_id: 'default' } })).body.project
  const wanted = { name, password, domain_id: 'default', default_project_id: project.id }
  const user = (await admin.keystone('POST', '/users', { user: wanted })).body.user
  const { roles } = (await admin.keystone('GET', '/roles')).body
  for (const role of ['member', 'reader']) {
    const { id } = roles.find((candidate: Json) => candidate.name === role)
    await admin.keystone('PUT', `/projects/${project.id}/users/${user.id}/roles/${id}`)
  }
  const member = await login(authUrl, name, password, name)
  // What Neutron chooses by itself is never an address that a test names.
  const pools = [{ start: '10.10.10.200', end: '10.10.10.254' }]
  const network = await makeNetwork(member, 'workers', '10.10.10.0/24', { allocation_pools: pools })
  const routerId = hasRouter ? await makeRouter(member, cloud.demo.external_network_id, network.subnetId) : ''
  return {
    simulator: cloud.simulator,
    authUrl,
    admin,
    member,
    username: name,
    password,
    project: name,
    externalNetworkId: cloud.demo.external_network_id,
    flavorId: cloud.demo.flavor_id,
    networkId: network.networkId,
    subnetId: network.subnetId,
    routerId,
    close: () => unmake(cloud, member),
  }
}

async function makeRouter(caller: Caller, externalNetworkId: string, subnetId: string): Promise<string> {
  const wanted = { name: 'edge', external_gateway_info: { network_id: externalNetworkId } }
  const router = await created(caller.neutron('POST', '/routers', { router: wanted }), 'router')
  await caller.neutron('PUT', `/routers/${router.id}/add_router_interface`, { subnet_id: subnetId })
  return router.id
}

export async function makeNetwork(
  caller: Caller,
  name: string,
  cidr: string,
  more: object = {},
): Promise<{ networkId: string; subnetId: string }> {
  const network = await created(caller.neutron('POST', '/networks', { network: { name } }), 'network')
  const subnet = { network_id: network.id, ip_version: 4, cidr, enable_dhcp: false, ...more }
  const { id } = await created(caller.neutron('POST', '/subnets', { subnet }), 'subnet')
  return { networkId: network.id, subnetId: id }
}

/** What was created, or the failure. */
export async function created(reply: Promise<Reply>, key: string): Promise<Json> {
  const { status, text, body } = await reply
  assert.ok(status === 201 || status === 202, `create ${key}: ${status} ${text}`)
  return body[key]
}

async function unmake(cloud: Cloud, member: Caller): Promise<void> {
  if (cloud.simulator !== undefined) return cloud.simulator.close()
  const { neutron, nova } = member
  const all = async (kind: string): Promise<Json[]> =>
    (await neutron('GET', `/${kind}`)).body[kind.replaceAll('-', '_')]
  const servers = async (): Promise<Json[]> => (await nova('GET', '/servers')).body.servers
  for (const server of await servers()) await nova('DELETE', `/servers/${server.id}`)
  await eventually(async () => (await servers()).length === 0, 30_000)
  for (const kind of ['floatingips', 'trunks']) {
    for (const row of await all(kind)) await neutron('DELETE', `/${kind}/${row.id}`)
  }
  for (const router of await all('routers')) {
    await neutron('PUT', `/routers/${router.id}`, { router: { routes: [] } })
    for (const port of (await neutron('GET', `/ports?device_id=${router.id}`)).body.ports) {
      await neutron('PUT', `/routers/${router.id}/remove_router_interface`, { port_id: port.id })
    }
    await neutron('DELETE', `/routers/${router.id}`)
  }
  await Promise.all((await all('ports')).map(port => neutron('DELETE', `/ports/${port.id}`)))
  for (const row of await all('networks')) {
    if (row.project_id === member.projectId) await neutron('DELETE', `/networks/${row.id}`)
  }
  await cloud.admin.neutron('DELETE', `/quotas/${member.projectId}`)
  await cloud.admin.keystone('DELETE', `/users/${member.userId}`)
  await cloud.admin.keystone('DELETE', `/projects/${member.projectId}`)
  // A list by project would make the default group of the project anew.
  const groups: Json[] = (await cloud.admin.neutron('GET', '/security-groups')).body.security_groups
  for (const row of groups.filter(group => group.project_id === member.projectId)) {
    await cloud.admin.neutron('DELETE', `/security-groups/${row.id}`)
  }
}

/** Waits until it is so; fails after the time. */
export async function eventually(isSo: () => Promise<boolean>, timeoutMs = 15_000): Promise<void> {
  const endMs = performance.now() + timeoutMs
  while (!(await isSo())) {
    assert.ok(performance.now() < endMs, `not so within ${timeoutMs} ms: ${isSo}`)
    await sleep(isReal ? 100 : 10)
  }
}

/**
 * For what is only true of requests that overlap: those sent at once do so only if the machine lets them. True in one of
 * the rounds is enough; `round` is there to ask for something else in each. The simulator decides by itself what
 * overlaps and needs few; a busy machine with a real Neutron may serve one after the other several times in a row.
 */
export async function inSomeRound(isSo: (round: number) => Promise<boolean>): Promise<void> {
  const rounds = isReal ? 20 : 5
  for (let round = 0; round < rounds; round++) if (await isSo(round)) return
  assert.fail(`not so in any of ${rounds} rounds: ${isSo}`)
}

/** Asserts on Neutron's error. */
export function refused(reply: Reply, status: number, type: string, message?: RegExp | string): void {
  assert.equal(reply.status, status, reply.text)
  const { NeutronError: error } = reply.body
  assert.equal(error.type, type)
  assert.equal(error.detail, '')
  if (typeof message === 'string') assert.equal(error.message, message)
  else if (message !== undefined) assert.match(error.message, message)
}

/** Asserts on an error of Nova (`itemNotFound`, ...). */
export function novaRefused(reply: Reply, status: number, key: string, message: RegExp | string): void {
  assert.equal(reply.status, status, reply.text)
  assert.deepEqual(Object.keys(reply.body), [key])
  assert.equal(reply.body[key].code, status)
  if (typeof message === 'string') assert.equal(reply.body[key].message, message)
  else assert.match(reply.body[key].message, message)
}

export const ip = (address: string): { ip_address: string } => ({ ip_address: address })
export const ipsOf = (port: Json): string[] => port.fixed_ips.map((fixed: Json) => fixed.ip_address)
