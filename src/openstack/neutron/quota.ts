// SPDX-License-Identifier: Apache-2.0
import { isObject } from '../json.ts'
import type { Limits } from '../limits.ts'
import type { Service } from '../service.ts'

/** How much of one kind of object a project may have, and has. */
export type QuotaDetail = {
  /** -1: no limit. */
  readonly limit: number
  readonly used: number
  readonly reserved: number
}

export type Quotas = {
  /** Limits by resource (`port`, `floatingip`, `router`, `router_route` in newer releases); -1 is no limit. */
  get(projectId: string, limits: Limits): Promise<Readonly<Record<string, number>>>
  /** Limits and use by resource. */
  details(projectId: string, limits: Limits): Promise<Readonly<Record<string, QuotaDetail>>>
  /** Needs an administrator. */
  set(projectId: string, quota: Readonly<Record<string, number>>, limits: Limits): Promise<void>
  /** Back to the defaults; needs an administrator. */
  reset(projectId: string, limits: Limits): Promise<void>
}

export function quotas(service: Service): Quotas {
  const path = (projectId: string) => `/quotas/${encodeURIComponent(projectId)}`

  const read = async (action: string, at: string, limits: Limits): Promise<Record<string, unknown>> => {
    const answer = await service.ask({ action, method: 'GET', path: at }, limits)
    const quota = answer.body['quota']
    if (!isObject(quota)) throw answer.unexpected('the answer has no "quota"')
    return quota
  }

  return {
    async get(projectId, limits) {
      const quota = await read(`get quota of project ${projectId}`, path(projectId), limits)
      return Object.fromEntries(
        Object.entries(quota).filter((entry): entry is [string, number] => typeof entry[1] === 'number'),
      )
    },
    async details(projectId, limits) {
      const quota = await read(`get use of quota of project ${projectId}`, `${path(projectId)}/details.json`, limits)
      return Object.fromEntries(
        Object.entries(quota).filter((entry): entry is [string, QuotaDetail] => isDetail(entry[1])),
      )
    },
    async set(projectId, quota, limits) {
      const call = { action: `set quota of project ${projectId}`, method: 'PUT', path: path(projectId) } as const
      await service.ask({ ...call, body: { quota }, repeat: true }, limits)
    },
    async reset(projectId, limits) {
      const call = { action: `reset quota of project ${projectId}`, method: 'DELETE', path: path(projectId) } as const
      // 404: the project has the defaults already.
      await service.tryAsk({ ...call, repeat: true }, limits)
    },
  }
}

const isDetail = (value: unknown): value is QuotaDetail =>
  isObject(value) && ['limit', 'used', 'reserved'].every(key => typeof value[key] === 'number')
