// SPDX-License-Identifier: Apache-2.0

// A Keystone and whatever else a test answers, on a free port of the loopback address.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

export type Request = {
  readonly method: string
  /** Path with query. */
  readonly url: string
  readonly path: string
  readonly query: URLSearchParams
  readonly headers: IncomingMessage['headers']
  readonly body: string
  /** Sends an answer. */
  answer(status: number, body?: unknown, headers?: Record<string, string>): void
  /** Ends the connection without one, after `bytes` of a promised answer. */
  cut(bytes?: string): void
}

export type Fake = AsyncDisposable & {
  readonly url: string
  /** All requests so far, those for tokens included. */
  readonly requests: readonly Request[]
  /** `METHOD /path` of all requests that are not for tokens. */
  log(): string[]
  /** Tokens given out so far; each is `token-N`. */
  readonly logins: () => number
  /** The token that is valid; others get 401. */
  validToken: string
  /** Life of the tokens given out. */
  lifeMs: number
}

const UNAUTHORIZED = { error: { code: 401, title: 'Unauthorized', message: 'no valid token' } }

export type FakeOptions = {
  /** How long it takes to find that a token is not valid. */
  readonly refusalMs?: number
  readonly tls?: { readonly key: string; readonly cert: string }
  /** Answers a request for a token itself; true if it did. */
  readonly onLogin?: (request: Request) => boolean
}

/** Starts it; `onCall` answers everything but logins. */
export async function startFake(onCall: (request: Request) => void, options: FakeOptions = {}): Promise<Fake> {
  const requests: Request[] = []
  let logins = 0
  const handle = (incoming: IncomingMessage, response: ServerResponse) => {
    const chunks: Uint8Array[] = []
    incoming.on('data', chunk => chunks.push(chunk))
    incoming.on('error', () => undefined)
    incoming.on('end', () => {
      const request = requestOf(incoming, response, new TextDecoder().decode(concat(chunks)))
      requests.push(request)
      if (request.path !== '/v3/auth/tokens') {
        if (request.headers['x-auth-token'] === fake.validToken) onCall(request)
        else void sleep(options.refusalMs ?? 0).then(() => request.answer(401, UNAUTHORIZED))
        return
      }
      if (options.onLogin?.(request)) return
      logins++
      fake.validToken = `token-${logins}`
      request.answer(201, tokenBody(fake.url, fake.lifeMs), { 'X-Subject-Token': fake.validToken })
    })
  }
  const server: Server = options.tls === undefined ? createServer(handle) : createTlsServer(options.tls, handle)
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const fake: Fake = {
    url: `${options.tls === undefined ? 'http' : 'https'}://127.0.0.1:${port}`,
    requests,
    log: () => requests.filter(each => each.path !== '/v3/auth/tokens').map(each => `${each.method} ${each.url}`),
    logins: () => logins,
    validToken: '',
    lifeMs: 3_600_000,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      await new Promise(resolve => server.close(resolve))
    },
  }
  return fake
}

function requestOf(incoming: IncomingMessage, response: ServerResponse, body: string): Request {
  const url = new URL(incoming.url ?? '/', 'http://fake')
  return {
    method: incoming.method ?? '',
    url: incoming.url ?? '',
    path: url.pathname,
    query: url.searchParams,
    headers: incoming.headers,
    body,
    answer(status, answer, headers) {
      response.writeHead(status, { 'content-type': 'application/json', ...headers })
      response.end(answer === undefined ? '' : typeof answer === 'string' ? answer : JSON.stringify(answer))
    },
    cut(bytes) {
      if (bytes !== undefined) {
        response.writeHead(200, { 'content-length': String(bytes.length + 1000) })
        response.write(bytes)
      }
      setImmediate(() => incoming.socket.destroy())
    },
  }
}

function tokenBody(url: string, lifeMs: number) {
  const issued = Date.now()
  const endpoint = (at: string) => ({ interface: 'public', region: 'R', region_id: 'R', url: at })
  return {
    token: {
      issued_at: new Date(issued).toISOString(),
      expires_at: new Date(issued + lifeMs).toISOString(),
      user: { id: 'user-1', name: 'demo', domain: { id: 'default', name: 'Default' } },
      project: { id: 'project-1', name: 'demo' },
      roles: [{ id: 'r', name: 'member' }],
      catalog: [
        { type: 'network', name: 'neutron', endpoints: [endpoint(`${url}/network`)] },
        { type: 'compute', name: 'nova', endpoints: [endpoint(`${url}/compute/v2.1`)] },
      ],
    },
  }
}

function concat(chunks: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(chunks.reduce((length, chunk) => length + chunk.length, 0))
  let offset = 0
  for (const chunk of chunks) {
    whole.set(chunk, offset)
    offset += chunk.length
  }
  return whole
}

/** A port as Neutron answers it. */
export const portOf = (id: string, extra: object = {}) => ({
  id,
  name: '',
  network_id: 'net-1',
  mac_address: 'fa:16:3e:00:00:01',
  fixed_ips: [{ subnet_id: 'sub-1', ip_address: '10.0.0.5' }],
  device_id: '',
  device_owner: '',
  status: 'ACTIVE',
  revision_number: 1,
  ...extra,
})

export const neutronError = (type: string, message: string) => ({ NeutronError: { type, message, detail: '' } })
