// SPDX-License-Identifier: Apache-2.0

import { setTimeout as sleep } from 'node:timers/promises'
import type { Station } from './station.ts'

/** Somebody who sends or answers packets. */
export type Party = { readonly name: string; readonly address: string; readonly station: Station }

export type Path = {
  readonly what: string
  readonly from: Party
  readonly to: Party
  /** Where it is sent to, if that is not the party's own address: a floating IP. */
  readonly via?: string
  /** The address from which the other side must see the packet; undefined: any. */
  readonly face: string | undefined
  /** True: not one packet may be lost. */
  readonly atOnce: boolean
}

export type Passage = {
  readonly what: string
  readonly from: string
  readonly to: string
  readonly passes: boolean
  /** Why it does not count as passed. */
  readonly fault: string | undefined
  /** There and back: of the first packet, or, where packets were lost before, of one sent afterwards. */
  readonly ms: number | undefined
  /** Packets without an answer before the first one with. */
  readonly lost: number
  /** When that one was sent, after the first attempt. */
  readonly afterMs: number
  /** Who saw the packet, from the first sender to the last receiver, routers by name. */
  readonly way: readonly string[]
}

const ANSWER_MS = 500
const PAUSE_MS = 100

/**
 * Sends packets along a path until one is answered, then asks the routers on the way who they are.
 *
 * @param withinMs how long the network may take until it passes packets
 * @param nameOf the owner of an address
 */
export async function tryPath(
  path: Path,
  { withinMs, nameOf, signal }: { withinMs: number; nameOf: (address: string) => string; signal: AbortSignal },
): Promise<Passage> {
  const { what, from, to, via } = path
  const names = { what, from: from.name, to: to.name }
  const order = { from: from.address, to: via ?? to.address }
  const once = () => from.station.do('ask', { ...order, timeoutMs: ANSWER_MS })
  const begin = performance.now()
  for (let lost = 0; ; lost++) {
    signal.throwIfAborted()
    const afterMs = performance.now() - begin
    const first = await once()
    if (first !== undefined) {
      // An answer after losses waited for an address to be resolved: its time tells nothing of the path.
      const ms = lost === 0 ? first.ms : (await once())?.ms
      const fault = faultOf(path, first.seen, lost, nameOf)
      return { ...names, passes: fault === undefined, fault, ms, lost, afterMs, way: await wayOf(path, nameOf) }
    }
    if (afterMs > withinMs)
      return { ...names, passes: false, fault: 'no answer', ms: undefined, lost: lost + 1, afterMs, way: [] }
    await sleep(PAUSE_MS)
  }
}

async function wayOf({ from, to, via }: Path, nameOf: (address: string) => string): Promise<string[]> {
  // Address translation hides the routers from the sender: then the receiver is asked for them.
  const routers =
    via === undefined
      ? await from.station.do('trace', { from: from.address, to: to.address })
      : (await to.station.do('trace', { from: to.address, to: from.address })).toReversed()
  return [from.name, ...routers.map(router => (router === undefined ? '*' : nameOf(router))), to.name]
}

function faultOf(
  { face, atOnce }: Path,
  seen: string,
  lost: number,
  nameOf: (address: string) => string,
): string | undefined {
  if (face !== undefined && seen !== face) return `seen as ${nameOf(seen)} (${seen}), not as ${nameOf(face)} (${face})`
  return atOnce && lost > 0 ? `${lost} packets lost, and none may be` : undefined
}
