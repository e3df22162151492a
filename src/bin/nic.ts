// SPDX-License-Identifier: Apache-2.0

import { bringNicBack, giveNicAway, openTarget } from '#inspect'
import { type NodeOptions, openNode } from './node.ts'

export type NicOptions = NodeOptions & {
  readonly name?: string | undefined
  readonly from?: string | undefined
  readonly force?: boolean
}

/** The word for the node itself, as a place for a NIC. */
const NODE = 'host'

/** Moves a NIC into a namespace, or back to the node. @returns a line for the user */
export async function moveNic(device: string, place: string, options: NicOptions): Promise<string> {
  await using node = openNode(options)
  const { dataDir } = options
  if (place !== NODE) {
    using target = openTarget(place, node.journal)
    const { name, force = false } = options
    return await giveNicAway(node.host, target, { device, name, force, dataDir })
  }
  using from = options.from === undefined ? undefined : openTarget(options.from, node.journal)
  return await bringNicBack(node.host, { device, from, dataDir })
}
