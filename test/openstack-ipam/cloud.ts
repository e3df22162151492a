// SPDX-License-Identifier: Apache-2.0

// A simulated OpenStack and a node in its first server, for tests of tcnp-ipam that need no root.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { deadlineIn } from '#base'
import { type CloudSession, cloudFromConf, openCloud } from '#openstack'
import { type Simulator, startSimulator } from '#simulator'
import { type Node, type NodeOptions, nodeDirectory, nodeWithNic, startNode } from './node.ts'

export type IpamConfig = {
  openstackConf: { username: string; password: string; project: string; domain: string; authUrl: string }
  neutronConf: object
  routes: object[]
}
type Setup = {
  node: Node
  simulator: Simulator
  directory: string
  ipam: IpamConfig
  restart(): Promise<Node>
}

const fast = { usableAfterMs: 0, coolDownMs: 0 }

/**
 * A cloud of its own, and a node: with its agent's part for `longLived`, else as a process per call. Commands beside it
 * need the machine's own `bootId`.
 */
export async function setUp(
  t: TestContext,
  longLived = true,
  neutronConf: object = {},
  boot: Pick<NodeOptions, 'bootId' | 'gate'> = {},
): Promise<Setup> {
  const simulator = await startSimulator()
  t.after(() => simulator.close())
  const directory = nodeDirectory(t)
  const [port] = simulator.demo().servers['worker-1']!.ports
  const host = nodeWithNic(`${port!.ips[0]}/24`, port!.mac)
  let node = startNode({ directory, host, longLived, ...boot })
  t.after(() => node[Symbol.asyncDispose]())
  const { username, password, project } = simulator.accounts.demo
  const ipam = {
    openstackConf: { username, password, project, domain: 'default', authUrl: simulator.authUrl },
    neutronConf: { networks: [simulator.demo().network_id], mode: 'mix', ...fast, reserve: 0, ...neutronConf },
    routes: [{ dst: '0.0.0.0/0' }],
  }
  const restart = async () => {
    await node[Symbol.asyncDispose]()
    node = startNode({ directory, host, longLived, ...boot })
    return node
  }
  return { node, simulator, directory, ipam, restart }
}

export const portOf = (simulator: Simulator) => simulator.demo().servers['worker-1']!.ports[0]!
export const neutronList = (simulator: Simulator): string[] => [...portOf(simulator).ips].sort()
export const isPut = ({ method, path }: { method: string; path: string }) =>
  method === 'PUT' && path.includes('/ports/')

/** Of a call of the test's own. */
export const limits = () => ({ deadline: deadlineIn(5_000) })

/** The cloud as its administrator sees it. */
export function adminCloud(t: TestContext, simulator: Simulator): CloudSession {
  const { username, password, project } = simulator.accounts.admin
  const cloud = openCloud(cloudFromConf({ username, password, project, domain: 'default', authUrl: simulator.authUrl }))
  t.after(() => cloud.close())
  return cloud
}

/** Requests to Neutron that the product has no need of, as a user of the demo or as administrator. */
export async function neutronByHand(
  { authUrl, endpoints, accounts }: Simulator,
  who: 'demo' | 'admin',
): Promise<(method: 'POST' | 'PUT', path: string, body: object) => Promise<unknown>> {
  const { username, password, project } = accounts[who]
  const domain = { id: 'default' }
  const login = await fetch(`${authUrl}/auth/tokens`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      auth: {
        identity: { methods: ['password'], password: { user: { name: username, password, domain } } },
        scope: { project: { name: project, domain } },
      },
    }),
  })
  const headers = { 'content-type': 'application/json', 'x-auth-token': login.headers.get('x-subject-token')! }
  return async (method, path, body) => {
    const answer = await fetch(`${endpoints.network}/v2.0/${path}`, { method, headers, body: JSON.stringify(body) })
    const text = await answer.text()
    assert.ok(answer.ok, text)
    return JSON.parse(text)
  }
}

/** A network of its own with a /29 and a port on it that stands for a node's. */
export async function smallNetwork(
  t: TestContext,
  simulator: Simulator,
): Promise<{ cloud: CloudSession; hostPort: string }> {
  const cloud = adminCloud(t, simulator)
  const network = await cloud.neutron.networks.create({ name: 'small' }, limits())
  await cloud.neutron.subnets.create({ network_id: network.id, cidr: '10.77.0.0/29', ip_version: 4 }, limits())
  const port = await cloud.neutron.ports.create({ network_id: network.id, name: 'small-host' }, limits())
  return { cloud, hostPort: port.id }
}

/** A configuration for a port that is not the demo's. */
export const asAdmin = (ipam: IpamConfig, simulator: Simulator, neutronConf: object): object => ({
  openstackConf: { ...simulator.accounts.admin, domain: 'default', authUrl: ipam.openstackConf.authUrl },
  neutronConf: { ...fast, reserve: 0, ...neutronConf },
})

const launcher = join(import.meta.dirname, '../../mooring')

/** Runs the command `mooring` to its end. */
export function mooring(...command: string[]): Promise<{ status: number | null; output: string }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number | null; output: string }>()
  const child = spawn(launcher, command)
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', data => (output += data))
  child.on('error', reject)
  child.on('close', status => resolve({ status, output }))
  return promise
}
