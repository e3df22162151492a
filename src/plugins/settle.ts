// SPDX-License-Identifier: Apache-2.0

import { atMost, formatPrefix, isPast, remainingMs } from '#base'
import { type Call, CniError, codes } from '#cni'
import type { World } from './world.ts'

/** How long the kernel may take to find out whether somebody else has an IPv6 address. */
const SETTLE_MS_MAX = 5_000

/** Waits until a pod's IPv6 addresses work. @throws {CniError} 102 where somebody else has one */
export async function settleAddresses({ ifName, netnsFd, deadline }: Call, world: World): Promise<void> {
  const timeoutMs = Math.min(SETTLE_MS_MAX, remainingMs(deadline))
  const { duplicate, unsettled } = await world.host.awaitPodAddresses({ netnsFd: netnsFd!, ifName, timeoutMs })
  if (duplicate.length > 0)
    throw new CniError(
      codes.addressUnavailable,
      `Cannot attach ${ifName}: somebody else on the segment has ${duplicate.map(formatPrefix).join(', ')}`,
      { details: 'find the host that has the address, or take it out of the range of the IPAM plugin' },
    )
  if (unsettled.length > 0)
    throw new CniError(
      codes.tryAgainLater,
      `Cannot attach ${ifName}: duplicate detection of ${unsettled.map(formatPrefix).join(', ')} did not end in time`,
    )
}

/** How long a link may take to carry packets: without spanning tree it is a matter of the kernel's next breath. */
const CARRIER_MS = 10_000
/** The longest time between two looks, should a change have come in between; others' changes wake as well. */
const LOOK_MS_MAX = 50

/** What the wait for a link needs to know. */
type Waiting = { readonly call: Pick<Call, 'ifName' | 'deadline' | 'signal'>; readonly world: Pick<World, 'host'> }

/**
 * Waits until packets pass a link on the node, while other calls go on.
 * @param isUp looks; by itself it looks at the link alone
 * @throws {CniError} 11 where it takes too long
 */
export async function awaitCarrier(
  hostLink: string,
  { call, world }: Waiting,
  isUp: () => Promise<boolean> = () => world.host.isOperational({ link: hostLink }),
): Promise<void> {
  const deadline = atMost(call.deadline, CARRIER_MS)
  for (let lookMs = 1; !(await isUp()); lookMs = Math.min(2 * lookMs, LOOK_MS_MAX)) {
    if (isPast(deadline) || call.signal.aborted)
      throw new CniError(codes.tryAgainLater, `Cannot attach ${call.ifName}: no packets pass ${hostLink} on the node`, {
        details: 'see who takes it, its bridge, or the other end in the container down: ip link, bridge link',
      })
    await world.host.awaitLinkChange({ ms: Math.min(lookMs, remainingMs(deadline)) })
  }
}
