// SPDX-License-Identifier: Apache-2.0
import { OpenStackError } from '../error.ts'
import { isObject } from '../json.ts'
import type { Limits } from '../limits.ts'
import { queryOf } from '../neutron/resource.ts'
import type { Service } from '../service.ts'

/** The part of a server that matters here. */
export type Server = {
  readonly id: string
  readonly name: string
  readonly status: string
  readonly tenant_id?: string
  readonly metadata?: Readonly<Record<string, string>>
  readonly flavor?: { readonly id?: string }
}

export type Servers = {
  /** Undefined if there is none. */
  get(id: string, limits: Limits): Promise<Server | undefined>
  /** `name` is a regular expression to Nova; anchor it. */
  list(filter: { readonly name?: string; readonly status?: string }, limits: Limits): Promise<Server[]>
  /** What the operator wrote at a flavour, by key; empty where there is no such flavour, or this user may not read it. */
  flavorSpecs(flavorId: string, limits: Limits): Promise<Readonly<Record<string, string>>>
}

const pageSize = 500
const pagesMax = 1_000

export function servers(service: Service): Servers {
  return {
    async get(id, limits) {
      const path = `/servers/${encodeURIComponent(id)}`
      const answer = await service.tryAsk({ action: `get server ${id}`, method: 'GET', path }, limits)
      if (answer === undefined) return undefined
      const server = answer.body['server']
      if (!isServer(server)) throw answer.unexpected('the answer has no "server"')
      return server
    },
    async list(filter, limits) {
      const found = new Map<string, Server>()
      let marker: string | undefined
      for (let pages = 0; pages < pagesMax; pages++) {
        const query = queryOf({ ...filter, limit: pageSize, marker })
        const answer = await service.ask(
          { action: 'list servers', method: 'GET', path: '/servers/detail', query },
          limits,
        )
        const list = answer.body['servers']
        if (!Array.isArray(list) || !list.every(isServer)) throw answer.unexpected('the answer has no list "servers"')
        for (const server of list) found.set(server.id, server)
        marker = list.at(-1)?.id
        // Nova's own limit may be lower than ours, so only the link tells whether more follows.
        if (marker === undefined || !Array.isArray(answer.body['servers_links'])) return [...found.values()]
      }
      throw new RangeError(`Cannot list servers: more than ${pagesMax} pages`)
    },
    async flavorSpecs(flavorId, limits) {
      const path = `/flavors/${encodeURIComponent(flavorId)}/os-extra_specs`
      const action = `get the extra specs of flavor ${flavorId}`
      try {
        const answer = await service.tryAsk({ action, method: 'GET', path }, limits)
        const specs = answer?.body['extra_specs']
        if (!isObject(specs)) return {}
        return Object.fromEntries(
          Object.entries(specs).filter((entry): entry is [string, string] => typeof entry[1] === 'string'),
        )
      } catch (error) {
        if (error instanceof OpenStackError && error.status === 403) return {}
        throw error
      }
    },
  }
}

const isServer = (value: unknown): value is Server =>
  isObject(value) && typeof value['id'] === 'string' && typeof value['name'] === 'string'
