// SPDX-License-Identifier: Apache-2.0

import { OpenStackError, type Port } from '#openstack'
import { compareAndPlan } from './compare.ts'
import { lookAtPort } from './look.ts'
import { listIntents } from './port-store.ts'
import { NO_ADDITION, newState, noteUnserved } from './refusal.ts'
import { limitsOf, mayRemove, type RoundOptions, type RoundReport } from './round-options.ts'
import { hasReleasing, listLooseAddresses } from './store.ts'
import { listWants } from './want-store.ts'
import { add, cover, nextRequest, remove } from './write.ts'

const TRIES_MAX = 64

/**
 * Brings a port and the journal together, and serves who waits: everything that is recorded, in as few writes as Neutron
 * permits. The caller holds the port's lock: there is one writer per port.
 *
 * @throws {OpenStackError}
 * @throws {AllocationError}
 */
export async function settlePort(options: RoundOptions): Promise<RoundReport> {
  const state = newState(options.refill)
  const report: RoundReport = {
    lost: [],
    repaired: [],
    returned: [],
    strange: [],
    unserved: state.unserved,
    refillFailed: undefined,
    wrote: false,
    hasSurplus: false,
    removeInMs: 0,
  }
  for (let tries = 0; tries < TRIES_MAX; tries++) {
    options.step?.('get')
    const [look, bindings] = await Promise.all([
      lookAtPort({ ...options, limits: limitsOf(options) }),
      lookAtBindings(options),
    ])
    const { port } = look
    if (mayRemove(options)) await releaseBindings(options, port, bindings)
    await cover(options, state, port)
    options.step?.('compare')
    const plan = compareAndPlan(options, state, report, look, bindings)
    options.onAssigned?.()
    if (options.enough?.()) break
    report.hasSurplus = plan.surplus.length > 0
    const back = report.lost.map(each => each.address).filter(each => !state.taken.has(each))
    const request = nextRequest(plan, state) ?? (back.length > 0 ? NO_ADDITION : undefined)
    /** Another look tells what there is instead: the next subnet may have room. */
    let wasRefused = false
    if (request !== undefined) wasRefused = !(await add(options, state, report, port, { ...request, back, bindings }))
    else if (plan.remove.length > 0 && !mayRemove(options)) {
      report.removeInMs = options.neutron.health!().retryMs
      break
    } else if (plan.remove.length > 0) await remove(options, state, report, port, plan.remove)
    else break
    options.onAssigned?.()
    if (options.enough?.() || !(wasRefused || hasWork(options))) break
  }
  report.refillFailed = state.refillFailed
  noteUnserved(state, listWants(options.journal, options.portId))
  return report
}

const hasWork = ({ journal, portId }: RoundOptions) =>
  listWants(journal, portId).length > 0 || hasReleasing(journal, portId) || listIntents(journal, portId).length > 0

/** Floating IPs of the port by the address they lead to; also addresses that the port does not have any more. */
async function lookAtBindings(options: RoundOptions): Promise<Map<string, string>> {
  const { neutron, portId } = options
  try {
    const found = await neutron.floatingIps.list({ port_id: portId }, limitsOf(options))
    return new Map(found.flatMap(each => (each.fixed_ip_address === null ? [] : [[each.fixed_ip_address, each.id]])))
  } catch (error) {
    // A Neutron without routers has no floating IPs, and a user who may not see them cannot have made one.
    if (error instanceof OpenStackError && (error.status === 403 || error.status === 404)) return new Map()
    throw error
  }
}

/** A floating IP goes before its address: Neutron would leave it pointing at an address that is somebody else's next. */
async function releaseBindings(options: RoundOptions, port: Port, bindings: Map<string, string>): Promise<void> {
  if (bindings.size === 0) return
  const present = new Set(port.fixed_ips.map(each => each.ip_address))
  const bound = listLooseAddresses(options.journal, options.portId).filter(
    each => each.state === 'releasing' && bindings.has(each.address) && present.has(each.address),
  )
  for (const { address } of bound) {
    options.step?.('disassociate')
    await options.neutron.floatingIps.disassociate(bindings.get(address)!, { ...options.limits, purpose: 'reclaim' })
    bindings.delete(address)
  }
}
