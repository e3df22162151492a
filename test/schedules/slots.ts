// SPDX-License-Identifier: Apache-2.0

// The slots of the node's server: what Nova attaches comes up there as a NIC, at once, late or never, and what it detaches
// goes, wherever the NIC is.

import { find, type Simulator } from '#simulator'
import type { NicComes } from './kernel.ts'

export type PluggedNic = { readonly portId: string; readonly mac: string }

export type Slots = Disposable & {
  delayNext(comes: NicComes): void
  /** What has not come yet comes now. */
  heal(): void
}

/** Tells what comes and goes; the server's first NIC was there before. */
export function watchSlots(
  simulator: Simulator,
  { plug, unplug }: { plug(nic: PluggedNic): void; unplug(portId: string): void },
): Slots {
  const { state } = simulator
  const { id: serverId, ports } = simulator.demo().servers['worker-1']!
  const first = ports[0]!.id
  const known = new Set([first])
  /** Attached, and not there yet. */
  const coming = new Map<string, { readonly nic: PluggedNic; timer: NodeJS.Timeout | undefined }>()
  const delays: NicComes[] = []

  function come(portId: string): void {
    const { nic, timer } = coming.get(portId)!
    clearTimeout(timer)
    coming.delete(portId)
    plug(nic)
  }

  function look(): void {
    const attached = find(state, 'servers', serverId)?.ports ?? []
    for (const portId of known.difference(new Set(attached.map(({ id }) => id)))) {
      known.delete(portId)
      clearTimeout(coming.get(portId)?.timer)
      if (!coming.delete(portId)) unplug(portId)
    }
    for (const { id: portId } of attached) {
      if (known.has(portId)) continue
      known.add(portId)
      const comes = delays.shift() ?? { afterMs: 0 }
      const timer = comes === 'never' ? undefined : setTimeout(() => come(portId), comes.afterMs)
      coming.set(portId, { nic: { portId, mac: find(state, 'ports', portId)!.mac_address }, timer })
    }
  }

  state.listeners.add(look)
  return {
    delayNext: comes => void delays.push(comes),
    heal() {
      delays.length = 0
      for (const portId of [...coming.keys()]) come(portId)
    },
    [Symbol.dispose]() {
      state.listeners.delete(look)
      for (const { timer } of coming.values()) clearTimeout(timer)
    },
  }
}
