// SPDX-License-Identifier: Apache-2.0

// What the modes of tcnp-ipam differ in, for who compares Neutron, journal and kernel.

import { type Journal, listAssignedAddresses, listIntents, listPortAddresses } from '#allocator'
import { find, type Simulator } from '#simulator'

/** An address as the journal has it. `ours`: made by Mooring, in whatever state; `doubtful`: nobody can say whose. */
export type Held = {
  readonly address: string
  readonly containerId: string
  readonly kind: 'ours' | 'doubtful'
}

export type Mode = {
  readonly name: string
  readonly neutronConf: object
  /** How many of the schedules. Default: all. */
  readonly schedules?: number
  /** CNI_ARGS of a container's calls. */
  argsOf?(containerId: string): string
  /** The addresses of pods, and those made for pods, in Neutron; also those that an operator put among them. */
  inNeutron(simulator: Simulator): string[]
  inJournal(journal: Journal): Held[]
  /** Writes whose outcome nobody knows yet. */
  isUndecided(journal: Journal): boolean
}

const nodePort = (simulator: Simulator) => simulator.demo().servers['worker-1']!.ports[0]!.id

/** The node's own address, which was there first. */
export const NODE_ADDRESS = '10.10.10.11'

const onPort: Omit<Mode, 'name' | 'neutronConf'> = {
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
  isUndecided: journal => portsIn(journal).some(portId => listIntents(journal, portId).length > 0),
}

const portsIn = (journal: Journal): string[] =>
  journal
    .sql('SELECT DISTINCT port_id FROM port_address UNION SELECT DISTINCT port_id FROM port')
    .all()
    .map(row => String(row['port_id']))

/** Two thirds of the pods name an address, each address two of them. */
function chosenAddress(containerId: string): string {
  const number = Number(/\d+/.exec(containerId)?.[0] ?? 0)
  return number % 3 === 0 ? '' : `IP=10.10.10.${50 + (number % 3)}`
}

export const modes: readonly Mode[] = [
  { name: 'mix', neutronConf: { mode: 'mix' }, ...onPort },
  {
    name: 'mix with addresses that pods choose',
    neutronConf: { mode: 'mix', allow: ['address'] },
    schedules: 100,
    argsOf: chosenAddress,
    ...onPort,
  },
]
