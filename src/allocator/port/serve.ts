// SPDX-License-Identifier: Apache-2.0

import { reserveOf } from '../ahead.ts'
import type { Journal } from '../journal.ts'
import { wholeBlocks } from './blocks.ts'
import { AllocationError } from './error.ts'
import { countBySubnet, type Known, type Owner, type Plan, type PlanFacts, type PortAddress, planPort } from './plan.ts'
import { listFullSubnets, listIntents, type PortSettings } from './port-store.ts'
import type { State } from './refusal.ts'
import { mayRemove, type RoundOptions } from './round-options.ts'
import {
  assignAddress,
  disownAddress,
  endCoolDown,
  findPortAddress,
  listKnownAddresses,
  listLooseAddresses,
  resetTimes,
} from './store.ts'
import { forgetExpiredWants, forgetWant, listWants } from './want-store.ts'

/** Gives what is free to who waits, and says what remains to be done. */
export function serve(options: RoundOptions, state: State): Plan {
  const { journal, portId, bootId, settings } = options
  const nowMs = Date.now()
  forgetExpiredWants(journal, portId)
  resetTimes(journal, portId)
  const wants = listWants(journal, portId)
  for (const want of wants) {
    const named = want.address === undefined ? undefined : faultOfNamed(journal, { ...want, address: want.address })
    const fault = named ?? state.uncovered
    if (fault !== undefined) state.unserved.set(want.id, fault)
  }
  const facts: PlanFacts = {
    known: listLooseAddresses(journal, portId),
    wants,
    leaving: new Set(listIntents(journal, portId).flatMap(each => each.removing)),
    reserveSubnets: reservesOf(settings),
    reserve: reserveOf(journal, portId, settings.reserve),
    coolDownMs: settings.coolDownMs,
    soonMs: settings.usableAfterMs,
    exhausted: new Set(state.exhausted.keys()),
    full: listFullSubnets(journal, portId),
    refused: new Set(state.unserved.keys()),
    refill: state.refill && state.uncovered === undefined,
    batchMax: state.batchMax,
    room: roomOf(options),
    shrink: options.shrink && options.cover === undefined,
    nowMs,
  }
  const plan = inBlocks(options, facts, planPort(facts))
  for (const { id } of plan.capped) state.unserved.set(id, capError(options))
  for (const { address, usableMs } of plan.keep) disownAddress(journal, address, 'free', usableMs)
  for (const { want, address } of plan.assign) {
    assignAddress(journal, address, want.owner, bootId)
    if (want.address !== undefined) endCoolDown(journal, address)
    forgetWant(journal, want.id)
  }
  // Nobody is given one that is about to go.
  const kept = new Set(plan.keep.map(each => each.address.address))
  // What may not be removed now is still good for a pod.
  for (const each of mayRemove(options) ? plan.remove : [])
    if (each.state === 'free' || kept.has(each.address)) disownAddress(journal, each, 'releasing', 0)
  return plan
}

/** For each reserve the subnets that may hold it, in order. */
export const reservesOf = ({ subnetIds, fallbacks }: PortSettings) =>
  subnetIds.map(each => [each, ...(fallbacks?.[each] ?? [])])

/** Addresses that the cap still permits. */
export function roomOf({ journal, portId, settings }: RoundOptions): number {
  if (settings.maxAddresses === undefined) return Number.POSITIVE_INFINITY
  const ours = listKnownAddresses(journal, portId).filter(each => each.state !== 'foreign')
  return Math.max(0, settings.maxAddresses - ours.length)
}

function capError({ journal, portId, settings }: RoundOptions): AllocationError {
  const states = listKnownAddresses(journal, portId).map(each => each.state)
  const count = (state: Known['state']) => states.filter(each => each === state).length
  return new AllocationError(
    'full',
    `Cannot add an address to port ${portId}: it may have ${settings.maxAddresses} of ours, and has ${count('assigned')} in use, ` +
      `${count('releasing')} on their way out, ${count('free')} free, ${count('quarantined')} in quarantine`,
    { remedy: 'delete pods of this node, or raise "neutronConf.maxAddresses"' },
  )
}

/** Where a prefix stands for a block of addresses, a block goes as a whole or not at all; what it does not cover goes alone. */
function inBlocks({ journal, portId, shrink, cover }: RoundOptions, facts: PlanFacts, plan: Plan): Plan {
  if (cover === undefined) return plan
  const assigned = new Set(plan.assign.map(each => each.address.address))
  const loose = facts.known.filter(each => each.floatingIp === undefined && !assigned.has(each.address))
  const isCovered = ({ address }: { readonly address: string }) => cover.covers(address)
  const [covered, uncovered] = [loose.filter(isCovered), loose.filter(each => !isCovered(each))]
  const going = new Set(covered.map(each => each.address))
  const staying = listKnownAddresses(journal, portId).filter(each => !going.has(each.address))
  const free = countBySubnet(plan.surplus.map(({ subnetId }) => ({ subnet_id: subnetId })))
  const idle = Object.entries(free).flatMap(([subnet, surplus]) =>
    wholeBlocks(
      covered.filter(each => each.subnetId === subnet),
      staying.map(each => each.address),
      cover.blockSize,
      surplus,
    ),
  )
  return {
    ...plan,
    keep: plan.keep.filter(each => isCovered(each.address)),
    remove: [...new Set([...plan.remove, ...uncovered, ...(shrink ? idle : [])])],
    surplus: shrink ? [] : idle,
  }
}

/** Why a port's own records forbid to give an attachment the address that it names, undefined where they do not. */
export function faultOfNamed(
  journal: Journal,
  { portId, address, owner }: { portId: string; address: string; owner: Owner },
): AllocationError | undefined {
  const there = findPortAddress(journal, portId, address)
  const reason = there === undefined ? undefined : reasonAgainst(there)
  if (reason === undefined) return undefined
  const whom = `interface ${owner.ifName} of container ${owner.containerId}`
  return new AllocationError('taken', `Cannot give address ${address} to ${whom}: ${reason}`)
}

function reasonAgainst({ portId, state, owner, floatingIp }: PortAddress): string | undefined {
  switch (state) {
    case 'assigned':
      return `interface ${owner?.ifName} of container ${owner?.containerId} in network "${owner?.network}" has it`
    case 'foreign':
      return `it is an address of port ${portId} that was there before us, the node's own most likely`
    case 'quarantined':
      return 'it is in quarantine, because nobody can say whose it is: "mooring ip adopt" or "mooring ip release" ends that'
    case 'free':
      return floatingIp === undefined ? undefined : `floating IP ${floatingIp} leads to it`
    case 'releasing':
      return undefined
  }
}
