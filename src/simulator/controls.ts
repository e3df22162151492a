// SPDX-License-Identifier: Apache-2.0

/** The controls of the simulator over HTTP, below `/simulator/`; whoever can reach the port may use them. */
import { type Answer, asObject } from './call.ts'
import { type Injection, type Injections, inject, recorded } from './injection.ts'
import { expireTokens } from './keystone/token.ts'
import { type Latency, quickLatency, recordedLatency, type Settings, type State } from './state.ts'

export type Controlled = {
  readonly state: State
  readonly injections: Injections
  /** The ids of the demo objects as they are now. */
  readonly demo: () => unknown
  /** Forgets everything and makes the demo objects anew. */
  readonly reset: () => void
}

const noContent: Answer = { status: 204 }
const refused = (message: string): Answer => ({ status: 400, body: { error: message } })

/** The answer to a request below `/simulator/`, or undefined if it is none. */
export function control(target: Controlled, method: string, url: string, body: unknown): Answer | undefined {
  if (!url.startsWith('/simulator/')) return undefined
  const { pathname, searchParams } = new URL(url, 'http://localhost')
  const what = `${method} ${pathname.slice('/simulator/'.length)}`
  try {
    return perform(target, what, searchParams, body)
  } catch (error) {
    return refused((error as Error).message)
  }
}

function perform(target: Controlled, what: string, query: URLSearchParams, body: unknown): Answer {
  const { state, injections } = target
  const quota = /^PUT quotas\/(.+)$/.exec(what)?.[1]
  if (quota !== undefined) {
    state.quotas.set(quota, { ...state.quotas.get(quota), ...(asObject(body) as Record<string, number>) })
    return noContent
  }
  switch (what) {
    case 'POST inject':
      for (const injection of Array.isArray(body) ? body : [body]) inject(injections, asObject(injection) as Injection)
      return noContent
    case 'DELETE inject':
      injections.armed = []
      return noContent
    case 'GET requests': {
      const requests = recorded(injections, query.get('method') ?? undefined, query.get('path') ?? undefined)
      return { status: 200, body: { count: requests.length, requests } }
    }
    case 'DELETE requests':
      injections.records.length = 0
      return noContent
    case 'POST tokens/expire':
      expireTokens(state)
      return noContent
    case 'GET settings':
      return { status: 200, body: state.settings }
    case 'PUT settings':
      changeSettings(state.settings, asObject(body) ?? {})
      return { status: 200, body: state.settings }
    case 'POST reset':
      target.reset()
      return { status: 200, body: target.demo() }
    case 'GET demo':
      return { status: 200, body: target.demo() }
    default:
      return { status: 404, body: { error: `there is no control "${what}"` } }
  }
}

/** Takes over what is given; `latency` may be `quick`, `recorded`, or an object with some of its fields. */
function changeSettings(settings: Settings, change: Readonly<Record<string, unknown>>): void {
  const { latency, ...numbers } = change
  for (const [name, value] of Object.entries(numbers)) {
    if (!(name in settings) || typeof value !== 'number') {
      throw new RangeError(`Cannot set "${name}": want a number for one of ${Object.keys(settings).join(', ')}`)
    }
    Object.assign(settings, { [name]: value })
  }
  if (latency !== undefined) settings.latency = latencyOf(latency, settings.latency)
}

/** A latency by name, or some fields of one laid over another. */
export function latencyOf(value: unknown, base: Latency): Latency {
  if (value === 'quick') return quickLatency
  if (value === 'recorded') return recordedLatency
  const fields = asObject(value)
  const wrong = Object.entries(fields ?? { latency: value }).find(
    ([name, ms]) => !(name in base) || typeof ms !== 'number' || ms < 0,
  )
  if (wrong !== undefined) {
    throw new RangeError(
      `Cannot set latency "${wrong[0]}": want "quick", "recorded" or milliseconds for ${Object.keys(base).join(', ')}`,
    )
  }
  return { ...base, ...(fields as Partial<Latency>) }
}
