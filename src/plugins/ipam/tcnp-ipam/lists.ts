// SPDX-License-Identifier: Apache-2.0

import {
  type Journal,
  type KnownList,
  type ListKey,
  type ListReport,
  listKnownLists,
  openSharedList,
  pairsDriver,
  routesDriver,
  type SharedList,
} from '#allocator'
import { CniError, codes } from '#cni'
import type { CloudSession } from '#openstack'
import type { World } from '../../world.ts'

/** What a list needs of a world. */
export type ListWorld = Pick<World, 'journal' | 'longLived' | 'clouds'>

type Lists = { readonly byName: Map<string, SharedList>; warn: (error: unknown) => void }

// One set of lists per journal, because one process may be several nodes (tests), and a node has one journal.
const lists = new WeakMap<Journal, Lists>()

function listsOf(journal: Journal): Lists {
  const known = lists.get(journal) ?? { byName: new Map(), warn: () => {} }
  lists.set(journal, known)
  return known
}

const nameOf = ({ kind, objectId }: ListKey) => `${kind} ${objectId}`

/** Our part of a port's address pairs or of a router's routes, with the credentials and settings that the call brought. */
export function listFor(world: ListWorld, known: KnownList): SharedList {
  const all = listsOf(world.journal)
  const neutron = async () => (await reachCloud(world, known.access)).neutron
  const driver = (known.kind === 'pairs' ? pairsDriver : routesDriver)(known.objectId, neutron)
  const next = { driver, access: known.access, settings: known.settings }
  const open = all.byName.get(nameOf(known))
  open?.use(next)
  if (open !== undefined) return open
  const list = openSharedList({
    ...next,
    journal: world.journal,
    longLived: world.longLived,
    onError: error => all.warn(error),
    onReport: report => all.warn(new Error(textOf(report))),
  })
  all.byName.set(nameOf(known), list)
  return list
}

/** The session of a cloud as it is now. @throws {CniError} where its credentials stand in no file and no call brought them */
export async function reachCloud({ clouds }: Pick<World, 'clouds'>, access: string): Promise<CloudSession> {
  const session = await clouds.reach(access)
  if (session !== undefined) return session
  throw new CniError(
    codes.invalidConfig,
    'Cannot log in to the cloud of an address: its credentials stand in no file',
    {
      details: 'the next call of that network brings them; "cloud" instead of "openstackConf" needs no call',
    },
  )
}

function textOf({ title, repaired, returned, foreignAdded, foreignRemoved, overlapped }: ListReport): string {
  const parts = [
    repaired.length > 0 ? `took out ${repaired.join(', ')}, which is ours: put in again` : '',
    returned.length > 0 ? `brought back ${returned.join(', ')}, which we had taken out: taken out again` : '',
    foreignAdded.length > 0 ? `put in ${foreignAdded.join(', ')}: left alone` : '',
    foreignRemoved.length > 0 ? `took out ${foreignRemoved.join(', ')}, which was not ours: left alone` : '',
    overlapped ? 'wrote at the same moment as we did: whoever it was should look whether the change is there' : '',
  ]
  return `Somebody else changes the ${title}: ${parts.filter(part => part !== '').join('; ')}`
}

/** Takes up what an earlier process left in lists: entries whose release the cloud has not heard of, unanswered writes. */
export function startLists(world: ListWorld, warn: (error: unknown) => void): AsyncDisposable {
  const all = listsOf(world.journal)
  all.warn = warn
  const started = takeUp(world).catch(warn)
  return {
    async [Symbol.asyncDispose]() {
      await started
      await Promise.all([...all.byName.values()].map(list => list.close()))
      all.byName.clear()
    },
  }
}

async function takeUp(world: ListWorld): Promise<void> {
  for (const known of listKnownLists(world.journal))
    if ((await world.clouds.reach(known.access)) !== undefined) listFor(world, known).kick()
}
