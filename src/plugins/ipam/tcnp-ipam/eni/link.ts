// SPDX-License-Identifier: Apache-2.0

import type { Limits } from '#allocator'
import { atMost, isPast } from '#base'
import type { World } from '../../../world.ts'

/** Looks again after so long, whatever the kernel says: what happened between a look and the wait is not told. */
const LOOK_MS = 200

/**
 * The name of the node's link with that MAC, as soon as there is one.
 * @returns undefined if it did not come in `ms`, or the limits have ended.
 */
export async function awaitLink(
  host: World['host'],
  mac: string,
  { deadline, signal }: Limits,
  ms: number,
): Promise<string | undefined> {
  for (const end = atMost(deadline, ms); ; await host.awaitLinkChange({ ms: LOOK_MS })) {
    const name = await host.findNicName({ mac })
    if (name !== undefined || isPast(end) || signal?.aborted) return name
  }
}
