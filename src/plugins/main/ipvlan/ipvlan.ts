// SPDX-License-Identifier: Apache-2.0

import { listAttachments } from '#allocator'
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
  const other = listAttachments(world.journal, {})
    .filter(({ type, state, bootId }) => type === TYPE && state === 'ready' && bootId === world.bootId)
    .find(({ traces: text }) => {
      const traces = JSON.parse(text) as ChildTraces | null
      if (traces === null || traces.masterInPod || traces.master !== master.index) return false
      return traces.mode !== info.data.mode || traces.flags !== info.data.flags
    })
  if (other === undefined) return
  const { mode, flags } = JSON.parse(other.traces) as ChildTraces
  throw new CniError(
    codes.invalidConfig,
    `Cannot attach ${call.ifName} in mode ${describe(info.data.mode, info.data.flags)}: ${master.name} has links in mode ${describe(mode, flags)}, container ${other.containerId} of network ${other.network} for one`,
    { details: 'all ipvlan links of a master are in one mode: use the same one, or another master' },
  )
}

const wordFor = (words: Readonly<Record<string, number>>, value: number) =>
  Object.entries(words).find(([, each]) => each === value)?.[0] ?? String(value)

const describe = (mode: number, flags: number) => `${wordFor(ipvlanModes, mode)} ${wordFor(ipvlanFlags, flags)}`
