// SPDX-License-Identifier: Apache-2.0

import type { Port } from '#openstack'
import type { Look } from './look.ts'
import { comparePort, type Plan, type Shown } from './plan.ts'
import { findKnownPort, forgetIntent, listIntents, putKnownPort } from './port-store.ts'
import type { State } from './refusal.ts'
import type { RoundOptions, RoundReport } from './round-options.ts'
import { serve } from './serve.ts'
import { disownEarlierBoots, forgetAddress, listKnownAddresses, noteFloatingIps, recordAddress } from './store.ts'

/** One transaction: what the port shows is recorded, who can be served is served, and the next write is planned. */
export function compareAndPlan(
  options: RoundOptions,
  state: State,
  report: RoundReport,
  { port, isOlder }: Look,
  bindings: ReadonlyMap<string, string>,
): Plan {
  const { journal, portId, bootId, access, settings, cover } = options
  return journal.transaction(() => {
    const known = findKnownPort(journal, portId)
    // A port that was made to hold addresses had none: what nothing explains there is ours, by a record that is lost.
    if (known === undefined && cover === undefined) recordForeign(options, port.fixed_ips)
    else if (!isOlder) recordForeign(options, findNodes(options, port))
    const revision = Math.max(known?.revision ?? 0, port.revision_number ?? 0)
    putKnownPort(journal, { portId, access, settings, seenBootId: bootId, revision })
    disownEarlierBoots(journal, portId, bootId)
    // What an old answer has or lacks says nothing; a write on its ground is refused, unless it is the newest after all.
    if (!isOlder) compare(options, state, report, port)
    noteFloatingIps(journal, portId, bindings)
    return serve(options, state)
  })
}

/** What the node's NIC has, also where wrong answers have hidden it so far. */
function findNodes({ journal, portId, settings: { nic } }: RoundOptions, port: Port): Shown[] {
  if (nic === undefined) return []
  const recorded = new Set(listKnownAddresses(journal, portId).map(each => each.address))
  return port.fixed_ips.filter(each => nic.addresses.includes(each.ip_address) && !recorded.has(each.ip_address))
}

/** What was on the port before us is not ours, and never will be. */
function recordForeign({ journal, portId }: RoundOptions, addresses: readonly Shown[]): void {
  for (const { subnet_id, ip_address } of addresses)
    recordAddress(journal, {
      portId,
      subnetId: subnet_id,
      address: ip_address,
      state: 'foreign',
      floatingIp: undefined,
      usableMs: 0,
      settling: false,
    })
}

function compare(options: RoundOptions, state: State, report: RoundReport, port: Port): void {
  const { journal, portId, settings, inUse, cover, echo } = options
  const nowMs = Date.now()
  const isCovered = (address: string) => cover?.covers(address) ?? true
  const found = comparePort(port.fixed_ips, listKnownAddresses(journal, portId), listIntents(journal, portId), {
    nowMs,
    inUse,
  })
  const record = (kind: 'free' | 'releasing' | 'quarantined', usableMs: number) => (each: Shown) =>
    recordAddress(journal, {
      portId,
      subnetId: each.subnet_id,
      address: each.ip_address,
      state: kind,
      floatingIp: undefined,
      usableMs,
      settling: kind === 'free',
    })
  for (const each of found.attributed)
    record(isCovered(each.ip_address) ? 'free' : 'releasing', nowMs + settings.usableAfterMs)(each)
  const isEcho = ({ ip_address }: Shown) => echo?.has(ip_address) === true && inUse?.(ip_address) !== true
  const [returned, strange] = [found.strange.filter(isEcho), found.strange.filter(each => !isEcho(each))]
  returned.forEach(record('releasing', 0))
  strange.forEach(record('quarantined', 0))
  for (const each of found.vanished) forgetAddress(journal, each)
  // There is room again, in one of the subnets.
  if (found.vanished.length > 0) state.exhausted.clear()
  for (const id of found.settled) forgetIntent(journal, id)
  report.lost = [...found.lost]
  report.returned.push(...returned.map(each => each.ip_address))
  report.strange.push(...strange.map(each => each.ip_address))
}
