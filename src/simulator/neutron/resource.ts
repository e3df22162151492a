// SPDX-License-Identifier: Apache-2.0

/** What all Neutron resources share: lists with filters, fields, order and pages; one row; revisions and `If-Match`. */
import { randomUUID } from 'node:crypto'
import { type Answer, type Call, caller, isAdmin } from '../call.ts'
import { badRequest, Fault } from '../fault.ts'
import { type CollectionName, list, type Rows, timestamp } from '../state.ts'

type View = Readonly<Record<string, unknown>>

/** One kind of resource. */
export type Kind<Name extends CollectionName> = {
  readonly rows: Name
  /** As in the URL, and the key of a list: `ports`. */
  readonly collection: string
  /** The key of one: `port`. */
  readonly member: string
  readonly notFound: (id: string) => Fault
  /** What the caller may see of a row. */
  readonly view: (call: Call, row: Rows[Name]) => View
  /** False hides the row from the caller; by default everything of other projects is hidden. */
  readonly visible?: (call: Call, row: Rows[Name]) => boolean
  /** Attributes that may be filtered for beside those in the view. */
  readonly filters?: Readonly<Record<string, (view: View, values: readonly string[]) => boolean>>
  /** Attributes of the view that may not be filtered for. */
  readonly unfilterable?: readonly string[]
}

/** The row, or the kind's 404; what the caller may not see does not exist. */
export function get<Name extends CollectionName>(call: Call, kind: Kind<Name>, id: string): Rows[Name] {
  const row = list(call.state, kind.rows, call.asOfMs).find(candidate => candidate.id === id)
  if (row === undefined || !isVisible(call, kind, row)) throw kind.notFound(id)
  return row
}

function isVisible<Name extends CollectionName>(call: Call, kind: Kind<Name>, row: Rows[Name]): boolean {
  if (isAdmin(call)) return true
  if (kind.visible !== undefined) return kind.visible(call, row)
  return isOwn(call, row)
}

export const isOwn = (call: Call, row: object): boolean =>
  (row as { project_id?: string }).project_id === caller(call).projectId

/** `GET /v2.0/<collection>/<id>`. */
export function show<Name extends CollectionName>(kind: Kind<Name>): (call: Call) => Answer {
  return call => {
    const row = get(call, kind, call.parameters['id'] ?? '')
    return { status: 200, body: { [kind.member]: pick(kind.view(call, row), call.query.getAll('fields')) } }
  }
}

/** `GET /v2.0/<collection>`. */
export function index<Name extends CollectionName>(kind: Kind<Name>): (call: Call) => Answer {
  return call => {
    const views = list(call.state, kind.rows, call.asOfMs)
      .filter(row => isVisible(call, kind, row))
      .map(row => kind.view(call, row))
    const found = views.filter(matcher(call, kind))
    const ordered = order(call, found)
    const page = paginate(call, kind, ordered)
    const fields = call.query.getAll('fields')
    return {
      status: 200,
      body: {
        [kind.collection]: page.rows.map(row => pick(row, fields)),
        ...(page.links && { [`${kind.collection}_links`]: page.links }),
      },
    }
  }
}

function pick(view: View, fields: readonly string[]): View {
  const wanted = fields.filter(field => field !== '')
  if (wanted.length === 0) return view
  const known = Object.entries(view).filter(([name]) => wanted.includes(name))
  return Object.fromEntries(known)
}

const listParameters = ['fields', 'limit', 'marker', 'page_reverse', 'sort_key', 'sort_dir']
const tagFilters: Readonly<Record<string, (has: (tag: string) => boolean, tags: readonly string[]) => boolean>> = {
  tags: (has, tags) => tags.every(has),
  'tags-any': (has, tags) => tags.some(has),
  'not-tags': (has, tags) => !tags.every(has),
  'not-tags-any': (has, tags) => !tags.some(has),
}

/** The filters of the query as one predicate: values of one name are alternatives, names add up. */
function matcher<Name extends CollectionName>(call: Call, kind: Kind<Name>): (view: View) => boolean {
  const names = [...new Set(call.query.keys())].filter(name => !listParameters.includes(name))
  const known = new Set(Object.keys(sampleView(call, kind)))
  const unknown = names.filter(
    name =>
      kind.unfilterable?.includes(name) === true ||
      !(known.has(name) || kind.filters?.[name] !== undefined || tagFilters[name] !== undefined),
  )
  if (unknown.length > 0) {
    throw badRequest(`[${unknown.map(name => `'${name}'`).join(', ')}] is invalid attribute for filtering`)
  }
  const checks = names.map(name => {
    const values = call.query.getAll(name)
    const special = kind.filters?.[name]
    if (special !== undefined) return (view: View) => special(view, values)
    const tagFilter = tagFilters[name]
    if (tagFilter !== undefined) {
      const tags = values.flatMap(value => value.split(','))
      return (view: View) => tagFilter(tag => (view['tags'] as readonly string[]).includes(tag), tags)
    }
    return plainFilter(name, values)
  })
  return view => checks.every(check => check(view))
}

function plainFilter(name: string, values: readonly string[]): (view: View) => boolean {
  return view => {
    const actual = view[name]
    if (typeof actual === 'boolean') return values.some(value => toBoolean(value) === actual)
    if (Array.isArray(actual)) return values.some(value => actual.includes(value))
    const text = actual === null || actual === undefined ? '' : String(actual)
    return values.some(value => value.toLowerCase() === text.toLowerCase())
  }
}

function toBoolean(value: string): boolean {
  if (/^(true|1|on|yes)$/i.test(value)) return true
  if (/^(false|0|off|no)$/i.test(value)) return false
  throw new Fault(400, 'InvalidInput', `Invalid input for operation: '${value}' cannot be converted to boolean.`)
}

/** The attributes of the kind; an empty cloud has none to show, and then nothing matches anyway. */
function sampleView<Name extends CollectionName>(call: Call, kind: Kind<Name>): View {
  const [row] = list(call.state, kind.rows)
  return row === undefined ? Object.fromEntries(call.query.keys().map(name => [name, ''])) : kind.view(call, row)
}

function order(call: Call, rows: readonly View[]): View[] {
  const keys = call.query.getAll('sort_key')
  const directions = call.query.getAll('sort_dir')
  const wrong = directions.filter(direction => direction !== 'asc' && direction !== 'desc')
  if (wrong.length > 0) {
    throw badRequest(
      `[${wrong.map(value => `'${value}'`).join(', ')}] is invalid value for sort_dirs, valid value is 'asc' and 'desc'`,
    )
  }
  const unknown = keys.filter(key => rows.length > 0 && rows[0]![key] === undefined)
  if (unknown.length > 0) {
    throw badRequest(`[${unknown.map(key => `'${key}'`).join(', ')}] is invalid attribute for sort_keys`)
  }
  const criteria = [...keys.map((key, at) => [key, directions[at] === 'desc' ? -1 : 1] as const), ['id', 1] as const]
  return rows.toSorted((a, b) => {
    for (const [key, sign] of criteria) {
      const left = String(a[key] ?? '')
      const right = String(b[key] ?? '')
      if (left !== right) return left < right ? -sign : sign
    }
    return 0
  })
}

type Page = { readonly rows: readonly View[]; readonly links?: readonly { rel: string; href: string }[] }

/** A page by `limit` and `marker`. `next` is there whenever the page is full, also if nothing follows. */
function paginate<Name extends CollectionName>(call: Call, kind: Kind<Name>, rows: readonly View[]): Page {
  const limitText = call.query.get('limit')
  if (limitText === null) return { rows }
  if (!/^\d+$/.test(limitText)) {
    throw new Fault(
      400,
      'BadRequest',
      `Bad limit request: Limit must be an integer 0 or greater and not '${limitText}'.`,
    )
  }
  const limit = Number(limitText)
  if (limit === 0) return { rows }
  const marker = call.query.get('marker')
  const at = marker === null ? undefined : rows.findIndex(row => row['id'] === marker)
  if (marker !== null && at === -1) throw kind.notFound(marker)
  const reverse = toBoolean(call.query.get('page_reverse') ?? 'false')
  const end = at ?? rows.length
  const page = reverse
    ? rows.slice(Math.max(0, end - limit), end)
    : rows.slice(at === undefined ? 0 : at + 1).slice(0, limit)
  const links: { rel: string; href: string }[] = []
  if (page.length === limit || reverse) links.push({ rel: 'next', href: pageHref(call, page.at(-1)?.['id'], false) })
  links.push({ rel: 'previous', href: pageHref(call, page[0]?.['id'], true) })
  return { rows: page, links }
}

function pageHref(call: Call, marker: unknown, reverse: boolean): string {
  const query = new URLSearchParams([...call.query].filter(([name]) => name !== 'marker' && name !== 'page_reverse'))
  if (marker !== undefined) query.append('marker', String(marker))
  if (reverse) query.append('page_reverse', 'True')
  return `${call.origin}/${call.path.join('/')}?${query}`
}

/** The standard attributes of a new row. */
export function newRow(call: Call, values: View, revision: number) {
  const now = timestamp()
  const owner = isAdmin(call) ? (values['project_id'] ?? values['tenant_id']) : undefined
  return {
    id: randomUUID() as string,
    project_id: typeof owner === 'string' ? owner : (caller(call).projectId ?? ''),
    name: String(values['name'] ?? ''),
    description: String(values['description'] ?? ''),
    // Tags in a POST are accepted and dropped: recorded so.
    tags: [] as readonly string[],
    created_at: now,
    updated_at: now,
    revision_number: revision,
  }
}

/** The row with a higher revision and a new time. */
export function bump<Row extends { readonly revision_number: number; readonly updated_at: string }>(
  row: Row,
  by = 1,
): Row {
  return { ...row, revision_number: row.revision_number + by, updated_at: timestamp() }
}

/**
 * Refuses when the caller's `If-Match: revision_number=N` does not name the row's revision. Anything else in that header
 * is ignored. This is checked once, against what the request read: requests that overlap all pass.
 */
export function checkIfMatch(call: Call, row: { readonly revision_number: number }): void {
  const header = call.headers['if-match']
  const wanted = typeof header === 'string' ? /^"?revision_number=(.*?)"?$/.exec(header)?.[1] : undefined
  if (wanted === undefined) return
  if (!/^\d+$/.test(wanted)) {
    throw new Fault(
      400,
      'BadRequest',
      'Bad if-match request: Revision number etag must be in the format of revision_number=<int>.',
    )
  }
  if (Number(wanted) === row.revision_number) return
  throw new Fault(
    412,
    'RevisionNumberConstraintFailed',
    `Constrained to ${wanted}, but current revision is ${row.revision_number}`,
  )
}

/** The standard attributes as Neutron shows them. */
export const standardView = (row: {
  readonly id: string
  readonly project_id: string
  readonly description: string
  readonly tags: readonly string[]
  readonly created_at: string
  readonly updated_at: string
  readonly revision_number: number
}) => ({
  id: row.id,
  tenant_id: row.project_id,
  project_id: row.project_id,
  description: row.description,
  tags: [...row.tags].sort(),
  created_at: row.created_at,
  updated_at: row.updated_at,
  revision_number: row.revision_number,
})
