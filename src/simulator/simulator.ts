// SPDX-License-Identifier: Apache-2.0
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { control, latencyOf } from './controls.ts'
import { type Dataplane, startDataplane } from './dataplane/dataplane.ts'
import { startForwarder } from './dataplane/forward.ts'
import { closeServer, createFront, type Front, listen, listenAt, type Mount } from './http.ts'
import { type Injection, inject, newInjections, type RequestRecord, recorded } from './injection.ts'
import { identityOpen, identityRoutes } from './keystone/service.ts'
import { expireTokens } from './keystone/token.ts'
import { networkOpen, networkServiceRoutes } from './neutron/service.ts'
import { computeOpen, computeRoutes } from './nova/service.ts'
import { newRateLimit } from './ratelimit.ts'
import { type Accounts, type Demo, demoOf, seed } from './seed.ts'
import { clear, type Latency, newState, quickLatency, type Settings, type State } from './state.ts'

export type SimulatorOptions = {
  /** Address to listen on; 127.0.0.1 by default. */
  readonly host?: string
  /** Port to listen on; a free one by default. */
  readonly port?: number
  /** `quick` (the default), `recorded`, or milliseconds by field. */
  readonly latency?: 'quick' | 'recorded' | Partial<Latency>
  /** How many demo servers there are; 2 by default. */
  readonly servers?: number
  /** From an answer until it is true on the wire, milliseconds; 1200 by default. */
  readonly wireDelayMs?: number
  /** Lifetime of a token, milliseconds; an hour by default. */
  readonly tokenTtlMs?: number
  /** Extra routes per router; 30 by default. */
  readonly maxRoutes?: number
  /** Address pairs per port; 10 by default. */
  readonly maxAddressPairs?: number
  /** Requests a second, of all services together, before 429; any by default. */
  readonly requestsPerSecond?: number
  /** NICs that a server has slots for; 28 by default. */
  readonly maxNics?: number
  /** Names and passwords; random passwords by default. */
  readonly accounts?: Accounts
  /**
   * Prefix of the network namespaces in which the cloud is real: `PREFIX-vm-SERVER`, `PREFIX-outside`, ... Needs root.
   * Without it there is the API alone.
   */
  readonly dataplane?: string
}

/** A running simulator. */
export type Simulator = {
  /** `http://127.0.0.1:PORT`; the controls are below `/simulator/`. */
  readonly url: string
  /** Keystone v3, for `OS_AUTH_URL` and `auth_url`. */
  readonly authUrl: string
  readonly endpoints: { readonly identity: string; readonly network: string; readonly compute: string }
  readonly accounts: Accounts
  /** The ids of the demo objects as they are now. */
  readonly demo: () => Demo
  /** The rows behind the API; read them with `find` and `list`. */
  readonly state: State
  /** Limits and times, to be changed while it runs. */
  readonly settings: Settings
  /** Arms a fault for the next requests that match. */
  readonly inject: (injection: Injection) => void
  /** Requests so far, by method and path; both optional. */
  readonly requests: (method?: string, path?: string | RegExp) => RequestRecord[]
  readonly forgetRequests: () => void
  readonly expireTokens: () => void
  /** Forgets everything and makes the demo objects anew, with new ids. */
  readonly reset: () => void
  /** Names of the network namespaces of the data plane; none without one. */
  readonly namespaces: () => string[]
  /** Ends it, with every connection. Safe to call twice. */
  readonly close: () => Promise<void>
  readonly [Symbol.asyncDispose]: () => Promise<void>
}

const HOUR_MS = 3_600_000

const mounts: readonly Mount[] = [
  { service: 'identity', prefix: '/identity', routes: identityRoutes, open: identityOpen },
  { service: 'network', prefix: '/network', routes: networkServiceRoutes, open: networkOpen },
  { service: 'compute', prefix: '/compute', routes: computeRoutes, open: computeOpen },
]

const randomAccounts = (): Accounts => ({
  demo: { username: 'demo', password: randomBytes(18).toString('base64url'), project: 'demo' },
  admin: { username: 'admin', password: randomBytes(18).toString('base64url'), project: 'admin' },
})

/**
 * Starts a simulated cloud with the demo objects in it.
 * @throws {RangeError} naming an option that cannot be used; the system's error when the port is taken.
 */
export async function startSimulator(options: SimulatorOptions = {}): Promise<Simulator> {
  if (options.dataplane !== undefined && !/^[\w-]{1,40}$/.test(options.dataplane)) {
    throw new RangeError(
      `Cannot use "${options.dataplane}" as prefix of namespaces: want 1 to 40 letters, digits, _ or -`,
    )
  }
  const state = newState({
    latency: latencyOf(options.latency ?? 'quick', quickLatency),
    wireDelayMs: options.wireDelayMs ?? 1200,
    tokenTtlMs: options.tokenTtlMs ?? HOUR_MS,
    tokenCacheMs: 300_000,
    maxRoutes: options.maxRoutes ?? 30,
    maxAddressPairs: options.maxAddressPairs ?? 10,
    requestsPerSecond: options.requestsPerSecond ?? 0,
    maxNics: options.maxNics ?? 28,
    repeatedShare: 0,
  })
  const accounts = options.accounts ?? randomAccounts()
  const injections = newInjections()
  let dataplane: Dataplane | undefined
  const demo = (): Demo => demoOf(state, accounts)
  const reset = (): void => {
    clear(state)
    injections.armed = []
    seed(state, accounts, options.servers ?? 2)
  }
  reset()
  const controlled = { state, injections, demo, reset }
  const front: Front = {
    state,
    injections,
    rateLimit: newRateLimit(),
    mounts,
    control: (method, url, body) => control(controlled, method, url, body),
  }
  const server = createFront(front)
  const host = options.host ?? '127.0.0.1'
  const port = await listen(server, host, options.port ?? 0)
  try {
    if (options.dataplane !== undefined) dataplane = await makeReal(front, options.dataplane, port)
  } catch (error) {
    await closeServer(server)
    throw error
  }
  const url = `http://${host}:${port}`
  let closing: Promise<void> | undefined
  const close = (): Promise<void> => {
    closing ??= (async () => {
      for (const timer of state.timers) clearTimeout(timer)
      await dataplane?.close()
      await closeServer(server)
    })()
    return closing
  }
  return {
    url,
    authUrl: `${url}/identity/v3`,
    endpoints: { identity: `${url}/identity/v3`, network: `${url}/network`, compute: `${url}/compute/v2.1` },
    accounts,
    demo,
    state,
    settings: state.settings,
    inject: injection => inject(injections, injection),
    requests: (method, path) => recorded(injections, method, path),
    forgetRequests: () => void injections.records.splice(0),
    expireTokens: () => expireTokens(state),
    reset,
    namespaces: () => dataplane?.namespaces() ?? [],
    close,
    [Symbol.asyncDispose]: close,
  }
}

/** The data plane, with the API reachable in its servers through a UNIX socket in a directory of our own. */
async function makeReal(front: Front, prefix: string, port: number): Promise<Dataplane> {
  const directory = mkdtempSync(join(tmpdir(), 'mooring-simulator-'))
  const socket = join(directory, 'api.sock')
  const inner = createFront(front)
  const end = async (): Promise<void> => {
    await closeServer(inner)
    rmSync(directory, { recursive: true, force: true })
  }
  try {
    await listenAt(inner, socket)
    const report = (error: Error): void => process.emitWarning(error)
    const dataplane = await startDataplane(front.state, { prefix, forwarder: startForwarder(socket, port), report })
    return {
      namespaces: dataplane.namespaces,
      close: async () => {
        await dataplane.close()
        await end()
      },
    }
  } catch (error) {
    await end()
    throw error
  }
}
