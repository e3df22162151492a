// SPDX-License-Identifier: Apache-2.0

/**
 * The one HTTP server in front of the three services: finds the handler, checks the token, meets injections, and gives
 * errors the shape of the service that they come from.
 */
import { randomUUID } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Answer, asObject, type Call, notJson, pause, type RouteTable, type Service } from './call.ts'
import { Fault } from './fault.ts'
import { type Injection, type Injections, meet, record } from './injection.ts'
import { validate } from './keystone/token.ts'
import type { RateLimit } from './ratelimit.ts'
import type { State, Token } from './state.ts'

/** One service below its path prefix. `open` paths (versions, tokens) are served without a token. */
export type Mount = {
  readonly service: Service
  readonly prefix: string
  readonly routes: RouteTable
  readonly open: (method: string, path: readonly string[]) => boolean
}

export type Front = {
  readonly state: State
  readonly injections: Injections
  readonly rateLimit: RateLimit
  readonly mounts: readonly Mount[]
  /** Answers what is not below a service's prefix, or undefined. */
  readonly control: (method: string, path: string, body: unknown) => Answer | undefined
}

/** The servers of the real services refuse longer request lines with 414 and an empty body. */
const URL_MAX = 8192 - 'GET  HTTP/1.1\r\n'.length
const BODY_MAX_BYTES = 8 << 20

/** A server that is not listening yet. */
export function createFront(front: Front): Server {
  const server = createServer({ maxHeaderSize: 256 << 10, keepAliveTimeout: 75_000 }, (request, response) => {
    answerRequest(front, request, response).catch(error => {
      // The caller has gone, in the middle of its request.
      if (!response.headersSent) send(response, { status: 400, body: { error: { message: String(error) } } })
    })
  })
  return server
}

async function answerRequest(front: Front, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const method = request.method ?? 'GET'
  const url = request.url ?? '/'
  const body = await readBody(request)
  const control = front.control(method, url, body)
  if (control !== undefined) return send(response, control)
  const mount = front.mounts.find(candidate => isBelow(url, candidate.prefix))
  if (mount === undefined) return send(response, { status: 404, body: { error: 'no service has this path' } })
  const startedMs = performance.now()
  const refusal = front.rateLimit.refuse(front.state.settings.requestsPerSecond)
  const injection = refusal === undefined ? meet(front.injections, method, url) : undefined
  const answer = refusal ?? (await answerService(front, mount, request, body, injection))
  record(front.injections, {
    service: mount.service,
    method,
    path: url,
    status: typeof answer === 'string' ? 0 : answer.status,
    durationMs: performance.now() - startedMs,
    injected: injection?.act,
  })
  if (answer === 'cut') request.socket.destroy()
  else if (answer !== 'hang') send(response, withRequestId(mount, answer), method === 'HEAD')
}

/** The answer, as the injection lets it be: `cut` and `hang` are none. */
async function answerService(
  front: Front,
  mount: Mount,
  request: IncomingMessage,
  body: unknown,
  injection: Injection | undefined,
): Promise<Answer | 'cut' | 'hang'> {
  await pause(injection?.latencyMs ?? 0)
  if (injection?.act === 'cut') return 'cut'
  if (injection?.act === 'answer') return injectedAnswer(injection, mount)
  const answer = await serve(front, mount, request, body, injection)
  if (injection?.act === 'cut-after') return 'cut'
  if (injection?.act === 'hang-after') return 'hang'
  if (injection?.act === 'partial') return partialAnswer(answer, injection)
  return injection?.act === 'answer-after' ? injectedAnswer(injection, mount) : answer
}

/** What a read tells, without the last or first entries of its list, or of a port's addresses and pairs. */
function partialAnswer(answer: Answer, { missing = 1, from = 'end' }: Injection): Answer {
  const less = (value: unknown): unknown => {
    if (Array.isArray(value))
      return from === 'start' ? value.slice(missing) : value.slice(0, Math.max(0, value.length - missing))
    const object = asObject(value)
    if (object === undefined || !('fixed_ips' in object)) return value
    const { fixed_ips, allowed_address_pairs } = object
    return { ...object, fixed_ips: less(fixed_ips), allowed_address_pairs: less(allowed_address_pairs) }
  }
  const body = asObject(answer.body)
  if (answer.status !== 200 || body === undefined) return answer
  return { ...answer, body: Object.fromEntries(Object.entries(body).map(([key, value]) => [key, less(value)])) }
}

/** Every service says by which id the request stands in its log; a refused request line has none yet. */
function withRequestId(mount: Mount, answer: Answer): Answer {
  if (answer.status === 414) return { ...answer, headers: { connection: 'close' } }
  const id = `req-${randomUUID()}`
  const ids = { 'x-openstack-request-id': id, ...(mount.service === 'compute' && { 'x-compute-request-id': id }) }
  return { ...answer, headers: { ...ids, ...answer.headers } }
}

const isBelow = (url: string, prefix: string): boolean =>
  url.startsWith(prefix) && ['/', '?', undefined].includes(url[prefix.length])

function injectedAnswer(injection: Injection, mount: Mount): Answer {
  const status = injection.status ?? 503
  const fault = new Fault(status, injectedTypes[mount.service], `Injected ${status}`, injection.headers ?? {})
  return faultAnswer(fault, mount.service)
}
const injectedTypes: Readonly<Record<Service, string>> = {
  identity: 'Injected',
  network: 'HTTPInternalServerError',
  compute: 'computeFault',
}

async function readBody(request: IncomingMessage): Promise<unknown> {
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of request as AsyncIterable<Uint8Array>) {
    bytes += chunk.length
    if (bytes <= BODY_MAX_BYTES) chunks.push(chunk)
  }
  if (bytes === 0) return undefined
  try {
    return JSON.parse(await new Blob(chunks as Uint8Array<ArrayBuffer>[]).text()) as unknown
  } catch {
    return notJson
  }
}

async function serve(
  front: Front,
  mount: Mount,
  request: IncomingMessage,
  body: unknown,
  injection: Injection | undefined,
): Promise<Answer> {
  const url = request.url ?? '/'
  if (url.length > URL_MAX) return { status: 414 }
  const { latency } = front.state.settings
  try {
    const call = decode(front.state, mount, request, body, injection)
    const handler = route(mount, call)
    if (call.method === 'GET') await pause(latency.readMs)
    const answer = await handler(call)
    const isWrite = call.method !== 'GET' && mount.service === 'network'
    await pause(call.extraMs + (isWrite ? latency.writeMs : 0))
    return answer
  } catch (error) {
    if (error instanceof Fault) return faultAnswer(error, mount.service)
    process.emitWarning(error as Error)
    return faultAnswer(
      new Fault(500, injectedTypes[mount.service], 'The simulator has a bug, see its output.'),
      mount.service,
    )
  }
}

function decode(
  state: State,
  mount: Mount,
  request: IncomingMessage,
  body: unknown,
  injection: Injection | undefined,
): Call {
  const method = request.method ?? 'GET'
  const [path = '', query = ''] = split(request.url ?? '/')
  const host = request.headers.host ?? 'localhost'
  // Decoded before it is split, as WSGI does it: an escaped slash in a tag is a slash.
  const segments = safeDecode(path.slice(mount.prefix.length))
    .split('/')
    .filter(segment => segment !== '')
  const origin = `http://${host}${mount.prefix}`
  const open = mount.open(method, segments)
  const token = open ? undefined : authenticate(state, mount, request)
  const asOfMs =
    injection?.act === 'stale' && method === 'GET' ? performance.now() - (injection.ageMs ?? 60_000) : undefined
  return {
    state,
    service: mount.service,
    method,
    path: segments,
    origin,
    query: new URLSearchParams(query),
    headers: request.headers,
    body,
    parameters: {},
    token,
    asOfMs,
    extraMs: 0,
  }
}

const split = (url: string): [string, string] => {
  const at = url.indexOf('?')
  return at < 0 ? [url, ''] : [url.slice(0, at), url.slice(at + 1)]
}

function safeDecode(path: string): string {
  try {
    return decodeURIComponent(path)
  } catch {
    return path
  }
}

function authenticate(state: State, mount: Mount, request: IncomingMessage): Token {
  const value = request.headers['x-auth-token']
  const token = typeof value === 'string' ? validate(state, value, mount.service) : undefined
  if (token !== undefined) return token
  const host = request.headers.host ?? 'localhost'
  throw new Fault(401, 'Unauthorized', 'The request you have made requires authentication.', {
    'www-authenticate': `Keystone uri="http://${host}/identity/v3"`,
  })
}

/** The handler for the call, its path parameters filled in. */
function route(mount: Mount, call: Call): (call: Call) => Answer | Promise<Answer> {
  let pathKnown = false
  for (const [method, pattern, handler] of mount.routes) {
    const parameters = matchPath(pattern, call.path)
    if (parameters === undefined) continue
    pathKnown = true
    if (method === call.method || (method === 'GET' && call.method === 'HEAD')) {
      return () => handler(Object.assign(call, { parameters }))
    }
  }
  throw pathKnown ? methodNotAllowed(mount.service) : unknownPath(mount.service, call)
}

function matchPath(pattern: string, path: readonly string[]): Record<string, string> | undefined {
  const wanted = pattern.split('/').filter(segment => segment !== '')
  if (wanted.length !== path.length) return undefined
  const parameters: Record<string, string> = {}
  for (const [index, segment] of wanted.entries()) {
    if (segment.startsWith(':')) parameters[segment.slice(1)] = path[index]!
    else if (segment !== path[index]) return undefined
  }
  return parameters
}

function methodNotAllowed(service: Service): Fault {
  if (service === 'compute') return new Fault(404, 'WEB', '')
  if (service === 'identity') return new Fault(405, 'PLAIN', 'The method is not allowed for the requested URL.')
  return new Fault(
    405,
    'HTTPMethodNotAllowed',
    'The server could not comply with the request since it is either malformed or otherwise incorrect.',
  )
}

function unknownPath(service: Service, call: Call): Fault {
  if (service === 'network') return new Fault(404, 'HTTPNotFound', 'The resource could not be found.')
  if (service === 'identity') return new Fault(404, 'HTML', `The requested URL /${call.path.join('/')} was not found.`)
  return new Fault(404, 'WEB', '')
}

/** The shapes of section 3(l): one per service, and those of the frameworks below them. */
function faultAnswer(fault: Fault, service: Service): Answer {
  const { status, type, message, headers } = fault
  const web = {
    message: `The resource could not be found.<br /><br />\n${message}\n\n`,
    code: '404 Not Found',
    title: 'Not Found',
  }
  if (type === 'WEB') return { status, headers, body: web }
  if (type === 'PLAIN') return { status, headers, body: { message } }
  if (type === 'HTML') return { status, headers: { ...headers, 'content-type': 'text/html' }, body: message }
  if (service === 'identity' || status === 401)
    return { status, headers, body: { error: { code: status, message, title: type } } }
  if (service === 'compute') return { status, headers, body: { [type]: { code: status, message } } }
  return { status, headers, body: { NeutronError: { type, message, detail: '' } } }
}

function send(response: ServerResponse, answer: Answer, headOnly = false): void {
  if (response.destroyed) return
  const isText = typeof answer.body === 'string'
  const text = answer.body === undefined ? '' : isText ? String(answer.body) : JSON.stringify(answer.body)
  const bytes = new TextEncoder().encode(text)
  response.statusCode = answer.status
  if (text !== '') response.setHeader('content-type', 'application/json')
  for (const [name, value] of Object.entries(answer.headers ?? {})) response.setHeader(name, value)
  if (answer.status !== 204) response.setHeader('content-length', bytes.length)
  response.end(headOnly ? undefined : bytes)
}

/** Listens, and says where. @throws the system's error when the port is taken. */
export function listen(server: Server, host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, () => {
      server.off('error', reject)
      const address = server.address()
      resolve(typeof address === 'object' && address !== null ? address.port : port)
    })
  })
}

/** Listens on a UNIX socket. */
export function listenAt(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, () => {
      server.off('error', reject)
      resolve()
    })
  })
}

/** Ends the server and every connection to it, also those that wait for an answer. */
export async function closeServer(server: Server): Promise<void> {
  const closed = new Promise<void>(resolve => server.close(() => resolve()))
  server.closeAllConnections()
  await Promise.race([closed, sleep(1000)])
}
