// SPDX-License-Identifier: Apache-2.0

/**
 * The simulated OpenStack: Keystone, Neutron and Nova as one HTTP program, whose answers are those recorded from real
 * ones, with faults on demand and, for root, a data plane of network namespaces. For the demo and for tests, ours and
 * users'. Nothing of the product may depend on it.
 */
export { cloudsYaml, runSimulator, type SimulatorCommand } from './command.ts'
export type { InjectedAct, Injection, RequestRecord } from './injection.ts'
export type { Account, Accounts, Demo, DemoPort } from './seed.ts'
export { type Simulator, type SimulatorOptions, startSimulator } from './simulator.ts'
export { find, type Latency, list, quickLatency, recordedLatency, type Settings, type State } from './state.ts'
