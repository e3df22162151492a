// SPDX-License-Identifier: Apache-2.0

import { existsSync } from 'node:fs'
import { type Journal, listAttachments, listKnownPorts, listPortAddresses, openJournal } from '#allocator'
import { deadlineIn } from '#base'
import type { JsonObject } from '#cni'
import { readBootId } from '#host'
import { bringCredentials, drainPorts, openSessions } from '#plugins'
import { agentPaths } from './agents.ts'
import type { Place } from './state.ts'

const DRAIN_MS = 60_000

/** A machine's journal, undefined where its agent never ran. */
function tryOpenJournal(place: Place, machine: string): Journal | undefined {
  const { dataDir } = agentPaths(place, machine)
  return existsSync(`${dataDir}/journal.db`) ? openJournal(dataDir) : undefined
}

/** Addresses that the agent made ahead, and that work on the wire by now. */
export function countReserve(place: Place, machine: string): number {
  using journal = tryOpenJournal(place, machine)
  if (journal === undefined) return 0
  return listKnownPorts(journal)
    .flatMap(({ portId }) => listPortAddresses(journal, portId))
    .filter(({ state, usableMs }) => state === 'free' && usableMs <= Date.now()).length
}

/** The addresses that a machine's agent holds of Neutron, whoever has them. */
export function heldAddresses(place: Place, machine: string): string[] {
  using journal = tryOpenJournal(place, machine)
  if (journal === undefined) return []
  return listKnownPorts(journal)
    .flatMap(({ portId }) => listPortAddresses(journal, portId))
    .filter(({ state }) => state !== 'foreign')
    .map(({ address }) => address)
}

/** What a machine's journal still says is there, in words. */
export function readJournal(place: Place, machine: string): string[] {
  using journal = tryOpenJournal(place, machine)
  if (journal === undefined) return []
  return [
    ...listAttachments(journal).map(({ type, containerId, state }) => `attachment ${type} ${containerId} (${state})`),
    ...heldAddresses(place, machine).map(address => `address ${address}`),
  ]
}

/**
 * Gives back what the agent of a machine made ahead of need; the agent must have ended.
 * @param access the configuration's way to the cloud: `openstackConf` or `cloud`
 */
export async function drain(place: Place, machine: string, access: JsonObject): Promise<void> {
  using journal = tryOpenJournal(place, machine)
  if (journal === undefined) return
  const { dataDir } = agentPaths(place, machine)
  await using clouds = openSessions({ dataDir, warn: () => {} })
  await bringCredentials(clouds, { ipam: { type: 'tcnp-ipam', ...access } })
  const world = { journal, clouds, bootId: readBootId(), longLived: false }
  const drained = await drainPorts(world, { deadline: deadlineIn(DRAIN_MS) })
  const failed = drained.find(({ error }) => error !== undefined)
  if (failed !== undefined) throw failed.error
}
