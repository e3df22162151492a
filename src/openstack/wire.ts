// SPDX-License-Identifier: Apache-2.0
import { readFile } from 'node:fs/promises'
import type { Dispatcher, Pool } from 'undici'
import { atMost } from '#base'
import type { Tls } from './cloud.ts'
import { CloudConfigError } from './cloud.ts'
import type { ServiceName } from './error.ts'
import { createLane, type Lane } from './lane.ts'
import { type Limits, timerMs } from './limits.ts'

export type Method = 'GET' | 'POST' | 'PUT' | 'DELETE'

export type WireRequest = {
  /** Services at one address do not wait for each other: with many waiting for Neutron, nothing would go on for want of a login. */
  readonly operation: { readonly service: ServiceName }
  readonly method: Method
  readonly url: URL
  /** Asked when there is a connection for the request: what was right when it was made may be old by then. */
  headers(): Readonly<Record<string, string>>
  readonly body?: string | undefined
}

export type WireAnswer = {
  readonly status: number
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

export type WireFailure =
  | 'ConnectionFailed'
  | 'TlsFailed'
  | 'TimeOut'
  | 'ConnectionCut'
  | 'Aborted'
  | 'QueueFull'
  | 'AnswerTooLarge'
  /** The service failed so often that it is left alone for a while. */
  | 'CircuitOpen'
  /** It would most likely not answer in time. */
  | 'TooSlow'
  /** More requests than we, or the cloud, permit; our turn does not come in time. */
  | 'LimitReached'

/** There was no whole answer. */
export class WireError extends Error {
  override readonly name = 'WireError'
  readonly type: WireFailure
  /** True if the request, or part of it, was given to a connection: the service may have carried it out. */
  readonly sent: boolean
  /** When trying again may help, where that is known. */
  readonly retryMs: number | undefined

  constructor(type: WireFailure, sent: boolean, message: string, cause?: unknown, retryMs?: number) {
    super(message, cause === undefined ? undefined : { cause })
    this.type = type
    this.sent = sent
    this.retryMs = retryMs
  }
}

export type WireOptions = {
  readonly tls: Tls
  /** Connections to one service at one address, and so the requests that run at once. */
  readonly connectionsMax: number
  /** Requests to it that wait for a connection. */
  readonly waitingMax: number
  readonly answerBytesMax: number
  readonly connectMs: number
}

export type ExchangeOptions = {
  /** Time for the answer, once there is a connection for the request: the wait for one is ours, and says nothing of the service. */
  readonly answerMs: number
  /** Called when there is one. */
  readonly begun: () => void
}

/** One request, one answer, over kept connections; no retries, no meaning. */
export type Wire = {
  /** @throws {WireError} */
  exchange(request: WireRequest, limits: Limits, options: ExchangeOptions): Promise<WireAnswer>
  /** Ends all connections; requests that still run fail. */
  close(): Promise<void>
}

/** Opens nothing yet: undici is loaded and the authority's file read by the first request. */
export function createWire(options: WireOptions): Wire {
  const lanes = new Map<string, Lane>()
  const pools = new Map<string, Promise<Pool>>()
  let closed = false

  const placeOf = ({ operation, url }: WireRequest) => `${operation.service} ${url.origin}`
  const laneOf = (request: WireRequest): Lane => {
    const place = placeOf(request)
    const lane = lanes.get(place) ?? createLane({ runningMax: options.connectionsMax, waitingMax: options.waitingMax })
    lanes.set(place, lane)
    return lane
  }
  const poolOf = (request: WireRequest): Promise<Pool> => {
    const place = placeOf(request)
    const known = pools.get(place)
    if (known !== undefined) return known
    const pool = openPool(request.url.origin, options)
    pools.set(place, pool)
    // Its files may be readable by the next request.
    pool.catch(() => pools.delete(place))
    return pool
  }

  return {
    async exchange(request, limits, { answerMs, begun }) {
      const place = await laneOf(request).enter(limits)
      if (place === 'full')
        throw new WireError('QueueFull', false, `${options.waitingMax} requests wait for ${request.url.host} already`)
      if (place === 'late') throw ended(limits, false, request.url)
      using _place = place
      const pool = await poolOf(request)
      if (closed) throw new WireError('Aborted', false, 'the session was closed')
      if (limits.signal?.aborted) throw ended(limits, false, request.url)
      begun()
      const within = { ...limits, deadline: atMost(limits.deadline, answerMs) }
      return await dispatch(pool, request, within, options.answerBytesMax)
    },
    async close() {
      closed = true
      const opened = await Promise.allSettled(pools.values())
      pools.clear()
      const reason = new WireError('Aborted', true, 'the session was closed')
      await Promise.all(opened.map(each => (each.status === 'fulfilled' ? each.value.destroy(reason) : undefined)))
    },
  }
}

async function openPool(origin: string, options: WireOptions): Promise<Pool> {
  // The whole package takes more than twice as long to load as this part, and a plugin without agent loads it for every call.
  const { default: UndiciPool } = await import('undici/lib/dispatcher/pool.js')
  return new UndiciPool(origin, {
    connections: options.connectionsMax,
    pipelining: 1,
    allowH2: false,
    connect: { timeout: options.connectMs, ...(origin.startsWith('https:') ? await tlsOptions(options.tls) : {}) },
  })
}

async function tlsOptions(tls: Tls) {
  const [ca, cert, key] = await Promise.all([
    readPem(tls.caFile, 'cacert'),
    readPem(tls.certFile, 'cert'),
    readPem(tls.keyFile ?? tls.certFile, 'key'),
  ])
  return {
    rejectUnauthorized: !tls.insecure,
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined || key === undefined ? {} : { cert, key }),
  }
}

async function readPem(file: string | undefined, key: string): Promise<string | undefined> {
  if (file === undefined) return undefined
  try {
    return await readFile(file, 'utf8')
  } catch (cause) {
    throw new CloudConfigError(`Cannot read ${key} "${file}": ${(cause as NodeJS.ErrnoException).code}`, {
      remedy: 'name a PEM file that this process may read',
      cause,
    })
  }
}

function dispatch(pool: Pool, request: WireRequest, limits: Limits, bytesMax: number): Promise<WireAnswer> {
  const { promise, resolve, reject } = Promise.withResolvers<WireAnswer>()
  let running: Dispatcher.DispatchController | undefined
  let failure: WireError | undefined
  const fail = (error: WireError) => {
    if (failure !== undefined) return
    failure = error
    reject(error)
    running?.abort(error)
  }
  const end = () => fail(ended(limits, running !== undefined, request.url))
  const timer = setTimeout(end, timerMs(limits.deadline))
  limits.signal?.addEventListener('abort', end, { once: true })
  const stopWaiting = () => {
    clearTimeout(timer)
    limits.signal?.removeEventListener('abort', end)
  }

  const decoder = new TextDecoder()
  const answer = { status: 0, headers: {} as Record<string, string>, body: '' }
  let bytes = 0
  pool.dispatch(
    {
      method: request.method,
      path: request.url.pathname + request.url.search,
      headers: request.headers(),
      body: request.body ?? null,
      // The deadline is ours to keep: undici's own timers know nothing of the caller's.
      headersTimeout: 0,
      bodyTimeout: 0,
    },
    {
      onRequestStart(controller) {
        // Called when the request gets a connection: until then nothing left this process.
        if (failure !== undefined) controller.abort(failure)
        running = controller
      },
      onResponseStart(_controller, status, headers) {
        answer.status = status
        for (const [name, value] of Object.entries(headers))
          if (value !== undefined) answer.headers[name.toLowerCase()] = Array.isArray(value) ? value.join(', ') : value
      },
      onResponseData(_controller, chunk) {
        bytes += chunk.length
        if (bytes > bytesMax) fail(new WireError('AnswerTooLarge', true, `the answer is larger than ${bytesMax} bytes`))
        else answer.body += decoder.decode(chunk, { stream: true })
      },
      onResponseEnd() {
        stopWaiting()
        answer.body += decoder.decode()
        resolve(answer)
      },
      onResponseError(_controller, error) {
        stopWaiting()
        reject(failure ?? wireErrorOf(error, running !== undefined, request.url))
      },
    },
  )
  return promise
}

function ended(limits: Limits, sent: boolean, url: URL): WireError {
  if (limits.signal?.aborted) return new WireError('Aborted', sent, 'the caller went away')
  const state = sent ? `no answer from ${url.host} in time` : `no time left before ${url.host} was reached`
  return new WireError('TimeOut', sent, state)
}

function wireErrorOf(error: unknown, sent: boolean, url: URL): WireError {
  if (error instanceof WireError) return error
  const code = codeOf(error)
  const message = error instanceof Error ? error.message : String(error)
  if (/^(CERT_|ERR_TLS_|ERR_SSL_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|HOSTNAME_|EPROTO)/.test(code))
    return new WireError('TlsFailed', sent, `${url.host} cannot be trusted: ${message} (${code})`, error)
  if (sent) return new WireError('ConnectionCut', true, `the connection to ${url.host} ended: ${message}`, error)
  return new WireError('ConnectionFailed', false, `cannot connect to ${url.host}: ${connectReason(error, code)}`, error)
}

/** The code of an error, or of the first one inside: several addresses of a host give an AggregateError. */
function codeOf(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return codeOf(error.errors[0])
  const code = (error as { code?: unknown } | undefined)?.code
  return typeof code === 'string' ? code : ''
}

const connectReasons: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'connection refused (ECONNREFUSED)',
  EHOSTUNREACH: 'no route to host (EHOSTUNREACH)',
  ENETUNREACH: 'network unreachable (ENETUNREACH)',
  ENOTFOUND: 'host name not found (ENOTFOUND)',
  EAI_AGAIN: 'name server does not answer (EAI_AGAIN)',
  UND_ERR_CONNECT_TIMEOUT: 'no answer to the connection attempt (time-out)',
}

const connectReason = (error: unknown, code: string) =>
  connectReasons[code] ?? (error instanceof Error ? error.message : String(error))
