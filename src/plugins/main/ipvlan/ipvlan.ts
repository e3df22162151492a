// SPDX-License-Identifier: Apache-2.0

import { findOtherIpvlanMode } from '#allocator'
import { CniError, codes } from '#cni'
import type { Master } from '#host'
import { ipvlanFlags, ipvlanModes } from '#rtnetlink'
import { type ChildConfig, type ChildTraces, childPlugin } from '../../child-link.ts'
import type { Attach } from '../../interface.ts'
import { parseConfig } from './config.ts'

const TYPE = 'ipvlan'

/** A link with the MAC of a link of the node: the segment sees one NIC, however many containers are on it. */
export const ipvlan = childPlugin<ChildConfig>({ type: TYPE, parse: parseConfig, refuse: refuseOtherMode })

/**
 * The kernel has one mode for all links of a master: another one would change those of the containers that run.
 * @throws {CniError} 7 naming one of them
 */
function refuseOtherMode({ call, config, world }: Attach<ChildConfig, ChildTraces>, master: Master): void {
  const { info, masterInPod } = config
  if (info.kind !== TYPE || masterInPod) return
  const { mode, flags } = info.data
  const other = findOtherIpvlanMode(world.journal, { master: master.index, mode, flags }, world.bootId)
  if (other === undefined) return
  throw new CniError(
    codes.invalidConfig,
    `Cannot attach ${call.ifName} in mode ${describe(mode, flags)}: ${master.name} has links in mode ${describe(other.mode, other.flags)}, container ${other.containerId} of network ${other.network} for one`,
    { details: 'all ipvlan links of a master are in one mode: use the same one, or another master' },
  )
}

const wordFor = (words: Readonly<Record<string, number>>, value: number) =>
  Object.entries(words).find(([, each]) => each === value)?.[0] ?? String(value)

const describe = (mode: number, flags: number) => `${wordFor(ipvlanModes, mode)} ${wordFor(ipvlanFlags, flags)}`
