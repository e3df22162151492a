// SPDX-License-Identifier: Apache-2.0

import type { Journal } from '../journal.ts'
import type { Owner } from '../port/plan.ts'
import type { CloudObject } from './object.ts'
import { findObjectPool, forgetObjectWantsOf } from './pool-store.ts'
import {
  disownObject,
  findObject,
  keepObject,
  listAssignedObjects,
  listOwnedObjects,
  noteFlaw,
  retireObject,
} from './store.ts'

/**
 * Records that an attachment has no object any more, and no wish for one. The cloud is told later.
 * @returns the objects of that kind that it had.
 */
export function releaseObjectsOf(journal: Journal, kind: string, owner: Owner): CloudObject[] {
  return journal.transaction(() => {
    const held = listOwnedObjects(journal, owner).filter(each => isOfKind(journal, each, kind))
    forgetObjectWantsOf(journal, owner)
    for (const { mark } of held) disownObject(journal, mark)
    return held
  })
}

/**
 * The same for every attachment of a network that `isValid` does not know. What was assigned after `beforeMs` stays: a
 * list that is older may not know it yet.
 */
export function releaseOtherObjects(
  journal: Journal,
  which: { readonly kind: string; readonly network: string; readonly beforeMs: number },
  isValid: (owner: Owner) => boolean,
): CloudObject[] {
  return journal.transaction(() => {
    const stale = listAssignedObjects(journal, which.network).filter(
      each => each.changedMs <= which.beforeMs && !isValid(each.owner!) && isOfKind(journal, each, which.kind),
    )
    for (const { mark } of stale) disownObject(journal, mark)
    return stale
  })
}

const isOfKind = (journal: Journal, { pool }: CloudObject, kind: string) => findObjectPool(journal, pool)?.kind === kind

/** True once a released object is out of the cloud, or kept for others. */
export function isObjectReleased(journal: Journal, mark: string): boolean {
  const state = findObject(journal, mark)?.state
  return state !== 'releasing' && state !== 'removing'
}

/** Takes an object from its attachment that cannot use it, and keeps it from others until its driver lists it without a flaw. */
export const breakObject = (journal: Journal, mark: string, flaw: string): void =>
  journal.transaction(() => {
    disownObject(journal, mark)
    noteFlaw(journal, mark, flaw)
  })

/**
 * An operator says that an object in quarantine is ours and nobody's: it joins the pool after its cool-down, and after it was
 * cleaned.
 * @returns false where there is no such object in quarantine.
 */
export const adoptObject = (journal: Journal, which: { readonly mark: string; readonly coolDownMs: number }): boolean =>
  leaveQuarantine(journal, which.mark, () => {
    disownObject(journal, which.mark)
    keepObject(journal, which.mark, Date.now() + which.coolDownMs)
  })

/**
 * An operator says that an object in quarantine is to be removed from the cloud: the next round does it.
 * @returns false where there is no such object in quarantine.
 */
export const releaseObject = (journal: Journal, mark: string): boolean =>
  leaveQuarantine(journal, mark, () => retireObject(journal, mark))

function leaveQuarantine(journal: Journal, mark: string, leave: () => void): boolean {
  return journal.transaction(() => {
    if (findObject(journal, mark)?.state !== 'quarantined') return false
    leave()
    return true
  })
}
