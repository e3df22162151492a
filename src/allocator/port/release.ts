// SPDX-License-Identifier: Apache-2.0

import type { Journal } from '../journal.ts'
import { listOwners } from '../owners.ts'
import type { Owner, PortAddress } from './plan.ts'
import { disownAddress, findPortAddress, listOwnedAddresses } from './store.ts'
import { forgetWantsOf } from './want-store.ts'

/**
 * Records that an attachment has no address any more, and no wish for one. The cloud is told later.
 * @returns the addresses that it had.
 */
export function releaseOwner(journal: Journal, owner: Owner): PortAddress[] {
  return journal.transaction(() => {
    const held = listOwnedAddresses(journal, owner)
    forgetWantsOf(journal, owner)
    for (const each of held) disownAddress(journal, each, 'releasing', 0)
    return held
  })
}

/**
 * The same for every attachment of a network that `isValid` does not know. What was assigned after `beforeMs` stays: a
 * list that is older may not know it yet. Each attachment is released as a whole; others are served meanwhile.
 * @returns the addresses that they had.
 */
export async function releaseOthers(
  journal: Journal,
  network: string,
  isValid: (owner: Owner) => boolean,
  beforeMs: number,
): Promise<PortAddress[]> {
  const released: PortAddress[] = []
  for await (const owners of listOwners(journal, 'port_address'))
    journal.transaction(() => {
      const stale = owners
        .map(each => ({ network, ...each }))
        .filter(owner => !isValid(owner))
        .flatMap(owner => listOwnedAddresses(journal, owner))
        .filter(each => each.changedMs <= beforeMs)
      for (const each of stale) disownAddress(journal, each, 'releasing', 0)
      released.push(...stale)
    })
  return released
}

/** True once an address is off its port, or kept for others. */
export const isReleased = (journal: Journal, { portId, address }: PortAddress): boolean =>
  findPortAddress(journal, portId, address)?.state !== 'releasing'

/**
 * An operator says that an address in quarantine is ours and nobody's: it joins the pool after its cool-down.
 * @returns false where there is no such address in quarantine.
 */
export const adoptAddress = (
  journal: Journal,
  which: { readonly portId: string; readonly address: string; readonly coolDownMs: number },
): boolean => leaveQuarantine(journal, which, 'free', Date.now() + which.coolDownMs)

/**
 * An operator says that an address in quarantine is to be removed from its port: the next round does it.
 * @returns false where there is no such address in quarantine.
 */
export const releaseAddress = (
  journal: Journal,
  which: { readonly portId: string; readonly address: string },
): boolean => leaveQuarantine(journal, which, 'releasing', 0)

function leaveQuarantine(
  journal: Journal,
  { portId, address }: { readonly portId: string; readonly address: string },
  state: 'free' | 'releasing',
  usableMs: number,
): boolean {
  return journal.transaction(() => {
    if (findPortAddress(journal, portId, address)?.state !== 'quarantined') return false
    disownAddress(journal, { portId, address }, state, usableMs)
    return true
  })
}
