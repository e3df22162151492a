// SPDX-License-Identifier: Apache-2.0

import { createHash } from 'node:crypto'
import { hostname } from 'node:os'
import type { World } from '../../../world.ts'
import { type Choice, isSpecial } from '../choice.ts'
import type { Config } from '../config.ts'
import type { objectPoolFor } from '../object-pools.ts'
import type { SiteNetwork } from '../separate/site.ts'
import type { OpenedCloud } from '../sessions.ts'
import { type Family, familiesOf } from '../subnets.ts'
import { ENI } from './driver-of.ts'
import type { NicPool, SpecialNic } from './port.ts'
import type { Site } from './site.ts'

/** A pool that can serve an attachment, and what that asks for beyond the pool. */
export type Candidate = {
  readonly known: Parameters<typeof objectPoolFor>[1]
  readonly network: SiteNetwork
  /** Empty for an attachment that takes any NIC of the pool. */
  readonly special: string
}

/** What the configuration says, for nobody in particular. */
export const operatorsChoice = ({ neutronConf }: Config): Choice => ({
  networks: neutronConf.networks,
  subnets: neutronConf.subnets,
  addresses: [],
  mac: undefined,
  port: undefined,
  securityGroups: neutronConf.portSecurity === false ? [] : neutronConf.securityGroups,
  portSecurity: neutronConf.portSecurity,
  chosen: {},
  portAnywhere: false,
})

/** One for each network that has what the attachment wants, in order of preference. @throws {CniError} 7 where none has */
export function candidatesOf(
  config: Config,
  world: Pick<World, 'dataDir'>,
  cloud: OpenedCloud,
  { site, choice }: { site: Site; choice: Choice },
): Candidate[] {
  const failures: unknown[] = []
  const candidates = site.networks.flatMap((network): Candidate[] => {
    try {
      const special = specialOf(choice, familiesIn(network, config, choice))
      const families = familiesIn(network, config, { ...choice, addresses: [] })
      return [{ network, special, known: poolOf(config, world, cloud, { site, choice, network, families }) }]
    } catch (error) {
      failures.push(error)
      return []
    }
  })
  if (candidates.length === 0) throw failures[0]
  return candidates
}

function familiesIn({ id, name, subnets }: SiteNetwork, { neutronConf }: Config, choice: Choice): Family[] {
  const { ipVersions } = neutronConf
  return familiesOf({ all: subnets, usual: subnets, choice, ipVersions, what: `network "${name}" (${id})` })
}

function specialOf(choice: Choice, families: readonly Family[]): string {
  if (!isSpecial(choice)) return ''
  const addresses = families.flatMap(({ subnets: [subnet], address }) =>
    address === undefined ? [] : { subnetId: subnet!.id, address },
  )
  return JSON.stringify({ addresses, mac: choice.mac } satisfies SpecialNic)
}

type Facts = Pick<Candidate, 'network'> & {
  readonly site: Site
  readonly choice: Choice
  readonly families: readonly Family[]
}

function poolOf(
  config: Config,
  { dataDir }: Pick<World, 'dataDir'>,
  { access }: OpenedCloud,
  { site, choice, network, families }: Facts,
): Candidate['known'] {
  const { cluster, node = hostname(), reserve, coolDownMs, idleMs, plugMs, ...conf } = config.neutronConf
  const nicPool: NicPool = {
    server: site.server,
    nicsMax: site.nicsMax,
    nicsMaxBy: site.nicsMaxBy,
    network: { id: network.id, name: network.name },
    families,
    securityGroups: choice.portSecurity === false ? [] : site.securityGroups,
    portSecurity: choice.portSecurity,
    owner: { cluster, node },
    plugMs,
  }
  const isFirst = network === site.networks[0]
  return {
    pool: keyOf(access, nicPool),
    kind: ENI,
    access,
    detail: JSON.stringify(nicPool),
    settings: {
      name: `NICs on network "${network.name}"`,
      // The operator's: what one pod chose needs none, and a further network is for when the first is full.
      reserve: isFirst && isOperators(config, choice) ? reserve : 0,
      max: site.nicsMax,
      // Nova's answer, the link and Neutron's word are awaited before one counts as made.
      usableAfterMs: 0,
      coolDownMs,
      idleMs,
      lockDirectory: conf.dataDir ?? dataDir,
    },
  }
}

const isOperators = (config: Config, choice: Choice) => wordsOf(choice) === wordsOf(operatorsChoice(config))
const wordsOf = ({ networks, subnets, securityGroups, portSecurity }: Choice) =>
  JSON.stringify([networks, subnets, securityGroups, portSecurity])

/** The same for the same NICs, whatever they are called and however many there may be. */
function keyOf(access: string, { server, network, owner, families, securityGroups, portSecurity }: NicPool): string {
  const subnets = families.map(each => each.subnets.map(({ id }) => id))
  const what = JSON.stringify([access, owner, server.id, network.id, subnets, securityGroups, portSecurity])
  return `${ENI}-${createHash('sha256').update(what).digest('hex').slice(0, 24)}`
}
