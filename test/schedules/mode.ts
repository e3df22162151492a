// SPDX-License-Identifier: Apache-2.0

// What the modes of tcnp-ipam differ in, for who compares Neutron, journal and kernel.

import { type Journal, listAssignedAddresses, listIntents, listObjects, listPortAddresses } from '#allocator'
import { deadlineIn } from '#base'
import type { CloudSession } from '#openstack'
import { find, list, type Simulator } from '#simulator'

/** An address as the journal has it. `ours`: made by Mooring, in whatever state; `doubtful`: nobody can say whose. */
export type Held = {
  readonly address: string
  readonly containerId: string
  readonly kind: 'ours' | 'doubtful'
}

export type Mode = {
  readonly name: string
  readonly neutronConf: object
  /** How many schedules a run of the tests takes. */
  readonly schedules: number
  /** Makes what the mode needs and the cloud does not have. */
  prepare?(operator: CloudSession): Promise<void>
  /** Lists in the cloud whose entries, addresses or prefixes, have to stand for the pods' addresses, and for nothing else. */
  lists?(simulator: Simulator): Readonly<Record<string, readonly string[]>>
  /** CNI_ARGS of a container's calls. */
  argsOf?(containerId: string): string
  /** The addresses of pods, and those made for pods, in Neutron; also those that an operator put among them. */
  inNeutron(simulator: Simulator): string[]
  inJournal(journal: Journal): Held[]
  /** True where an operator may edit the port that carries the addresses, and the fate of no write is open. */
  mayEdit(journal: Journal): boolean
}

type Differences = Omit<Mode, 'name' | 'schedules' | 'neutronConf'>

const nodePort = (simulator: Simulator) => simulator.demo().servers['worker-1']!.ports[0]!.id

/** The node's own address, which was there first. */
export const NODE_ADDRESS = '10.10.10.11'

const onPort: Differences = {
  inNeutron: simulator =>
    find(simulator.state, 'ports', nodePort(simulator))!
      .fixed_ips.map(each => each.ip_address)
      .filter(address => address !== NODE_ADDRESS),
  inJournal(journal) {
    const owners = new Map(listAssignedAddresses(journal).map(each => [each.address, each.owner!.containerId]))
    return portsIn(journal).flatMap(portId =>
      listPortAddresses(journal, portId).flatMap(({ address, state }) =>
        state === 'foreign'
          ? []
          : [{ address, containerId: owners.get(address) ?? '', kind: state === 'quarantined' ? 'doubtful' : 'ours' }],
      ),
    )
  },
  mayEdit: journal => portsIn(journal).every(portId => listIntents(journal, portId).length === 0),
}

const portsIn = (journal: Journal): string[] =>
  journal
    .sql('SELECT DISTINCT port_id FROM port_address UNION SELECT DISTINCT port_id FROM port')
    .all()
    .map(row => String(row['port_id']))

const ofMooring = (simulator: Simulator, deviceOwner: string): string[] =>
  list(simulator.state, 'ports')
    .filter(port => port.device_owner.startsWith(deviceOwner))
    .flatMap(port => port.fixed_ips.map(each => each.ip_address))

/** A port of Mooring's own holds the addresses. */
const onHolder: Differences = {
  ...onPort,
  inNeutron: simulator => ofMooring(simulator, 'mooring'),
  mayEdit: () => false,
  lists: simulator => ({ pairs: pairsOf(simulator) }),
}

const pairsOf = (simulator: Simulator) =>
  find(simulator.state, 'ports', nodePort(simulator))!.allowed_address_pairs.map(each => each.ip_address)

const routesOf = (simulator: Simulator) =>
  find(simulator.state, 'routers', simulator.demo().router_id)!.routes.map(each => each.destination)

async function makePodNetwork({ neutron }: CloudSession): Promise<void> {
  const limits = { deadline: deadlineIn(10_000) }
  const { id } = await neutron.networks.create({ name: 'pods' }, limits)
  await neutron.subnets.create({ network_id: id, name: 'pods-4', cidr: '10.20.0.0/24', ip_version: 4 }, limits)
}

const ofObjects = (deviceOwner: string): Differences => ({
  inNeutron: simulator => ofMooring(simulator, deviceOwner),
  inJournal: journal =>
    listObjects(journal).flatMap(({ addresses, owner, state }) =>
      addresses.map(({ address }) => ({
        address,
        containerId: owner?.containerId ?? '',
        kind: state === 'quarantined' ? 'doubtful' : 'ours',
      })),
    ),
  mayEdit: () => false,
})

/** Two thirds of the pods name an address, each address two of them. */
function chosenAddress(containerId: string): string {
  const number = Number(/\d+/.exec(containerId)?.[0] ?? 0)
  return number % 3 === 0 ? '' : `IP=10.10.10.${50 + (number % 3)}`
}

const separate = { mode: 'separate', node: 'worker-1', idleMs: 0 }

export const modes: readonly Mode[] = [
  { name: 'mix', schedules: 300, neutronConf: { mode: 'mix' }, ...onPort },
  {
    name: 'mix with addresses that pods choose',
    schedules: 100,
    neutronConf: { mode: 'mix', allow: ['address'] },
    argsOf: chosenAddress,
    ...onPort,
  },
  { name: 'mix by pairs', schedules: 200, neutronConf: { mode: 'mix', binding: 'allowed_address_pairs' }, ...onHolder },
  {
    name: 'mix_route',
    schedules: 100,
    neutronConf: { mode: 'mix_route', podSubnets: ['pods-4'] },
    ...onHolder,
    prepare: makePodNetwork,
    lists: simulator => ({ pairs: pairsOf(simulator), routes: routesOf(simulator) }),
  },
  { name: 'separate', schedules: 300, neutronConf: separate, ...ofObjects('mooring:separate') },
]
