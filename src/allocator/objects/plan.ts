// SPDX-License-Identifier: Apache-2.0

// What follows from the objects that the cloud shows, from those that the journal knows, and from who waits. Pure.

import type { CloudObject, MadeObject, ObjectSettings, ObjectWant } from './object.ts'

/** A request that has not shown its effect by then was never carried out: no proxy holds one that long. */
export const INTENT_MS = 180_000
/** An object that the cloud does not show for so long, at two looks at least, is taken for gone. */
const MISSING_MS = 60_000

export type ObjectComparison = {
  /** Objects that a creation of ours made whose answer was not seen. */
  readonly found: readonly MadeObject[]
  /** Objects with a mark of this pool that no intent explains. */
  readonly strange: readonly MadeObject[]
  /** Objects that are nobody's and cannot be used, with the reason; or can again (empty). */
  readonly flawed: readonly { readonly mark: string; readonly flaw: string }[]
  /** Objects that are not shown for the first time; and those that are shown again. */
  readonly missing: readonly CloudObject[]
  readonly back: readonly CloudObject[]
  /** Objects that attachments hold and the cloud does not show. */
  readonly lost: readonly CloudObject[]
  /** Records of what is not in the cloud, and of what was never made. */
  readonly forget: readonly CloudObject[]
  /** What was begun and never finished; and what is nobody's and probably gone: its removal does no harm in either case. */
  readonly retire: readonly CloudObject[]
}

/** @param poolDigits the first digits of the marks of this pool */
export function compareObjects(
  shown: readonly MadeObject[],
  known: readonly CloudObject[],
  { nowMs, poolDigits }: { nowMs: number; poolDigits: string },
): ObjectComparison {
  const making = new Set(known.filter(each => each.state === 'making').map(each => each.mark))
  const ids = new Set(known.map(each => each.id))
  const byId = new Map(shown.map(each => [each.id, each]))
  const found = shown.filter(each => making.has(each.mark) && !ids.has(each.id))
  const parts = new Set(shown.filter(each => each.isPart).flatMap(each => [each.id, each.mark]))
  const foundMarks = new Set(found.map(each => each.mark))
  const absent = known.filter(each => !byId.has(each.id) && !foundMarks.has(each.mark))
  const old = absent.filter(({ missingMs }) => missingMs > 0 && nowMs - missingMs >= MISSING_MS)
  // An empty list destroys nothing: it is what a wrong filter, project or database shows.
  const gone = shown.length === 0 ? [] : old
  return {
    found,
    strange: shown.filter(each => each.mark.startsWith(poolDigits) && !ids.has(each.id) && !making.has(each.mark)),
    flawed: known.flatMap(({ id, mark, state }) => {
      const seen = byId.get(id)
      if (state === 'free' && seen?.flaw !== undefined) return [{ mark, flaw: seen.flaw }]
      return state === 'quarantined' && seen?.isIdle && seen.flaw === undefined ? [{ mark, flaw: '' }] : []
    }),
    missing: absent.filter(each => each.state !== 'making' && each.missingMs === 0),
    back: known.filter(each => each.missingMs > 0 && byId.has(each.id)),
    lost: absent.filter(each => each.state === 'assigned'),
    forget: [
      ...absent.filter(each => each.state === 'making' && nowMs - each.changedMs > INTENT_MS),
      ...gone.filter(each => each.state === 'quarantined'),
    ],
    retire: [
      ...gone.filter(each => each.state === 'free'),
      ...known.filter(each => each.state !== 'assigned' && (parts.has(each.id) || parts.has(each.mark))),
    ],
  }
}

export type ObjectFacts = {
  /** The objects that no attachment holds, but for those in quarantine. */
  readonly loose: readonly CloudObject[]
  /** All objects of the pool. */
  readonly count: number
  readonly wants: readonly ObjectWant[]
  readonly settings: Pick<ObjectSettings, 'reserve' | 'max' | 'usableAfterMs' | 'coolDownMs' | 'idleMs'>
  /** True where the process stays, so that an idle object is removed some day. */
  readonly keepsIdle: boolean
  /** True while the cloud has no room for another. */
  readonly isExhausted: boolean
  /** False for a while after a refill failed. */
  readonly refill: boolean
  readonly nowMs: number
}

export type ObjectPlan = {
  readonly assign: readonly { readonly want: ObjectWant; readonly object: CloudObject }[]
  /** Released objects that stay, with the end of their cool-down. */
  readonly keep: readonly { readonly object: CloudObject; readonly usableMs: number }[]
  readonly retire: readonly CloudObject[]
  /** Attachments for which one is to be made, and how many for the reserve. */
  readonly serve: readonly ObjectWant[]
  readonly refill: number
  /** What waiting attachments get as soon as it was cleaned. */
  readonly clean: readonly CloudObject[]
  /** Attachments for which there is none. */
  readonly refused: readonly ObjectWant[]
  /** When the next idle object is due (ms since 1970), undefined if none will be. */
  readonly idleAtMs: number | undefined
}

/** Whom to serve, what to keep, to make and to remove. */
export function planObjects(facts: ObjectFacts): ObjectPlan {
  const { settings, nowMs } = facts
  const room = facts.isExhausted ? 0 : Math.max(0, settings.max - facts.count)
  const free = facts.loose.filter(each => each.state === 'free' && each.missingMs === 0)
  const ready = free.filter(each => each.described === '').sort((a, b) => a.usableMs - b.usableMs)
  const assign: { want: ObjectWant; object: CloudObject }[] = []
  const open: ObjectWant[] = []
  for (const want of facts.wants) {
    // Where no other can be made, one is better after the rest of its cool-down than never.
    const at = ready.findIndex(
      each =>
        each.special === want.special &&
        (room === 0 || want.special !== '' || each.usableMs <= nowMs + settings.usableAfterMs),
    )
    if (at < 0) open.push(want)
    else assign.push({ want, object: ready.splice(at, 1)[0]! })
  }

  const dirty = free.filter(each => each.described !== '')
  const keep: { object: CloudObject; usableMs: number }[] = []
  const retire: CloudObject[] = []
  for (const object of facts.loose.filter(each => each.state === 'releasing')) {
    const isWanted = open.some(want => want.special === object.special)
    // Who asks for an address by name may have it at once: nobody else could be meant.
    if (object.special !== '' && isWanted) keep.push({ object, usableMs: 0 })
    else if (object.special === '' && (facts.keepsIdle || (isWanted && room === 0)))
      keep.push({ object, usableMs: object.changedMs + settings.coolDownMs })
    else retire.push(object)
  }

  const soonMs = nowMs + settings.usableAfterMs
  const prospects = [...dirty.map(object => ({ object, usableMs: object.usableMs })), ...keep]
  const toClean: CloudObject[] = []
  const serve: ObjectWant[] = []
  const refused: ObjectWant[] = []
  for (const want of open) {
    const isFit = (each: { object: CloudObject; usableMs: number }) =>
      each.object.special === want.special && (want.special !== '' || room === 0 || each.usableMs <= soonMs)
    const at = prospects.findIndex(isFit)
    if (at >= 0) toClean.push(prospects.splice(at, 1)[0]!.object)
    else if (serve.length < room) serve.push(want)
    else refused.push(want)
  }
  const rest = prospects.map(each => each.object)

  const idle = [...ready, ...rest].filter(each => each.special === '')
  const short = settings.reserve - idle.length
  const refill = facts.refill && refused.length === 0 ? Math.max(0, Math.min(short, room - serve.length)) : 0
  // What is kept in this round begins to be idle now.
  const idleSince = ({ state, changedMs }: CloudObject) => (state === 'free' ? changedMs : nowMs)
  const surplus = idle
    .sort((a, b) => idleSince(a) - idleSince(b))
    .slice(0, Math.max(0, -short))
    .map(object => ({ object, dueMs: idleSince(object) + jitter(object.mark) * settings.idleMs }))
  const isDue = ({ object, dueMs }: (typeof surplus)[number]) =>
    object.state === 'free' && (!facts.keepsIdle || dueMs <= nowMs)
  const nobodys = [...ready, ...rest].filter(each => each.special !== '' && each.state === 'free')
  retire.push(...surplus.filter(isDue).map(each => each.object), ...nobodys)
  const due = surplus.filter(each => !retire.includes(each.object)).map(each => each.dueMs)
  return {
    assign,
    keep,
    retire,
    serve,
    refill,
    clean: toClean,
    refused,
    idleAtMs: due.length === 0 ? undefined : Math.min(...due),
  }
}

/** 0.5 to 1.5, the same for an object at every look, so that nodes which were full together do not shrink together. */
const jitter = (mark: string): number => 0.5 + Number.parseInt(mark.slice(-4), 16) / 0xffff
