// SPDX-License-Identifier: Apache-2.0
import { deadlineIn } from '#base'
import { type Cloud, describeCredentials, type ServiceType, secretsOf } from './cloud.ts'
import { OpenStackError, type ServiceName } from './error.ts'
import { createGate, type Gate, type GateOptions } from './gate.ts'
import type { Health } from './health.ts'
import { createHttp, type HttpOptions, httpDefaults } from './http.ts'
import { createTokenCache } from './keystone/cache.ts'
import { createIdentity, type Identity } from './keystone/identity.ts'
import { createTokens, type Tokens, type WithLock } from './keystone/renewal.ts'
import { requestToken } from './keystone/token.ts'
import type { Limits } from './limits.ts'
import { type Availability, availability } from './neutron/availability.ts'
import { type Extensions, extensions } from './neutron/extension.ts'
import { type FloatingIps, floatingIps } from './neutron/floatingip.ts'
import { type Networks, networks } from './neutron/network.ts'
import { type Ports, ports } from './neutron/port.ts'
import { type Quotas, quotas } from './neutron/quota.ts'
import { type Routers, routers } from './neutron/router.ts'
import { type SecurityGroups, securityGroups } from './neutron/securitygroup.ts'
import { type Subnets, subnets } from './neutron/subnet.ts'
import { type Trunks, trunks } from './neutron/trunk.ts'
import { type Interfaces, interfaces } from './nova/interface.ts'
import { type Servers, servers } from './nova/server.ts'
import { redact } from './secret.ts'
import { createService, type Service } from './service.ts'
import { createWire } from './wire.ts'

export type Neutron = {
  readonly ports: Ports
  readonly networks: Networks
  readonly subnets: Subnets
  readonly routers: Routers
  readonly floatingIps: FloatingIps
  readonly extensions: Extensions
  readonly quotas: Quotas
  readonly availability: Availability
  readonly securityGroups: SecurityGroups
  readonly trunks: Trunks
}

export type Nova = {
  readonly servers: Servers
  readonly interfaces: Interfaces
}

/** One cloud, logged in as one user. Safe for any number of callers at once. */
export type CloudSession = {
  readonly cloud: Cloud
  readonly identity: Identity
  readonly neutron: Neutron
  readonly nova: Nova
  /** What may be asked of a service at the moment. */
  health(type: ServiceType): Health
  /** What its calls meet before they are sent, for those who show it. */
  readonly gate: Pick<Gate, 'breakerState' | 'perSecond'>
  /** Ends connections and running requests. */
  close(): Promise<void>
}

export type CloudOptions = {
  /** File that keeps the token for other processes; made with mode 0600 in a directory of mode 0700. */
  readonly tokenCache?: string | undefined
  /** Taken around a login when there is a token cache, so that many processes make one token. */
  readonly withLock?: WithLock | undefined
  /** Requests that run at once, per service. @default 8 */
  readonly connectionsMax?: number | undefined
  /** Requests that wait, per service, before further ones are refused. @default 1024 */
  readonly waitingMax?: number | undefined
  /** @default 32 MiB */
  readonly answerBytesMax?: number | undefined
  /** Tries and delays; for tests and for clouds that are known to be slow. */
  readonly http?: Partial<HttpOptions> | undefined
  /** How many calls are made, and when none is. */
  readonly gate?: GateOptions | undefined
}

const connectMs = 5_000
const lookMs = 15_000
const retryMsMin = 1_000
const unneededMsMax = 3_600_000

/** Opens a session. Nothing is sent until the first call. */
export function openCloud(cloud: Cloud, options: CloudOptions = {}): CloudSession {
  const wire = createWire({
    tls: cloud.tls,
    connectionsMax: options.connectionsMax ?? 8,
    waitingMax: options.waitingMax ?? 1024,
    answerBytesMax: options.answerBytesMax ?? 32 * 2 ** 20,
    connectMs,
  })
  const timers = new Map<ServiceName, NodeJS.Timeout>()
  /** Milliseconds until it is needed: the token that is held ends, where it is Keystone. */
  const unneededMs = (service: ServiceName): number => {
    const held = service === 'keystone' ? tokens.held() : undefined
    return held === undefined ? 0 : Math.min(unneededMsMax, held.expiresAtMs - Date.now())
  }
  // A service that nobody asks would be left alone for ever.
  const lookAfter = (service: ServiceName, ms: number): void => {
    clearTimeout(timers.get(service))
    const lookAtIt = async () => {
      if (unneededMs(service) === 0) await look(service === 'nova' ? compute : network)
      // Something else, such as a login, may have kept the question from it.
      if (gate.breakerState(service) === 'open' && !closed)
        lookAfter(service, Math.max(retryMsMin, gate.retryMs(service)))
    }
    timers.set(service, setTimeout(lookAtIt, Math.max(ms, unneededMs(service)) + 1).unref())
  }
  let closed = false
  const gate = createGate(options.gate ?? {}, lookAfter)
  const http = createHttp(wire, gate, { ...httpDefaults, ...options.http })
  const hide = (text: string) => redact(text, secretsOf(cloud))
  const tokens = createTokens({
    login: limits => requestToken(cloud, http, hide, limits),
    cache: options.tokenCache === undefined ? undefined : createTokenCache(options.tokenCache, cloud),
    withLock: options.withLock,
    late: limits => lateLogin(cloud, limits),
  })
  const network = createService({ cloud, name: 'neutron', type: 'network', http, tokens })
  const compute = createService({ cloud, name: 'nova', type: 'compute', http, tokens })
  return {
    cloud,
    identity: createIdentity(tokens, () => withoutProject(cloud)),
    neutron: neutronOf(network),
    nova: { servers: servers(compute), interfaces: interfaces(compute) },
    health: type => healthOf(gate, tokens, type),
    gate,
    close: () => {
      closed = true
      for (const timer of timers.values()) clearTimeout(timer)
      return closeAll(tokens, http.close)
    },
  }
}

/** Keystone counts only for those who need a new token of it. */
function healthOf(gate: Gate, tokens: Tokens, type: ServiceType): Health {
  const keystone = gate.health('keystone')
  if (keystone.level === 'serve-held' && tokens.held() === undefined) return keystone
  return gate.health(type === 'network' ? 'neutron' : 'nova')
}

/** The least that a service can be asked which shows that it, its database and Keystone are there. */
async function look(service: Service): Promise<void> {
  const path = service.name === 'nova' ? '/servers' : '/networks'
  const call = { action: 'look whether it is back', method: 'GET', path, query: [['limit', '1']] } as const
  await service.ask(call, { deadline: deadlineIn(lookMs) }).catch(() => {})
}

const neutronOf = (network: Service): Neutron => ({
  ports: ports(network),
  networks: networks(network),
  subnets: subnets(network),
  routers: routers(network),
  floatingIps: floatingIps(network),
  extensions: extensions(network),
  quotas: quotas(network),
  availability: availability(network),
  securityGroups: securityGroups(network),
  trunks: trunks(network),
})

async function closeAll(tokens: Tokens, closeHttp: () => Promise<void>): Promise<void> {
  tokens.close()
  await closeHttp()
}

const lateLogin = (cloud: Cloud, limits: Limits) =>
  new OpenStackError({
    service: 'keystone',
    action: `log in to cloud "${cloud.name}" at ${cloud.authUrl} as ${describeCredentials(cloud.credentials)}`,
    reason: limits.signal?.aborted ? 'the caller went away' : 'no answer in time',
    status: 0,
    type: limits.signal?.aborted ? 'Aborted' : 'TimeOut',
    kind: 'transient',
    remedy: 'try again; if it stays, look at the load of Keystone',
    effect: 'none',
  })

const withoutProject = (cloud: Cloud) =>
  new OpenStackError({
    service: 'keystone',
    action: `tell the project of cloud "${cloud.name}"`,
    reason: 'the token has no project',
    status: 201,
    type: 'UnexpectedAnswer',
    kind: 'permanent',
    remedy: 'name a project ("project_name" and its domain, or "project_id")',
    effect: 'none',
  })
