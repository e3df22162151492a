// SPDX-License-Identifier: Apache-2.0

import { formatPrefix, remainingMs } from '#base'
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
