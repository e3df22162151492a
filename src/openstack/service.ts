// SPDX-License-Identifier: Apache-2.0
import type { Cloud, ServiceType } from './cloud.ts'
import { secretsOf } from './cloud.ts'
import {
  type ErrorContext,
  errorFromAnswer,
  errorFromWire,
  isMissing,
  OpenStackError,
  type ServiceName,
  unexpectedAnswer,
} from './error.ts'
import type { Operation } from './gate.ts'
import { type Http, HttpError, type HttpOutcome } from './http.ts'
import { isObject, type Json, tryParseJson } from './json.ts'
import { findEndpoint } from './keystone/catalog.ts'
import type { Tokens } from './keystone/renewal.ts'
import type { Token } from './keystone/token.ts'
import type { Limits } from './limits.ts'
import { redact } from './secret.ts'
import type { Method, WireAnswer } from './wire.ts'

/** Filters of a list and the like; a name may come several times. */
export type Query = readonly (readonly [name: string, value: string])[]

export type ServiceCall = {
  /** What is tried, with its values, for the error: `create port "x" on network y`. */
  readonly action: string
  readonly method: Method
  /** Below the service's address, starting with a slash. */
  readonly path: string
  readonly query?: Query | undefined
  readonly body?: Json
  readonly headers?: Readonly<Record<string, string>> | undefined
  /** True if carrying it out twice is the same as once; a GET always is. */
  readonly repeat?: boolean | undefined
  /** Looks whether an earlier try took effect; see `HttpCall.look`. */
  readonly look?: (() => Promise<boolean>) | undefined
  /** See `HttpCall.isFinal`. */
  readonly isFinal?: ((answer: WireAnswer) => boolean) | undefined
}

/** An object that the API answered, and the means to complain about it. */
export type ServiceAnswer = {
  /** The decoded body; an empty object where the answer has none. */
  readonly body: Readonly<Record<string, unknown>>
  readonly headers: Readonly<Record<string, string>>
  /** The error for a body that is not what the API promises. */
  unexpected(what: string): OpenStackError
}

/** One service of one cloud: finds its address, carries the token, logs in again once, turns failures into `OpenStackError`. */
export type Service = {
  readonly name: ServiceName
  /** Undefined if `look` found that an earlier try took effect. @throws {OpenStackError} */
  call(call: ServiceCall, limits: Limits): Promise<ServiceAnswer | undefined>
  /** As `call` without `look`. @throws {OpenStackError} */
  ask(call: Omit<ServiceCall, 'look'>, limits: Limits): Promise<ServiceAnswer>
  /** As `ask`, undefined if the service says that the thing named does not exist. @throws {OpenStackError} */
  tryAsk(call: Omit<ServiceCall, 'look'>, limits: Limits): Promise<ServiceAnswer | undefined>
}

export type ServiceOptions = {
  readonly cloud: Cloud
  readonly name: ServiceName
  readonly type: ServiceType
  readonly http: Http
  readonly tokens: Tokens
}

export function createService(options: ServiceOptions): Service {
  const { cloud, name, http, tokens } = options

  /** @param sentWith told the token that the request went with, which may be newer than `token` if it waited long */
  const send = (
    call: ServiceCall,
    token: Token,
    limits: Limits,
    sentWith: (token: Token) => void,
  ): Promise<HttpOutcome> => {
    const url = urlOf(options, call, token)
    return http.request(
      {
        operation: operationOf(name, call),
        method: call.method,
        url,
        headers() {
          const newest = tokens.held() ?? token
          sentWith(newest)
          return {
            accept: 'application/json',
            'x-auth-token': newest.id.reveal(),
            ...(call.body === undefined ? {} : { 'content-type': 'application/json' }),
            ...call.headers,
          }
        },
        body: call.body === undefined ? undefined : JSON.stringify(call.body),
        repeat: call.repeat ?? false,
        look: call.look,
        isFinal: call.isFinal,
      },
      limits,
    )
  }

  const call = async (call: ServiceCall, limits: Limits): Promise<ServiceAnswer | undefined> => {
    let token = await tokens.current(limits)
    const context = (uncertain: boolean): ErrorContext => ({
      service: name,
      action: call.action,
      redact: text => redact(text, [...secretsOf(cloud), token.id]),
      uncertain,
    })
    let earlierUncertain = false
    for (let loggedInAgain = false; ; loggedInAgain = true) {
      const outcome = await send(call, token, limits, newest => {
        token = newest
      }).catch((error: unknown) => {
        if (error instanceof HttpError) throw errorFromWire(error.cause, context(error.uncertain || earlierUncertain))
        throw error
      })
      earlierUncertain ||= outcome.uncertain
      const { answer } = outcome
      if (answer === undefined) return undefined
      if (answer.status === 401 && !loggedInAgain) {
        // Refused before anything was done, so any method may be sent again; a second refusal is an error.
        const refused = token
        token = await tokens.replace(refused, limits)
        if (token !== refused) continue
      }
      if (answer.status >= 300) throw errorFromAnswer(answer, context(earlierUncertain))
      return decode(answer, context(call.method !== 'GET'))
    }
  }

  const ask = async (each: Omit<ServiceCall, 'look'>, limits: Limits) => (await call(each, limits))!
  return {
    name,
    call,
    ask,
    async tryAsk(each, limits) {
      try {
        return await ask(each, limits)
      } catch (error) {
        if (isMissing(error)) return undefined
        throw error
      }
    },
  }
}

const kinds = { GET: 'read', POST: 'create', PUT: 'write', DELETE: 'delete' } as const

/** Paths alternate between what is meant and whose: `/servers/ID/os-interface/ID`. */
function operationOf(service: ServiceName, { method, path }: ServiceCall): Operation {
  const parts = path.split('/').slice(1)
  return {
    service,
    name: `${method} ${parts.filter((_, index) => index % 2 === 0).join('/')}`,
    kind: kinds[method],
  }
}

function urlOf(options: ServiceOptions, call: ServiceCall, token: Token): URL {
  const endpoint = findEndpoint(options.cloud, token.catalog, options.type)
  if ('reason' in endpoint || !URL.canParse(endpoint.url))
    throw new OpenStackError({
      service: options.name,
      action: call.action,
      reason: 'reason' in endpoint ? endpoint.reason : `"${endpoint.url}" is not a URL`,
      status: 0,
      type: 'EndpointMissing',
      kind: 'permanent',
      remedy: endpointRemedy(options.cloud, options.type),
      effect: 'none',
    })
  const url = new URL(`${endpoint.url}${call.path}`)
  for (const [name, value] of call.query ?? []) url.searchParams.append(name, value)
  return url
}

/** With the keys as they are called where the cloud is described. */
const endpointRemedy = ({ source, name }: Cloud, type: ServiceOptions['type']) =>
  source === 'openstackConf'
    ? `check "region" and "interface" of "openstackConf", or name the address in "${type}Endpoint"`
    : `check "region_name" and "interface" of cloud "${name}", or name the address in "${type}_endpoint_override"`

function decode(answer: WireAnswer, context: ErrorContext): ServiceAnswer {
  const unexpected = (what: string) => unexpectedAnswer(answer, what, context)
  // Where there is nothing to say, Neutron writes nothing or `null`.
  const body = answer.body.trim() === '' ? {} : (tryParseJson(answer.body) ?? (answer.body === 'null' ? {} : undefined))
  if (!isObject(body)) throw unexpected('the answer is not a JSON object')
  return { body, headers: answer.headers, unexpected }
}
