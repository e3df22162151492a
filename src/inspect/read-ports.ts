// SPDX-License-Identifier: Apache-2.0

import { hostname } from 'node:os'
import { type Journal, listEntries, listKnownLists, listKnownPorts } from '#allocator'
import type { Host } from '#host'
import { type CloudSession, cloudFromConf, type Limits, loadCloud, openCloud } from '#openstack'
import { type CloudReference, type NeutronUse, neutronUseOf } from '#plugins'
import { type CloudPorts, type NodeNic, readCloudPorts } from './cloud-ports.ts'
import { listLeases } from './leases.ts'
import { type NetworksOptions, readPluginConfigs } from './networks.ts'
import { joinPorts, type PortsReport } from './ports.ts'

export type PortsOptions = NetworksOptions & {
  /** A cloud of clouds.yaml, instead of those that the network lists name. */
  readonly cloud?: string | undefined
  /** Servers that have one of these addresses, in the form of `formatIp`; without any, this node. */
  readonly addresses: readonly string[]
  /** Leaves out the servers' own addresses, and ports that have no others. */
  readonly withoutPrimary: boolean
}

/** The node that looks. */
export type PortsNode = { readonly host: Pick<Host, 'findUplink'>; readonly journal: Journal | undefined }

/**
 * What Neutron and Nova hold for this node, or for servers, and whose it is.
 * @returns also what the user should know of the configuration
 * @throws {Error} where no cloud can be asked @throws {CloudConfigError} @throws {OpenStackError}
 */
export async function readPorts(
  { host, journal }: PortsNode,
  options: PortsOptions,
  limits: Limits,
): Promise<{ report: PortsReport; warnings: readonly string[] }> {
  const { addresses, withoutPrimary } = options
  const warnings: string[] = []
  const clouds = cloudsOf(options, text => warnings.push(text))
  const knownPorts = journal === undefined ? [] : listKnownPorts(journal).map(({ portId }) => portId)
  const leases = journal === undefined ? [] : listLeases(journal)
  const recorded = new Set([...knownPorts, ...leases.map(({ portId }) => portId).filter(id => id !== '')])
  const pairs = new Map(journal === undefined ? [] : pairsOf(journal))
  const look = async (cloud: CloudReference, uses: readonly NeutronUse[]): Promise<CloudPorts> => {
    const nics = addresses.length > 0 ? [] : await Promise.all(uses.map(use => nicOf(use, host)))
    await using session = await open(cloud, text => warnings.push(text))
    const owners = addresses.length > 0 ? [] : uses.map(({ owner }) => owner)
    const target = { addresses, nics, knownPorts: [...recorded], owners }
    const ports = await readCloudPorts(session, target, limits)
    if (addresses.length === 0 && ports.servers.length === 0) warnings.push(noServer(ports.cloud, nics))
    return ports
  }
  const found: CloudPorts[] = []
  const failures: unknown[] = []
  for (const [cloud, uses] of clouds)
    await look(cloud, uses).then(
      ports => found.push(ports),
      error => failures.push(error),
    )
  if (found.length === 0) throw failures[0]
  const unseen = failures.map(error => (error instanceof Error ? error.message : String(error)))
  const report = joinPorts(
    found,
    { leases, knownPorts, pairs },
    { ofThisNode: addresses.length === 0, withoutPrimary, unseen },
  )
  return { report, warnings: [...new Set(warnings)] }
}

/** Those that were written; what is on its way may be there or not. */
const pairsOf = (journal: Journal): [portId: string, entries: string[]][] =>
  listKnownLists(journal)
    .filter(({ kind }) => kind === 'pairs')
    .map(list => [
      list.objectId,
      listEntries(journal, list).flatMap(({ entry, state }) => (state === 'held' ? [entry] : [])),
    ])

async function open(reference: CloudReference, warn: (text: string) => void): Promise<CloudSession & AsyncDisposable> {
  const cloud = 'conf' in reference ? cloudFromConf(reference.conf) : await loadCloud(reference.name)
  for (const warning of cloud.warnings) warn(warning)
  const session = openCloud(cloud)
  return { ...session, [Symbol.asyncDispose]: () => session.close() }
}

const nicOf = async ({ hostInterface, hostPort }: NeutronUse, host: PortsNode['host']): Promise<NodeNic> => ({
  uplink: await host.findUplink({ name: hostInterface }),
  hostPort,
})

function noServer(cloud: string, nics: readonly NodeNic[]): string {
  const names = nics.flatMap(({ uplink, hostPort }) => hostPort ?? uplink?.name ?? [])
  const reason =
    names.length === 0
      ? 'it has no default route, and no list names a NIC or port'
      : `no port fits ${[...new Set(names)].join(', ')} by address and MAC`
  return `this node is no server of cloud "${cloud}": ${reason}`
}

/** The clouds to ask, each with the ways in which networks of this node find its port there. */
function cloudsOf(options: PortsOptions, warn: (text: string) => void): [CloudReference, NeutronUse[]][] {
  if (options.cloud !== undefined) {
    const cloud = { name: options.cloud }
    const owner = { cluster: 'mooring', node: hostname() }
    return [[cloud, [{ cloud, hostInterface: undefined, hostPort: undefined, owner }]]]
  }
  const uses: NeutronUse[] = []
  for (const { file, config } of readPluginConfigs(options, warn)) {
    try {
      uses.push(...[neutronUseOf(config) ?? []].flat())
    } catch (error) {
      if (options.conflist !== undefined) throw new Error(`${file}: ${(error as Error).message}`, { cause: error })
      warn(`${file}: ${(error as Error).message}`)
    }
  }
  const clouds = Map.groupBy(uses, ({ cloud }) => JSON.stringify(cloud))
  if (clouds.size > 0) return [...clouds.values()].map(same => [same[0]!.cloud, same])
  const where = options.conflist?.join(', ') ?? options.confDir
  throw new Error(
    `Cannot look at ports: no network in ${where} takes its addresses from tcnp-ipam. Name a cloud of clouds.yaml ` +
      'with --cloud, or a network list with --conflist',
  )
}
