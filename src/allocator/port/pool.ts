// SPDX-License-Identifier: Apache-2.0

import { join } from 'node:path'
import { deadlineIn, isPast, remainingMs } from '#base'
import { findReserveAhead, reserveOf } from '../ahead.ts'
import type { Journal } from '../journal.ts'
import { createRounds, type Next } from '../rounds.ts'
import { createWaiters, isSameOwner, lateFor } from '../waiters.ts'
import type { Arrivals } from './arrivals.ts'
import type { PortCover } from './cover.ts'
import { AllocationError } from './error.ts'
import { type Limits, withFileLock } from './lock.ts'
import { createNames } from './names.ts'
import { type Owner, type PortAddress, shrinkAfterMs, type Wish } from './plan.ts'
import {
  findKnownPort,
  forgetIntent,
  forgetPort,
  listFullSubnets,
  listIntents,
  type PortSettings,
} from './port-store.ts'
import { settlePort } from './round.ts'
import type { PortNeutron, RoundReport, RoundStep } from './round-options.ts'
import { faultOfNamed, reservesOf } from './serve.ts'
import {
  assignAddress,
  endCoolDown,
  findFreeAddress,
  findPortAddress,
  forgetAddress,
  hasReleasing,
  listKnownAddresses,
  listLooseAddresses,
  listOwnedAddresses,
  returnAddress,
} from './store.ts'
import { forgetWantsOf, isWanting, listWants, recordWant } from './want-store.ts'
import { createWire, type Probe } from './wire.ts'

/** How a pool reaches its port at the moment; a later call may bring other credentials or settings. */
export type PortAccess = {
  /** Asked before each round: credentials may have been renewed since. */
  neutron(): Promise<PortNeutron>
  /** The same without secrets, for a later process: JSON of whoever made the session. */
  readonly access: string
  readonly settings: PortSettings
  /** Undefined where nobody can tell when an address works. */
  readonly probe?: Probe | undefined
  /** What addresses need elsewhere; undefined where they work by being on the port. */
  readonly cover?: PortCover | undefined
}

export type PortPoolOptions = PortAccess & {
  readonly journal: Journal
  readonly portId: string
  readonly bootId: string
  /** True where the process stays: it keeps a reserve and finishes releases in the background. */
  readonly longLived: boolean
  /** Other processes that may be about to wish for an address, where each lives for one call. */
  readonly arrivals?: Arrivals | undefined
  readonly inUse?: ((address: string) => boolean) | undefined
  /** Told after each round that worked. */
  readonly onReport?: ((report: RoundReport) => void) | undefined
  /** Told at once where somebody wrote between our look and our write, and what it was is not on the port: it may be undone. */
  readonly onOverlap?: (() => void) | undefined
  /** Told of a round in the background that failed; it will be tried again. */
  readonly onError?: ((error: unknown) => void) | undefined
  readonly step?: ((name: RoundStep) => void) | undefined
}

/** The addresses of one Neutron port: one writer, who serves all that is recorded. */
export type PortPool = {
  readonly portId: string
  use(access: PortAccess): void
  /**
   * One address for each wish of an attachment, usable on the wire when this returns. All or nothing.
   * @throws {AllocationError}
   * @throws {OpenStackError}
   */
  acquire(owner: Owner, wishes: readonly Wish[], limits: Limits): Promise<PortAddress[]>
  /** Brings port and journal together now. `enough` ends it early. @returns undefined where others did it meanwhile */
  settle(limits: Limits, enough?: () => boolean): Promise<RoundReport | undefined>
  /** The same in the background, until it has succeeded. */
  kick(): void
  /** Waits for the round that is under way and starts no other. */
  close(): Promise<void>
}

/** A round in the background has nobody who waits, and a port with hundreds of addresses takes long. */
const ROUND_MS = 120_000
/** After a refill for which there was no address. */
const REFILL_PAUSE_MS = 60_000
/** Unless the settings say otherwise: longer than an overlapping write takes, and within the 5 s that are promised. */
const VERIFY_MS = 3_000
/** A removed address that comes back within so many looks back comes by an older list. */
const ECHO_LOOKS = 3
/** Between looks at a port that nobody writes to as far as we know: somebody may have written a very old list. */
const LOOK_MS = 300_000
/** A port that Neutron does not know for this long is gone, and what was recorded on it with it. */
const GONE_MS = 60_000

const WHAT = 'an address'
const SERVICE = 'Neutron'

export function openPortPool(options: PortPoolOptions): PortPool {
  const { journal, portId, bootId, longLived, arrivals } = options
  const waiters = createWaiters<PortAddress[]>(WHAT, SERVICE)
  let access: PortAccess = options
  let refillNotBeforeMs = 0
  let goneSinceMs: number | undefined
  /** When what is left over after a surge goes. */
  let shrinkAtMs: number | undefined
  /** When the port is looked at again because of a write of ours. */
  let verifyAtMs: number | undefined
  /** When it is looked at in any case. */
  let lookAtMs = Number.NEGATIVE_INFINITY
  /** When addresses were removed, as long as somebody's older list may bring them back. */
  const removedMs = new Map<string, number>()
  const rounds = createRounds({ round: background, onFailure })
  const names = createNames()
  const wire = createWire({ journal, portId, probe: () => access.probe, signal: rounds.signal })

  const settings = (): PortSettings => (longLived ? access.settings : { ...access.settings, reserve: 0 })

  async function round(limits: Limits, enough?: () => boolean, gather?: Arrivals): Promise<RoundReport | undefined> {
    const work = async () => {
      await gather?.untilOthersArrived(limits)
      noteRemoved([])
      return await settlePort({
        ...options,
        neutron: await access.neutron(),
        access: access.access,
        settings: settings(),
        limits,
        refill: longLived && performance.now() >= refillNotBeforeMs,
        shrink: mayShrink(),
        echo: { note: noteRemoved, has: address => removedMs.has(address) },
        names,
        cover: access.cover,
        onAssigned: waiters.tellServed,
        enough,
      })
    }
    // One writer per port on this machine: Neutron's own check of revisions lets overlapping writes pass.
    const lockFile = join(access.settings.lockDirectory, `port-${portId}.lock`)
    const begunMs = performance.now()
    const report = await withFileLock(lockFile, work, limits, enough)
    goneSinceMs = undefined
    if (report?.refillFailed) refillNotBeforeMs = performance.now() + REFILL_PAUSE_MS
    if (report !== undefined) noteTimes(report, begunMs)
    if (report !== undefined) options.onReport?.(report)
    return report
  }

  const verifyAfterMs = () => access.settings.verifyAfterMs ?? VERIFY_MS

  function noteRemoved(addresses: readonly string[]): void {
    const now = performance.now()
    for (const [address, atMs] of removedMs) if (now - atMs > ECHO_LOOKS * verifyAfterMs()) removedMs.delete(address)
    for (const address of addresses) removedMs.set(address, now)
  }

  const mayShrink = () =>
    !longLived || access.settings.coolDownMs === 0 || (shrinkAtMs !== undefined && performance.now() >= shrinkAtMs)

  function noteLook(): void {
    lookAtMs = performance.now() + LOOK_MS * (0.75 + Math.random() / 2)
  }

  function noteTimes({ hasSurplus, wrote }: RoundReport, begunMs: number): void {
    noteLook()
    if (wrote) verifyAtMs = performance.now() + verifyAfterMs()
    else if (verifyAtMs !== undefined && begunMs >= verifyAtMs) verifyAtMs = undefined
    if (!hasSurplus) shrinkAtMs = undefined
    else shrinkAtMs ??= performance.now() + shrinkAfterMs(access.settings.coolDownMs, Math.random())
  }

  async function background(signal: AbortSignal): Promise<Next> {
    if (isSettled() || (await isUndisturbed(signal))) return nextIn()
    const report = await round({ deadline: deadlineIn(ROUND_MS), signal })
    waiters.tellServed()
    const open = listWants(journal, portId)
    waiters.tellUnserved(owner => {
      const mine = open.filter(want => isSameOwner(want.owner, owner))
      return mine.map(want => report?.unserved.get(want.id)).find(error => error !== undefined)
    })
    void wire.probeReserve().catch(() => {})
    if (waiters.size > 0) return 'again'
    if (report !== undefined && report.removeInMs > 0) return nextIn(report.removeInMs)
    if (hasLeftovers()) return 'unfinished'
    return report?.refillFailed ? nextIn(refillNotBeforeMs - performance.now()) : nextIn()
  }

  /**
   * True where a round would find nothing to do: fifty pods that come together end with fifty wishes for one, and the cloud
   * should answer the first alone.
   */
  function isSettled(): boolean {
    const now = performance.now()
    if (findKnownPort(journal, portId)?.seenBootId !== bootId) return false
    if ([lookAtMs, verifyAtMs, shrinkAtMs].some(each => each !== undefined && each <= now)) return false
    if (waiters.size > 0 || listWants(journal, portId).length > 0 || hasLeftovers()) return false
    const free = listLooseAddresses(journal, portId).filter(each => each.floatingIp === undefined)
    const reserve = reserveOf(journal, portId, settings().reserve)
    return reservesOf(settings()).every(list => {
      const count = free.filter(each => list.includes(each.subnetId)).length
      return count === reserve || (count < reserve && now < refillNotBeforeMs)
    })
  }

  /** After a write: one question, where nothing else is to be done, tells whether somebody has undone it. */
  async function isUndisturbed(signal: AbortSignal): Promise<boolean> {
    if (verifyAtMs === undefined || performance.now() < verifyAtMs) return false
    if (shrinkAtMs !== undefined || waiters.size > 0 || listWants(journal, portId).length > 0 || hasLeftovers())
      return false
    const limits = { deadline: deadlineIn(ROUND_MS), signal, purpose: 'look' } as const
    const port = await (await access.neutron()).ports.get(portId, limits)
    const known = new Set(listKnownAddresses(journal, portId).map(each => each.address))
    if (port?.fixed_ips.length !== known.size || !port.fixed_ips.every(each => known.has(each.ip_address))) return false
    verifyAtMs = undefined
    noteLook()
    return true
  }

  /** When the next look is due. */
  function nextIn(...more: readonly number[]): Next {
    // Then what an operator wanted for a time is too much.
    const ahead = findReserveAhead(journal, portId)
    const times = [shrinkAtMs, verifyAtMs].filter(each => each !== undefined)
    const waits = [...times.map(each => each - performance.now()), ...more]
    if (ahead !== undefined) waits.push(ahead.untilMs - Date.now() + 1)
    if (listKnownAddresses(journal, portId).some(each => each.state !== 'foreign'))
      waits.push(lookAtMs - performance.now())
    return waits.length === 0 ? 'done' : { inMs: Math.max(0, Math.ceil(Math.min(...waits))) }
  }

  function onFailure(error: unknown): boolean {
    if (!rounds.signal.aborted) options.onError?.(error)
    waiters.tellUnserved(() => error)
    return forgetIfGone(error)
  }

  const hasLeftovers = () => hasReleasing(journal, portId) || listIntents(journal, portId).length > 0

  /** What was on a port that is gone is gone with it; not on the word of one answer. @returns true if nothing is left. */
  function forgetIfGone(error: unknown): boolean {
    if (!(error instanceof AllocationError) || error.fault !== 'gone') return false
    // Other credentials may simply not be shown the port.
    if (findKnownPort(journal, portId)?.access !== access.access) return false
    goneSinceMs ??= performance.now()
    if (performance.now() - goneSinceMs < GONE_MS) return false
    return journal.transaction(() => {
      const known = listKnownAddresses(journal, portId)
      const held = known.filter(each => each.state === 'assigned')
      for (const each of known) if (each.state !== 'assigned') forgetAddress(journal, each)
      for (const each of listIntents(journal, portId)) forgetIntent(journal, each.id)
      if (held.length === 0) forgetPort(journal, portId)
      return held.length === 0
    })
  }

  /** From what is there, or undefined after the wish was recorded. */
  function takeOrWish(owner: Owner, wishes: readonly Wish[], limits: Limits): PortAddress[] | undefined {
    return journal.transaction(() => {
      const held = listOwnedAddresses(journal, owner)
      if (held.length > 0)
        throw new AllocationError(
          'duplicate',
          `Cannot give an address to interface ${owner.ifName} of container ${owner.containerId} in network ` +
            `"${owner.network}": it has ${held.map(each => each.address).join(', ')} already`,
        )
      const free = findAll(owner, wishes)
      forgetWantsOf(journal, owner)
      if (free !== undefined) {
        for (const address of free) assignAddress(journal, address, owner, bootId)
        for (const { address } of wishes) if (address !== undefined) endCoolDown(journal, { portId, address })
        return listOwnedAddresses(journal, owner)
      }
      const expiresMs = Date.now() + Math.ceil(Math.min(remainingMs(limits.deadline), ROUND_MS))
      for (const wish of wishes) recordWant(journal, { ...wish, portId, owner, expiresMs })
      return undefined
    })
  }

  /** What the port has for all wishes, undefined where something is missing. @throws {AllocationError} where a named address is taken */
  function findAll(owner: Owner, wishes: readonly Wish[]): PortAddress[] | undefined {
    // Before the first look in this boot nothing is known of the port: a power cut may have taken the last records.
    if (findKnownPort(journal, portId)?.seenBootId !== bootId) return undefined
    const full = listFullSubnets(journal, portId)
    const found = wishes.map(wish =>
      wish.address === undefined ? findAny(wish, full) : findNamed(wish.address, owner),
    )
    return found.every(each => each !== undefined) ? found : undefined
  }

  function findAny({ subnetIds }: Wish, full: ReadonlySet<string>): PortAddress | undefined {
    const usableByMs = Date.now() + access.settings.usableAfterMs
    for (const subnetId of subnetIds) {
      const found = findFreeAddress(journal, { portId, subnetId, usableByMs })
      // The next one is for when this one is full.
      if (found !== undefined || !full.has(subnetId)) return found
    }
    return undefined
  }

  function findNamed(address: string, owner: Owner): PortAddress | undefined {
    const fault = faultOfNamed(journal, { portId, address, owner })
    if (fault !== undefined) throw fault
    const there = findPortAddress(journal, portId, address)
    return there?.state === 'free' ? there : undefined
  }

  function servedInBackground(owner: Owner, count: number, limits: Limits): Promise<PortAddress[]> {
    const find = () => {
      const found = listOwnedAddresses(journal, owner)
      return found.length < count ? undefined : found
    }
    const served = waiters.wait(owner, find, limits)
    rounds.kick()
    return served
  }

  async function servedByUs(owner: Owner, count: number, limits: Limits): Promise<PortAddress[]> {
    const done = () => listOwnedAddresses(journal, owner).length >= count || !isWanting(journal, owner)
    while (!done()) {
      // A write costs the cloud as much for one address as for sixty: those who begin at the same moment share it.
      const report = await round(limits, done, arrivals)
      const refusal = listWants(journal, portId)
        .filter(want => isSameOwner(want.owner, owner))
        .map(want => report?.unserved.get(want.id))
        .find(error => error !== undefined)
      if (refusal !== undefined) throw refusal
      if (!done() && isPast(limits.deadline)) throw lateFor(WHAT, SERVICE, owner, limits)
    }
    const found = listOwnedAddresses(journal, owner)
    if (found.length < count)
      throw new AllocationError(
        'withdrawn',
        `Cannot give an address to interface ${owner.ifName} of container ${owner.containerId}: it was released meanwhile`,
      )
    return found
  }

  function giveBack(owner: Owner): void {
    journal.transaction(() => {
      forgetWantsOf(journal, owner)
      // No pod has had it: it needs no cool-down.
      for (const each of listOwnedAddresses(journal, owner)) returnAddress(journal, each)
    })
  }

  return {
    portId,
    use: next => {
      access = { ...next, probe: next.probe ?? access.probe }
    },
    async acquire(owner, wishes, limits) {
      const taken = takeOrWish(owner, wishes, limits)
      arrivals?.arrived()
      try {
        const found =
          taken ??
          (longLived
            ? await servedInBackground(owner, wishes.length, limits)
            : await servedByUs(owner, wishes.length, limits))
        // Outside every lock: others are served while this one waits for the wire.
        await wire.untilUsable(found, limits)
        return found
      } catch (error) {
        giveBack(owner)
        throw error
      } finally {
        if (longLived) rounds.kick()
      }
    },
    async settle(limits, enough) {
      const report = await round(limits, enough)
      waiters.tellServed()
      return report
    },
    kick: rounds.kick,
    close: rounds.close,
  }
}
