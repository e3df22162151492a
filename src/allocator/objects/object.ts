// SPDX-License-Identifier: Apache-2.0

import type { Health } from '#openstack'
import type { Limits } from '../port/lock.ts'
import type { Owner } from '../port/plan.ts'

/**
 * `making`: about to be made, or made and the answer was lost. `free`: nobody's. `assigned`: an attachment's. `releasing`:
 * nobody's any more; kept for the next or removed, which is not decided yet. `removing`: on its way out of the cloud.
 * `quarantined`: in the cloud with our mark, and nobody can say why.
 */
export type ObjectState = 'making' | 'free' | 'assigned' | 'releasing' | 'removing' | 'quarantined'

/** One address of an object. */
export type ObjectAddress = { readonly subnetId: string; readonly address: string }

/** A lease that is a whole object of the cloud: a Neutron port, a NIC. The journal's record of it. */
export type CloudObject = {
  /** The pool it belongs to: the key that `openObjectPool` was given. */
  readonly pool: string
  /** Ours, unique, and part of the object's name in the cloud, so that it is found after a lost answer. */
  readonly mark: string
  /** The cloud's; empty while it is being made. */
  readonly id: string
  readonly state: ObjectState
  readonly owner: Owner | undefined
  /** The boot in which it was assigned: an attachment does not outlive it. */
  readonly bootId: string
  readonly addresses: readonly ObjectAddress[]
  readonly mac: string
  /** What else its driver wants to know of it (device, server). JSON, the driver's own. */
  readonly detail: string
  /** What one attachment asked for beyond the pool (an address, a MAC); JSON, empty for an object like any other. */
  readonly special: string
  /** From this moment (ms since 1970) it works, and its cool-down is over. */
  readonly usableMs: number
  /** Whose it is by the cloud's description, as `describedAs` writes it: nobody's if empty; `DIRTY` after a release. */
  readonly described: string
  /** Why it cannot be used, in the driver's words; empty for one that can. Such a one is in quarantine, unless somebody has it. */
  readonly flaw: string
  /** Since when (ms since 1970) the cloud does not show it; 0 while it does. */
  readonly missingMs: number
  readonly changedMs: number
}

/** An attachment that waits for an object. */
export type ObjectWant = {
  readonly id: number
  readonly pool: string
  readonly owner: Owner
  readonly special: string
  /** When its caller gives up (ms since 1970). */
  readonly expiresMs: number
}

/** One object to make. */
export type ObjectRequest = {
  readonly mark: string
  /** Who will have it, where that is known already; undefined for the reserve. */
  readonly owner: Owner | undefined
  readonly special: string
}

/** An object as the cloud shows it. */
export type MadeObject = {
  readonly id: string
  readonly mark: string
  readonly addresses: readonly ObjectAddress[]
  readonly mac: string
  readonly detail: string
  /** True where the driver sees on this node that nobody uses it: it may leave quarantine for the reserve. */
  readonly isIdle?: boolean | undefined
  /** Why it cannot be used although it is in the cloud, in words: it goes to quarantine, unless somebody has it. */
  readonly flaw?: string | undefined
  /** True for what was begun and never finished (a port that was not attached): it is removed, unless somebody has it. */
  readonly isPart?: boolean | undefined
}

/** How many more objects there is room for, as far as the cloud tells; and that in words, empty once objects were made since. */
export type Room = { readonly count: number; readonly text: string }

/** One kind of object in one cloud, for one pool. Every call may throw `OpenStackError`. */
export type ObjectDriver = {
  /** Objects that one call of `create` makes at most: 1 where the cloud makes them one by one. */
  readonly batchMax: number
  /** Objects that are removed or described at a time. */
  readonly parallel: number
  /** Makes all, or none and throws. Whatever it leaves after a lost answer, `list` finds by the marks. */
  create(requests: readonly ObjectRequest[], limits: Limits): Promise<readonly MadeObject[]>
  /** Every object in the cloud with a mark that this node made for this kind; those of other pools do no harm. @throws rather than give a part */
  list(limits: Limits): Promise<readonly MadeObject[]>
  /** Removes one; one that is gone is removed. */
  remove(object: Pick<CloudObject, 'id' | 'mark'>, limits: Limits): Promise<void>
  /** Writes into the cloud whose it is; in the background, after the attachment has it. */
  describe?(object: CloudObject, owner: Owner, limits: Limits): Promise<void>
  /** Takes from released objects what their last owner left on them (description, floating IPs), before anybody else gets them. */
  recycle?(objects: readonly CloudObject[], limits: Limits): Promise<void>
  /** Asked before several are made at once, because a creation that fails half-way may cost addresses. Undefined where nobody can tell. */
  room?(limits: Limits): Promise<Room | undefined>
}

/** What an operator chose for a pool. */
export type ObjectSettings = {
  /** What messages call the pool, without its key: `ports of network "pods"`. */
  readonly name: string
  /** Objects kept ahead of need. */
  readonly reserve: number
  /** Objects at most, whatever their state. */
  readonly max: number
  /** After the cloud's answer, until an object works. */
  readonly usableAfterMs: number
  /** After a release, until an object may be somebody else's. */
  readonly coolDownMs: number
  /** After its last use, until an object above the reserve is removed; half to one and a half times that, at random. */
  readonly idleMs: number
  /** Where the pool's lock lies. */
  readonly lockDirectory: string
}

/** A pool as the journal knows it. */
export type KnownPool = {
  readonly pool: string
  /** Which driver makes its objects: `separate`, `eni`. */
  readonly kind: string
  /** How its cloud is reached, without secrets; JSON of whoever made the session. */
  readonly access: string
  readonly settings: ObjectSettings
  /** What its driver needs to be made again after a restart. JSON, the driver's own. */
  readonly detail: string
  /** The boot in which cloud and journal were last compared. */
  readonly seenBootId: string
}

/** The objects of one pool: one writer, who serves all that is recorded. */
export type ObjectPool = {
  readonly pool: string
  /** A later call may bring other credentials or settings. */
  use(access: ObjectAccess): void
  /**
   * One object for an attachment, usable when this returns.
   * @throws {AllocationError}
   * @throws {OpenStackError}
   */
  acquire(owner: Owner, limits: Limits, options?: { special?: string | undefined }): Promise<CloudObject>
  /** Brings cloud and journal together now. `enough` ends it early. */
  settle(limits: Limits, enough?: () => boolean): Promise<void>
  /** The same in the background, until it has succeeded. */
  kick(): void
  /** Waits for the round that is under way and starts no other. */
  close(): Promise<void>
}

/** How a pool reaches its cloud at the moment. */
export type ObjectAccess = {
  /** Asked before each round: credentials may have been renewed since. */
  driver(): Promise<ObjectDriver>
  readonly access: string
  readonly settings: ObjectSettings
  readonly detail: string
  /** What may be asked of the cloud at the moment; left out, anything. */
  readonly health?: (() => Health) | undefined
}

/** An object that was released, and that nobody has cleaned since. */
export const DIRTY = '?'

/** An owner, as the journal notes that the cloud's description names it. */
export const describedAs = (owner: Owner | undefined): string =>
  owner === undefined ? '' : `${owner.network}\n${owner.containerId}\n${owner.ifName}`

const NAME_PREFIX = 'mooring-'
const MARK = /^mooring-([0-9a-f]{20})(?![0-9a-f])/

/** A new mark: the first eight digits are those of the pool, so that a lost object finds its way back. */
export const newMark = (poolDigits: string): string => poolDigits + crypto.getRandomValues(new Uint8Array(6)).toHex()

/** The name in the cloud of an object with this mark. */
export const nameOfMark = (mark: string): string => `${NAME_PREFIX}${mark}`

/** The mark in an object's name, undefined where the name is not one of ours. */
export const markOfName = (name: string): string | undefined => MARK.exec(name)?.[1]
