// SPDX-License-Identifier: Apache-2.0

import { deadlineIn, remainingMs } from '#base'
import type { Journal } from '../journal.ts'
import { AllocationError } from './error.ts'
import { type Limits, pause } from './lock.ts'
import type { PortAddress } from './plan.ts'
import { findPortAddress, listLooseAddresses, noteUsable } from './store.ts'

/** Says which of these addresses work on the wire already. */
export type Probe = (addresses: readonly string[]) => Promise<readonly string[]>

/** When new addresses of a port work: 1-2 s after Neutron's answer, longer on a busy cloud. */
export type Wire = {
  /** Waits until all work. @throws {AllocationError} where that is later than the caller waits */
  untilUsable(found: readonly PortAddress[], limits: Limits): Promise<void>
  /** Learns of new addresses in the reserve when they work, so that the next pod need not wait. */
  probeReserve(): Promise<void>
}

export type WireOptions = {
  readonly journal: Journal
  readonly portId: string
  /** The probe at hand; undefined where nobody can tell, and addresses are left to their time. */
  probe(): Probe | undefined
  /** Ends `probeReserve`. */
  readonly signal: AbortSignal
}

const PROBE_PAUSE_MS = 100
/** No cloud takes longer; after it the time that is recorded counts. */
const RESERVE_MS = 120_000

export function createWire({ journal, portId, probe, signal }: WireOptions): Wire {
  let probing = false

  async function untilUsable(found: readonly PortAddress[], limits: Limits): Promise<void> {
    let waiting = stillWaiting(found)
    while (waiting.length > 0) {
      const waitMs = Math.max(...waiting.map(each => each.usableMs)) - Date.now()
      const leftMs = remainingMs(limits.deadline)
      if (leftMs === 0 || (waitMs > leftMs && !waiting.every(canProbe)))
        throw new AllocationError(
          'late',
          `Cannot use ${waiting.map(each => each.address).join(', ')} on port ${portId}: usable in ${waitMs} ms, ` +
            `the caller waits ${Math.floor(leftMs)} ms only`,
        )
      await pause(waiting.some(canProbe) ? Math.min(waitMs, PROBE_PAUSE_MS) : waitMs, limits)
      await ask(waiting)
      waiting = stillWaiting(found)
    }
  }

  const canProbe = (address: PortAddress) => address.settling && probe() !== undefined

  function stillWaiting(addresses: readonly PortAddress[]): PortAddress[] {
    const now = Date.now()
    return addresses
      .map(({ address }) => findPortAddress(journal, portId, address))
      .filter(each => each !== undefined && each.usableMs > now) as PortAddress[]
  }

  /** A probe that cannot be sent leaves the address to its time. */
  async function ask(addresses: readonly PortAddress[]): Promise<void> {
    const asked = addresses.filter(canProbe).map(each => each.address)
    if (asked.length === 0) return
    const usable = await probe()!(asked).catch(() => [])
    if (usable.length > 0)
      journal.transaction(() => {
        for (const address of usable) noteUsable(journal, { portId, address })
      })
  }

  async function probeReserve(): Promise<void> {
    if (probing || probe() === undefined) return
    probing = true
    const free = () => listLooseAddresses(journal, portId).filter(each => each.state === 'free' && each.settling)
    try {
      for (let waiting = stillWaiting(free()); waiting.length > 0; waiting = stillWaiting(free())) {
        await pause(PROBE_PAUSE_MS, { deadline: deadlineIn(RESERVE_MS), signal })
        await ask(waiting)
      }
    } finally {
      probing = false
    }
  }

  return { untilUsable, probeReserve }
}
