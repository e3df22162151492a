// SPDX-License-Identifier: Apache-2.0

// What the modes of tcnp-ipam differ in, for who compares Neutron, journal and kernel.

import { type Journal, listAssignedAddresses, listIntents, listObjects, listPortAddresses } from '#allocator'
import { deadlineIn } from '#base'
import type { CloudSession } from '#openstack'
import { find, list, type Simulator, type SimulatorOptions } from '#simulator'
import { type EditByHand, editAddresses, editNics, NODE_ADDRESS } from './hand.ts'
import { fakeKernel, type Kernel, type KernelSite, realKernel } from './kernel.ts'
import { fakeNics, realNics } from './nics.ts'
import type { Gives, Schedule } from './schedule.ts'

/** An address as the journal has it. `ours`: made by Mooring, in whatever state; `doubtful`: nobody can say whose. */
export type Held = {
  readonly address: string
  readonly containerId: string
  readonly kind: 'ours' | 'doubtful'
}

export type Mode = {
  readonly name: string
  /** The interface plugin. */
  readonly type: 'veth-route' | 'host-device'
  /** What of this node a pod gets, besides addresses: what makes a schedule for it. */
  readonly gives: Gives
  /** True where containers need namespaces of their own, also in memory. */
  readonly needsRoot: boolean
  readonly kernels: Readonly<Record<'fake' | 'real', (site: KernelSite) => Kernel>>
  neutronConf(schedule: Schedule): object
  /** What sets the cloud apart from a usual one. */
  cloud?(schedule: Schedule): SimulatorOptions
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
  /** True where an operator may edit what carries the addresses, and the fate of no write is open. */
  mayEdit(journal: Journal): boolean
  /** What an operator does there. */
  edit: EditByHand
}

type Differences = Pick<Mode, 'lists' | 'inNeutron' | 'inJournal' | 'mayEdit' | 'edit'>

const nodePort = (simulator: Simulator) => simulator.demo().servers['worker-1']!.ports[0]!.id

const onPort: Differences = {
  edit: editAddresses,
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

const addressesOf = (simulator: Simulator, which: (port: Port) => boolean): string[] =>
  list(simulator.state, 'ports')
    .filter(which)
    .flatMap(port => port.fixed_ips.map(each => each.ip_address))

type Port = ReturnType<typeof list<'ports'>>[number]

const ofMooring = (simulator: Simulator, deviceOwner: string): string[] =>
  addressesOf(simulator, port => port.device_owner.startsWith(deviceOwner))

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
  const limits = { deadline: deadlineIn(60_000) }
  const { id } = await neutron.networks.create({ name: 'pods' }, limits)
  await neutron.subnets.create({ network_id: id, name: 'pods-4', cidr: '10.20.0.0/24', ip_version: 4 }, limits)
}

const ofObjects: Omit<Differences, 'inNeutron'> = {
  edit: editAddresses,
  inJournal: journal =>
    listObjects(journal).flatMap(({ addresses, owner, state }) =>
      addresses.map(({ address }) => ({
        address,
        containerId: owner?.containerId ?? '',
        kind: state === 'quarantined' ? 'doubtful' : 'ours',
      })),
    ),
  mayEdit: () => false,
}

const serverId = (simulator: Simulator) => simulator.demo().servers['worker-1']!.id

/** NICs of the server but its first. */
const nicsOf = (simulator: Simulator): string[] => {
  const { id, ports } = find(simulator.state, 'servers', serverId(simulator))!
  const attached = new Set(ports.slice(1).map(nic => nic.id))
  return addressesOf(simulator, port => attached.has(port.id) && port.device_id === id)
}

const onNics: Differences = {
  ...ofObjects,
  inNeutron: simulator => [
    ...new Set([...nicsOf(simulator), ...addressesOf(simulator, port => port.name.startsWith('mooring-'))]),
  ],
  // A NIC that nobody attached stands for nobody's address.
  lists: simulator => ({ NICs: nicsOf(simulator) }),
  // A NIC of an operator has no mark of ours, whatever we are about to do.
  mayEdit: () => true,
  edit: editNics,
}

/** NICs that the node's configuration allows, with the first. */
const NICS_MAX = [16, 3, 5, 16]

/** One that is quick or not, and whose hypervisor has few slots or many. */
const novaOf = ({ seed }: Schedule): SimulatorOptions => ({
  latency: { attachMs: [20, 1, 120][seed % 3]!, detachMs: [1, 60][seed % 2]!, portUpMs: [1, 1, 60][seed % 3]! },
  maxNics: seed % 5 === 0 ? 4 : 28,
})

/** Two thirds of the pods name an address, each address two of them. */
function chosenAddress(containerId: string): string {
  const number = Number(/\d+/.exec(containerId)?.[0] ?? 0)
  return number % 3 === 0 ? '' : `IP=10.10.10.${50 + (number % 3)}`
}

const separate = { mode: 'separate', node: 'worker-1', idleMs: 0 }
const eni = ({ seed }: Schedule) => ({
  ...{ mode: 'eni', node: 'worker-1', plugMs: 150 },
  ...{ maxNics: NICS_MAX[seed % NICS_MAX.length], idleMs: seed % 3 === 0 ? 0 : 60_000 },
})

const routed = {
  type: 'veth-route',
  gives: 'addresses',
  needsRoot: false,
  kernels: { fake: fakeKernel, real: realKernel },
} as const
const moved = {
  type: 'host-device',
  gives: 'nics',
  needsRoot: true,
  kernels: { fake: fakeNics, real: realNics },
} as const

export const modes: readonly Mode[] = [
  { name: 'mix', schedules: 250, ...routed, neutronConf: () => ({ mode: 'mix' }), ...onPort },
  {
    name: 'mix with addresses that pods choose',
    schedules: 100,
    ...routed,
    neutronConf: () => ({ mode: 'mix', allow: ['address'] }),
    argsOf: chosenAddress,
    ...onPort,
  },
  {
    name: 'mix by pairs',
    schedules: 150,
    ...routed,
    neutronConf: () => ({ mode: 'mix', binding: 'allowed_address_pairs' }),
    ...onHolder,
  },
  {
    name: 'mix_route',
    schedules: 100,
    ...routed,
    neutronConf: () => ({ mode: 'mix_route', podSubnets: ['pods-4'] }),
    ...onHolder,
    prepare: makePodNetwork,
    lists: simulator => ({ pairs: pairsOf(simulator), routes: routesOf(simulator) }),
  },
  {
    name: 'separate',
    schedules: 300,
    ...routed,
    neutronConf: () => separate,
    ...ofObjects,
    inNeutron: simulator => ofMooring(simulator, 'mooring:separate'),
  },
  { name: 'eni', schedules: 100, ...moved, neutronConf: eni, cloud: novaOf, ...onNics },
]
