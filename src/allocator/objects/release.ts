// SPDX-License-Identifier: Apache-2.0

import type { Journal } from '../journal.ts'
import { listOwners } from '../owners.ts'
import type { Owner } from '../port/plan.ts'
import type { CloudObject } from './object.ts'
import { findObjectPool, forgetObjectWantsOf } from './pool-store.ts'
import { disownObject, findObject, keepObject, listOwnedObjects, noteFlaw, retireObject } from './store.ts'

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
 * list that is older may not know it yet. Each attachment is released as a whole; others are served meanwhile.
 */
export async function releaseOtherObjects(
  journal: Journal,
  { kind, network, beforeMs }: { readonly kind: string; readonly network: string; readonly beforeMs: number },
  isValid: (owner: Owner) => boolean,
): Promise<CloudObject[]> {
  const released: CloudObject[] = []
  for await (const owners of listOwners(journal, 'object'))
    journal.transaction(() => {
      const stale = owners
        .map(each => ({ network, ...each }))
        .filter(owner => !isValid(owner))
        .flatMap(owner => listOwnedObjects(journal, owner))
        .filter(each => each.changedMs <= beforeMs && isOfKind(journal, each, kind))
      for (const { mark } of stale) disownObject(journal, mark)
      released.push(...stale)
    })
  return released
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
