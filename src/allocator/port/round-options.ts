// SPDX-License-Identifier: Apache-2.0

import type { FloatingIps, Health, Ports } from '#openstack'
import type { Journal } from '../journal.ts'
import type { PortCover } from './cover.ts'
import type { Limits } from './lock.ts'
import type { Names, NamesNeutron } from './names.ts'
import type { Known } from './plan.ts'
import type { PortSettings } from './port-store.ts'
import { listWants } from './want-store.ts'

/** What a round needs of Neutron. */
export type PortNeutron = NamesNeutron & {
  readonly ports: Pick<Ports, 'get' | 'update'>
  readonly floatingIps: Pick<FloatingIps, 'list' | 'disassociate'>
  /** What may be asked of it at the moment; left out, anything. */
  readonly health?: (() => Health) | undefined
}

export type RoundOptions = {
  readonly journal: Journal
  readonly neutron: PortNeutron
  readonly portId: string
  readonly bootId: string
  readonly access: string
  readonly settings: PortSettings
  readonly limits: Limits
  /** False for a while after a refill failed for want of addresses. */
  readonly refill: boolean
  /** False while what is left over after a surge is kept. */
  readonly shrink: boolean
  /** Chooses new addresses; the cover does, where there is one. */
  readonly names: Names
  /** What addresses need elsewhere; undefined where they work by being on the port. */
  readonly cover?: PortCover | undefined
  /** Addresses that we have removed a moment ago: one that comes back was in a list that somebody had read before. */
  readonly echo?: { note(addresses: readonly string[]): void; has(address: string): boolean } | undefined
  /** Addresses that something on this node has. */
  readonly inUse?: ((address: string) => boolean) | undefined
  /** Told whenever attachments were given addresses. */
  readonly onAssigned?: (() => void) | undefined
  /** Told at once where somebody wrote between our look and our write, and what it was is not on the port: it may be undone. */
  readonly onOverlap?: (() => void) | undefined
  /** True when the round has done what its caller came for; the rest is left to others. */
  readonly enough?: (() => boolean) | undefined
  /** Told before each step that changes journal or cloud; tests stop the world there. */
  readonly step?: ((name: RoundStep) => void) | undefined
}

export type RoundStep =
  | 'get'
  | 'disassociate'
  | 'compare'
  | 'intent'
  | 'put'
  | 'answer'
  | 'record'
  | 'remove-intent'
  | 'remove-put'
  | 'remove-record'

export type RoundReport = {
  /** Addresses that attachments hold, that the port does not have, and that could not be put back. */
  lost: Known[]
  /** The same, put back. */
  repaired: string[]
  /** Addresses that we had removed, that somebody's older list has brought back, and that are on their way out again. */
  returned: string[]
  /** Addresses put into quarantine in this round. */
  strange: string[]
  /** Why somebody was not served, by the want's id. */
  readonly unserved: Map<number, Error>
  /** Why the reserve could not be filled; undefined if it could. */
  refillFailed: Error | undefined
  /** True if something was written: an overlapping write of somebody else shows itself a moment later. */
  wrote: boolean
  /** True if something is left over after a surge and kept for the moment. */
  hasSurplus: boolean
  /** Milliseconds until what was released may be removed: Neutron fails often, and a delete can wait. 0: nothing waits for that. */
  removeInMs: number
}

/** The limits of a call, with what it is for: the most urgent thing that the round may do. */
export function limitsOf({ journal, portId, refill, settings, limits }: RoundOptions): Limits {
  if (listWants(journal, portId).length > 0) return { ...limits, purpose: 'pod' }
  return { ...limits, purpose: refill && settings.reserve > 0 ? 'refill' : 'reclaim' }
}

/** False while Neutron fails often: a removal can wait. */
export const mayRemove = ({ neutron }: RoundOptions) => (neutron.health?.().level ?? 'normal') === 'normal'
