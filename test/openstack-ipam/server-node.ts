// SPDX-License-Identifier: Apache-2.0

// A node that is a server of the simulated OpenStack, with NICs that come and go as Nova attaches and detaches them, for tests
// of mode eni that need no root.

import type { TestContext } from 'node:test'
import { deadlineIn } from '#base'
import type { Host } from '#host'
import { type CloudSession, cloudFromConf, openCloud } from '#openstack'
import { type Simulator, type SimulatorOptions, startSimulator } from '#simulator'
import type { IpamConfig } from './cloud.ts'
import { type Node, type NodeOptions, nodeDirectory, nodeWithNic, startNode } from './node.ts'

export type ServerNode = {
  node: Node
  readonly simulator: Simulator
  readonly cloud: CloudSession
  readonly serverId: string
  readonly ipam: IpamConfig
  /** MACs whose link is not on the node: in a pod, or never come. */
  readonly away: Set<string>
  /** MACs of the server's NICs but the first, as Nova has them. */
  attached(): string[]
  /** Ports with our mark, by name. */
  marked(): { id: string; name: string; device_id: string; description: string; mac_address: string }[]
  /** Ends the node's process as `kill -9` does not: tidily. Another one follows, in the same boot unless told otherwise. */
  restart(bootId?: string): Promise<Node>
  /** Ends every injected fault that was not met yet. */
  heal(): Promise<void>
  limits(): { deadline: ReturnType<typeof deadlineIn> }
}

/** Attaches what a test asks for, quickly. */
export async function serverNode(
  t: TestContext,
  neutronConf: object = {},
  { longLived = true, gate, ...options }: SimulatorOptions & Partial<Pick<NodeOptions, 'longLived' | 'gate'>> = {},
): Promise<ServerNode> {
  const simulator = await startSimulator({ latency: { portUpMs: 5, detachMs: 5 }, ...options })
  t.after(() => simulator.close())
  const directory = nodeDirectory(t)
  const first = simulator.demo().servers['worker-1']!
  const [port] = first.ports
  const away = new Set<string>()
  const nics = () => simulator.demo().servers['worker-1']!.ports.map(each => each.mac)
  const host: Host = {
    ...nodeWithNic(`${port!.ips[0]}/24`, port!.mac),
    findNicName: async ({ mac }: { mac: string }) => {
      const index = away.has(mac) ? -1 : nics().indexOf(mac)
      return index < 0 ? undefined : `eth${index}`
    },
    awaitLinkChange: async () => await new Promise(resolve => setTimeout(resolve, 5)),
  }
  const { username, password, project } = simulator.accounts.demo
  const openstackConf = { username, password, project, domain: 'default', authUrl: simulator.authUrl }
  const cloud = openCloud(cloudFromConf(openstackConf))
  t.after(() => cloud.close())
  const gated = gate === undefined ? {} : { gate }
  const it: ServerNode = {
    node: startNode({ directory, host, longLived, ...gated }),
    simulator,
    cloud,
    serverId: first.id,
    away,
    ipam: {
      openstackConf,
      neutronConf: {
        networks: [simulator.demo().network_id],
        mode: 'eni',
        reserve: 0,
        coolDownMs: 0,
        plugMs: 200,
        ...neutronConf,
      },
      routes: [{ dst: '0.0.0.0/0' }],
    },
    attached: () => nics().slice(1),
    marked: () => [...simulator.state.rows.ports.live.values()].filter(each => each.name.startsWith('mooring-')),
    async restart(bootId = 'boot-1') {
      await it.node[Symbol.asyncDispose]()
      it.node = startNode({ directory, host, longLived, bootId, ...gated })
      return it.node
    },
    heal: async () => void (await fetch(`${simulator.url}/simulator/inject`, { method: 'DELETE' })),
    limits: () => ({ deadline: deadlineIn(5_000) }),
  }
  t.after(() => it.node[Symbol.asyncDispose]())
  return it
}
