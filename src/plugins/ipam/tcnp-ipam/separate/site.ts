// SPDX-License-Identifier: Apache-2.0

import type { Limits } from '#allocator'
import { CniError, codes } from '#cni'
import { type CloudSession, isUuid, type Network } from '#openstack'
import type { Choice } from '../choice.ts'
import { findNetworks, type WantedNetworks } from '../host-port.ts'
import type { Look } from '../lookup.ts'
import type { OpenedCloud } from '../sessions.ts'
import { type PlaceSubnet, toPlaceSubnet } from '../subnets.ts'

/** Where the ports of pods are made. Plain JSON, for the journal. */
export type Site = {
  readonly networks: readonly SiteNetwork[]
  /** By id; undefined: what Neutron gives by itself. */
  readonly securityGroups: readonly string[] | undefined
  /** True where Neutron keeps the tags of ports that are made several at once. */
  readonly keepsTags: boolean
}

export type SiteNetwork = { readonly id: string; readonly name: string; readonly subnets: readonly PlaceSubnet[] }

const invalid = (message: string, details?: string) => new CniError(codes.invalidConfig, message, { details })

/** How the networks of an attachment are found, and what that depends on. */
export function lookForSite(
  { access, session }: OpenedCloud,
  { networks, securityGroups, chosen }: Pick<Choice, 'networks' | 'securityGroups' | 'chosen'>,
): Look<Site> {
  const wanted = { networks, key: chosen.networks ?? 'neutronConf.networks' }
  const groupsKey = chosen.securityGroups ?? 'neutronConf.securityGroups'
  return {
    lookup: JSON.stringify(['separate', access, networks, securityGroups]),
    action: 'find the networks of the pods',
    look: limits => findSite(session, wanted, { names: securityGroups, key: groupsKey }, limits),
  }
}

async function findSite(
  { neutron, identity }: CloudSession,
  wanted: WantedNetworks,
  groups: { names: readonly string[] | undefined; key: string },
  limits: Limits,
): Promise<Site> {
  const found = await findNetworks(neutron, wanted, limits)
  if (found === undefined)
    throw invalid(
      'Cannot tell on which network the ports of pods are to be made: "neutronConf.networks" names none',
      'name one, or several in order of preference, by id or name',
    )
  const ordered = inOrder(found, wanted)
  const [subnets, securityGroups, extensions] = await Promise.all([
    Promise.all(ordered.map(({ id }) => neutron.subnets.list({ network_id: id }, limits))),
    findGroups({ neutron, identity }, groups, limits),
    neutron.extensions.aliases(limits),
  ])
  // Not kept: a network without a subnet was refused before, so that what answers here lags behind.
  const bare = ordered.find((_, index) => subnets[index]!.length === 0)
  if (bare !== undefined)
    throw new CniError(
      codes.tryAgainLater,
      `Cannot give addresses of network "${bare.name}" (${bare.id}): Neutron lists none of its ${bare.subnets.length} subnets`,
    )
  return {
    networks: ordered.map(({ id, name }, index) => ({
      id,
      name,
      subnets: subnets[index]!.map(subnet => toPlaceSubnet(subnet, 'network')),
    })),
    securityGroups,
    keepsTags: extensions.has('tag-ports-during-bulk-creation'),
  }
}

/** In the order in which they are named: that is the order of preference. @throws {CniError} 7 where two have one name */
export const inOrder = (found: readonly Network[], { networks, key }: WantedNetworks): Network[] =>
  networks.flatMap(each => {
    const fitting = found.filter(({ id, name }) => id === each.toLowerCase() || name === each)
    if (fitting.length > 1)
      throw invalid(
        `Cannot choose network "${each}" of "${key}": ${fitting.length} have this name`,
        `name one by its id: ${fitting.map(({ id }) => id).join(', ')}`,
      )
    return fitting
  })

/** Security groups by their ids; undefined where nobody named any. @throws {CniError} 7 for a name that is not one group */
export async function findGroups(
  { neutron, identity }: Pick<CloudSession, 'neutron' | 'identity'>,
  { names, key }: { names: readonly string[] | undefined; key: string },
  limits: Limits,
): Promise<readonly string[] | undefined> {
  if (names === undefined) return undefined
  if (names.every(isUuid)) return names.map(each => each.toLowerCase())
  const project_id = await identity.projectId(limits)
  const found = await neutron.securityGroups.list({ project_id }, limits)
  return names.map(wanted => {
    if (isUuid(wanted)) return wanted.toLowerCase()
    const fitting = found.filter(each => each.name === wanted)
    if (fitting.length === 1) return fitting[0]!.id
    throw invalid(
      fitting.length === 0
        ? `Cannot find security group "${wanted}" of "${key}": the project of these credentials has none of this name`
        : `Cannot choose security group "${wanted}" of "${key}": ${fitting.length} have this name`,
      fitting.length === 0 ? undefined : `name one by its id: ${fitting.map(({ id }) => id).join(', ')}`,
    )
  })
}
