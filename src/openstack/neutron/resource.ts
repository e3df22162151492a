// SPDX-License-Identifier: Apache-2.0
import { isMissing } from '../error.ts'
import { isObject, type Json } from '../json.ts'
import type { Limits } from '../limits.ts'
import type { Query, Service, ServiceAnswer } from '../service.ts'

/** How one kind of Neutron object is called and recognised. */
export type ResourceKind = {
  /** `port`: the key of one object in a body. */
  readonly singular: string
  /** `ports`: the key of a list. */
  readonly plural: string
  /** The path below `/v2.0`, where it is not the plural. */
  readonly path?: string | undefined
  /** What is wrong with an object that Neutron answered; undefined if nothing is. */
  readonly flaw?: ((object: Record<string, unknown>) => string | undefined) | undefined
}

export type CreateLimits<T> = Limits & {
  /**
   * Looks for the object after a try whose outcome is not known. With it a POST is repeated where it failed; without it
   * never, unless it certainly was not carried out.
   */
  readonly find?: ((limits: Limits) => Promise<T | undefined>) | undefined
}

export type WriteLimits = Limits & {
  /**
   * The write succeeds only if the object's `revision_number` is this (`If-Match`), else 412 (kind `conflict`). Neutron does
   * not hold this for writes that overlap: it is a second line behind a single writer. Take the number from a GET:
   * that in the answer of a PUT can be one behind.
   */
  readonly ifRevision?: number | undefined
  /** True: sent again after a failure. Only for a body that means the same twice (whole lists, whole values). */
  readonly repeat?: boolean | undefined
}

/** Objects that a list asks for at once; Neutron's own `pagination_max_limit` may be lower. */
const pageSize = 500
/** More ids than this in one URL and Neutron answers 414. */
const idsPerRequest = 100
const pagesMax = 10_000
const restartsMax = 3

const segment = (text: string) => encodeURIComponent(text)

/** Present on every full page, also on the last one, whatever limit of its own the server applied; absent on a short page. */
const hasNext = (links: unknown) => Array.isArray(links) && links.some(link => isObject(link) && link['rel'] === 'next')

/** GET, list, POST, PUT and DELETE of one kind of object. */
export function resource<T extends { readonly id: string }>(service: Service, kind: ResourceKind) {
  const path = `/${kind.path ?? kind.plural}`

  const one = (answer: ServiceAnswer): T => decodeOne<T>(answer, kind)

  const page = async (query: Query, limits: Limits): Promise<{ objects: T[]; more: boolean }> => {
    const answer = await service.ask({ action: `list ${kind.plural}`, method: 'GET', path, query }, limits)
    const objects = decodeMany<T>(answer, kind)
    return { objects, more: objects.length >= pageSize || hasNext(answer.body[`${kind.plural}_links`]) }
  }

  const allPages = async (query: Query, limits: Limits): Promise<T[]> => {
    const found = new Map<string, T>()
    let next: Query = []
    for (let pages = 0; pages < pagesMax; pages++) {
      const { objects, more } = await page([...query, ['limit', String(pageSize)], ...next], limits)
      for (const object of objects) found.set(object.id, object)
      const last = objects.at(-1)
      if (last === undefined || !more) return [...found.values()]
      // Our own marker, not the link's address: Neutron builds that from the request's Host, which a proxy may have changed.
      next = [['marker', last.id]]
    }
    throw new RangeError(`Cannot list ${kind.plural}: more than ${pagesMax} pages`)
  }

  const listOnce = async (query: Query, limits: Limits): Promise<T[]> => {
    for (let restarts = 0; ; restarts++) {
      try {
        return await allPages(query, limits)
      } catch (error) {
        // The object that the next page starts after was deleted meanwhile.
        if (!isMissing(error) || restarts >= restartsMax) throw error
      }
    }
  }

  return {
    /** Undefined if there is none. */
    async get(id: string, limits: Limits): Promise<T | undefined> {
      const call = { action: `get ${kind.singular} ${id}`, method: 'GET', path: `${path}/${segment(id)}` } as const
      const answer = await service.tryAsk(call, limits)
      return answer === undefined ? undefined : one(answer)
    },

    /** All that match, page by page. */
    async list(query: Query, limits: Limits): Promise<T[]> {
      const ids = query.filter(([name]) => name === 'id')
      if (ids.length <= idsPerRequest) return listOnce(query, limits)
      const rest = query.filter(([name]) => name !== 'id')
      const found: T[] = []
      for (let start = 0; start < ids.length; start += idsPerRequest)
        found.push(...(await listOnce([...rest, ...ids.slice(start, start + idsPerRequest)], limits)))
      return found
    },

    async create(action: string, body: Json, limits: CreateLimits<T>): Promise<T> {
      let found: T | undefined
      const { find } = limits
      const look =
        find === undefined
          ? undefined
          : async () => {
              found = await find(limits)
              return found !== undefined
            }
      const answer = await service.call({ action, method: 'POST', path, body: { [kind.singular]: body }, look }, limits)
      return answer === undefined ? found! : one(answer)
    },

    /** All or nothing: one request, one transaction. */
    async createMany(action: string, bodies: readonly Json[], limits: Limits): Promise<T[]> {
      if (bodies.length === 0) return []
      const answer = await service.ask({ action, method: 'POST', path, body: { [kind.plural]: bodies } }, limits)
      const objects = decodeMany<T>(answer, kind)
      if (objects.length !== bodies.length)
        throw answer.unexpected(`${objects.length} ${kind.plural} were made, ${bodies.length} were asked for`)
      return objects
    },

    async update(action: string, id: string, body: Json, limits: WriteLimits): Promise<T> {
      const answer = await service.ask(
        {
          action,
          method: 'PUT',
          path: `${path}/${segment(id)}`,
          body: { [kind.singular]: body },
          headers: ifMatch(limits.ifRevision),
          repeat: limits.repeat,
        },
        limits,
      )
      return one(answer)
    },

    /** PUT of an action below the object, such as `add_extraroutes`. */
    async act(action: string, id: string, verb: string, body: Json, limits: WriteLimits): Promise<ServiceAnswer> {
      return service.ask(
        {
          action,
          method: 'PUT',
          path: `${path}/${segment(id)}/${verb}`,
          body,
          headers: ifMatch(limits.ifRevision),
          repeat: limits.repeat,
        },
        limits,
      )
    },

    /** False if there was none. Sent again after a failure: the second answer is then 404, which is success too. */
    async delete(action: string, id: string, limits: WriteLimits): Promise<boolean> {
      const call = { method: 'DELETE', path: `${path}/${segment(id)}`, headers: ifMatch(limits.ifRevision) } as const
      return (await service.tryAsk({ ...call, action, repeat: true }, limits)) !== undefined
    },

    one,
  }
}

// Neutron takes exactly this form, without quotes, and ignores any other silently.
const ifMatch = (revision: number | undefined) =>
  revision === undefined ? undefined : { 'if-match': `revision_number=${revision}` }

function decodeOne<T>(answer: ServiceAnswer, kind: ResourceKind): T {
  const object = answer.body[kind.singular]
  const flaw = flawOf(object, kind)
  if (flaw !== undefined) throw answer.unexpected(flaw)
  return object as T
}

function decodeMany<T>(answer: ServiceAnswer, kind: ResourceKind): T[] {
  const list = answer.body[kind.plural]
  // A missing list is not an empty one: somebody might delete what is "not there any more".
  if (!Array.isArray(list)) throw answer.unexpected(`the answer has no list "${kind.plural}"`)
  for (const object of list) {
    const flaw = flawOf(object, kind)
    if (flaw !== undefined) throw answer.unexpected(flaw)
  }
  return list as T[]
}

function flawOf(object: unknown, kind: ResourceKind): string | undefined {
  if (!isObject(object)) return `the answer has no "${kind.singular}"`
  if (typeof object['id'] !== 'string') return `a ${kind.singular} has no id`
  return kind.flaw?.(object)
}

/** A filter as Neutron takes it: `undefined` asks nothing, a list asks for any of them. */
export type FilterValue = string | number | boolean | readonly string[] | undefined

/** Turns filters into a query. */
export function queryOf(filters: Readonly<Record<string, FilterValue>>): Query {
  return Object.entries(filters).flatMap(([name, value]) => {
    if (value === undefined) return []
    const values = Array.isArray(value) ? (value as readonly string[]) : [String(value)]
    return values.map(each => [name, each] as const)
  })
}
