// SPDX-License-Identifier: Apache-2.0

// A node in a server of the simulated OpenStack, for tests of what goes wrong between veth-route, tcnp-ipam and Neutron.

import { type Simulator, startSimulator } from '#simulator'
import { type CallOptions, type Node, netnsOf, nodeOf } from '../nodelab.ts'

export type CloudNode = AsyncDisposable & {
  readonly simulator: Simulator
  readonly node: Node
  /** Addresses of the server's port, in order. */
  fixedIps(): string[]
  /** Ends every injected fault that was not met yet. */
  heal(): Promise<void>
  /** The configuration with addresses of the port: no reserve, nothing waits. */
  options(more?: object, neutronConf?: object): CallOptions & { more: { ipam: Record<string, unknown> } }
}

let count = 0

/** Starts a cloud of its own and a node in its first server. Needs root. */
export async function makeCloudNode(
  mode: Node['mode'],
  { wireDelayMs = 0 }: { wireDelayMs?: number } = {},
): Promise<CloudNode> {
  const prefix = `nl${process.pid}c${count++}`
  const simulator = await startSimulator({ dataplane: prefix, wireDelayMs })
  const node = nodeOf(netnsOf(`${prefix}-vm-worker-1`), mode)
  const { username, password, project } = simulator.accounts.demo
  const openstackConf = { username, password, project, domain: 'default', authUrl: simulator.authUrl }
  return {
    simulator,
    node,
    fixedIps: () => [...simulator.demo().servers['worker-1']!.ports[0]!.ips].sort(),
    heal: async () => void (await fetch(`${simulator.url}/simulator/inject`, { method: 'DELETE' })),
    options: (more = {}, neutronConf = {}) => ({
      more: {
        ipam: {
          type: 'tcnp-ipam',
          openstackConf,
          neutronConf: {
            mode: 'mix',
            networks: [simulator.demo().network_id],
            reserve: 0,
            usableAfterMs: 0,
            coolDownMs: 0,
            ...neutronConf,
          },
          routes: [{ dst: '0.0.0.0/0' }],
          ...more,
        },
      },
    }),
    [Symbol.asyncDispose]: () => simulator.close(),
  }
}
