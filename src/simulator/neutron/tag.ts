// SPDX-License-Identifier: Apache-2.0

/** Tags, on every kind of resource that has them. A change of tags bumps the resource's revision. */
import { type Answer, asObject, type Call, type RouteTable } from '../call.ts'
import { Fault } from '../fault.ts'
import { list, put } from '../state.ts'
import { floatingIpKind } from './floatingip.ts'
import { networkKind } from './network.ts'
import { portKind } from './port.ts'
import { bump, isOwn } from './resource.ts'
import { routerKind } from './router.ts'
import { groupKind } from './securitygroup.ts'
import { subnetKind } from './subnet.ts'
import { trunkKind } from './trunk.ts'

const kinds = [networkKind, subnetKind, portKind, routerKind, floatingIpKind, groupKind, trunkKind] as const
type Tagged = (typeof kinds)[number]['rows']
type TaggedRow = { readonly id: string; readonly tags: readonly string[]; revision_number: number; updated_at: string }

function target(call: Call): { rows: Tagged; row: TaggedRow } {
  const { collection = '', id = '' } = call.parameters
  const kind = kinds.find(candidate => candidate.collection === collection.replaceAll('-', '_'))
  if (kind === undefined) throw new Fault(404, 'HTTPNotFound', 'The resource could not be found.')
  const row = list(call.state, kind.rows).find(candidate => candidate.id === id)
  if (row === undefined || (!isOwn(call, row) && call.token?.roles.includes('admin') !== true)) {
    throw new Fault(404, 'TagResourceNotFound', `Resource ${collection} ${id} could not be found.`)
  }
  return { rows: kind.rows, row }
}

const missing = (tag: string): Fault => new Fault(404, 'TagNotFound', `Tag ${tag} could not be found.`)

function store(call: Call, rows: Tagged, row: TaggedRow, tags: readonly string[]): void {
  put(call.state, rows, bump({ ...row, tags: [...new Set(tags)] }) as never)
}

function replaceTags(call: Call): Answer {
  const { rows, row } = target(call)
  const tags = asObject(call.body)?.['tags']
  if (tags === undefined) throw new Fault(400, 'InvalidInput', 'Invalid input for operation: Invalid tags body.')
  if (!Array.isArray(tags)) {
    throw new Fault(400, 'InvalidInput', `Invalid input for operation: '${String(tags)}' is not a list.`)
  }
  store(call, rows, row, tags.map(String))
  return { status: 200, body: { tags } }
}

function addTag(call: Call): Answer {
  const { rows, row } = target(call)
  store(call, rows, row, [...row.tags, call.parameters['tag'] ?? ''])
  return { status: 201, body: null }
}

function showTag(call: Call): Answer {
  const tag = call.parameters['tag'] ?? ''
  if (!target(call).row.tags.includes(tag)) throw missing(tag)
  return { status: 204 }
}

function removeTag(call: Call): Answer {
  const { rows, row } = target(call)
  const tag = call.parameters['tag'] ?? ''
  if (!row.tags.includes(tag)) throw missing(tag)
  store(
    call,
    rows,
    row,
    row.tags.filter(other => other !== tag),
  )
  return { status: 204 }
}

function removeTags(call: Call): Answer {
  const { rows, row } = target(call)
  store(call, rows, row, [])
  return { status: 204 }
}

export const tagRoutes: RouteTable = [
  ['GET', '/v2.0/:collection/:id/tags', call => ({ status: 200, body: { tags: [...target(call).row.tags].sort() } })],
  ['PUT', '/v2.0/:collection/:id/tags', replaceTags],
  ['DELETE', '/v2.0/:collection/:id/tags', removeTags],
  ['GET', '/v2.0/:collection/:id/tags/:tag', showTag],
  ['PUT', '/v2.0/:collection/:id/tags/:tag', addTag],
  ['DELETE', '/v2.0/:collection/:id/tags/:tag', removeTag],
]
