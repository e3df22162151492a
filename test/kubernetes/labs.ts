// SPDX-License-Identifier: Apache-2.0
// The two labs as the kubelet test needs them: commands of lab/, and Neutron asked directly, not through our own client.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '')

/** Why the test cannot run here, undefined where both labs are up. */
export const missing: string | undefined =
  process.getuid?.() !== 0
    ? 'needs root'
    : process.env['OSLAB_DEMO_JSON'] === undefined || process.env['KUBECONFIG'] === undefined
      ? 'needs lab/openstack and lab/kubernetes: ./mooring test kubelet'
      : undefined

/** Runs a program to its end and gives its stdout. @throws {Error} with its output where it fails */
export function run(program: string, args: readonly string[], input?: string): string {
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8', input })
  if (status === 0) return stdout
  throw new Error(`${program} ${args.join(' ')}: ${error?.message ?? `status ${status}`}\n${stdout}${stderr}`)
}

export function kubectl(args: string, input?: string): string {
  return run('kubectl', args.split(' '), input)
}

export interface Worker {
  /** Name of the node and of its server's network namespace. */
  readonly name: string
  readonly portId: string
  readonly address: string
}

export interface Demo {
  readonly networkId: string
  readonly workers: readonly [Worker, Worker]
}

/**
 * Network and two servers that `lab/openstack demo` made. Another file in its form (OSLAB_DEMO_JSON) with further servers
 * lets the test run beside somebody who uses those.
 */
export function readDemo(): Demo {
  const demo = JSON.parse(readFileSync(process.env['OSLAB_DEMO_JSON']!, 'utf8'))
  const worker = (server: string): Worker => {
    const [port] = demo.servers[server].ports
    return { name: `vm-${server}`, portId: port.id, address: port.ips[0] }
  }
  const [first, second] = Object.keys(demo.servers)
    .filter(server => server.startsWith('worker-'))
    .sort()
  assert.ok(first !== undefined && second !== undefined, 'two servers: lab/openstack demo')
  return { networkId: demo.network_id, workers: [worker(first), worker(second)] }
}

/** A command on a node, in all its namespaces. */
export function onNode(worker: Worker, ...command: string[]): string {
  return run(`${root}/lab/kubernetes`, ['node', 'exec', worker.name, '--', ...command])
}

/** Adds a server of the OpenStack lab to the cluster; the OpenStack APIs are reachable there on 127.0.0.1 as they are here. */
export function addNode(worker: Worker, folders: { conf: string; bin: string }): void {
  const apis = ['15000', '19696', '18774', '18778'].join(',')
  const options = ['--netns', worker.name, '--cni-conf', folders.conf, '--cni-bin', folders.bin, '--forward', apis]
  run(`${root}/lab/kubernetes`, ['node', 'add', worker.name, ...options])
}

/** Takes a server out of the cluster, where it is in it. */
export function deleteNode(worker: Worker): void {
  const names = run(`${root}/lab/kubernetes`, ['node', 'list'])
    .split('\n')
    .map(line => line.split(/\s/)[0])
  if (names.includes(worker.name)) run(`${root}/lab/kubernetes`, ['node', 'del', worker.name])
}

/** Starts or kills a program of a node: kubelet, containerd, kube-proxy. */
export function control(verb: 'start' | 'kill', worker: Worker, program: string): void {
  run(`${root}/lab/kubernetes`, ['node', verb, worker.name, program])
}

export interface Pod {
  readonly name: string
  readonly node: string
  readonly ip: string
}

export function readPods(namespace: string): Pod[] {
  const { items } = JSON.parse(kubectl(`get pods --namespace ${namespace} --output json`))
  return items.map((pod: { metadata: { name: string }; spec: { nodeName: string }; status: { podIP: string } }) => ({
    name: pod.metadata.name,
    node: pod.spec.nodeName,
    ip: pod.status.podIP,
  }))
}

/** A node's condition `Ready`. */
export function readReady(worker: Worker): { readonly status: string; readonly message: string } {
  const path = '{.status.conditions[?(@.type=="Ready")]}'
  return JSON.parse(run('kubectl', ['get', 'node', worker.name, '--output', `jsonpath=${path}`]))
}

export async function eventually(what: string, seconds: number, check: () => void | Promise<void>): Promise<void> {
  const end = Date.now() + seconds * 1000
  for (;;) {
    try {
      return await check()
    } catch (error) {
      if (Date.now() > end)
        throw new Error(`${what}: not within ${seconds} s: ${(error as Error).message}`, { cause: error })
    }
    await sleep(250)
  }
}

type FixedIp = { readonly subnet_id: string; readonly ip_address: string }

/** Neutron's ports as the lab's `demo` user sees and changes them. */
export async function connectNeutron() {
  const env = (name: string) => process.env[name] ?? ''
  const domain = { name: env('OS_USER_DOMAIN_NAME') }
  const auth = {
    identity: {
      methods: ['password'],
      password: { user: { name: env('OS_USERNAME'), password: env('OS_PASSWORD'), domain } },
    },
    scope: { project: { name: env('OS_PROJECT_NAME'), domain } },
  }
  const login = await fetch(`${env('OS_AUTH_URL')}/auth/tokens`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ auth }),
  })
  const { token } = (await login.json()) as {
    token: { catalog: { type: string; endpoints: { interface: string; url: string }[] }[] }
  }
  const endpoints = token.catalog.find(service => service.type === 'network')!.endpoints
  const ports = `${endpoints.find(endpoint => endpoint.interface === 'public')!.url}/v2.0/ports`
  const headers = { 'content-type': 'application/json', 'x-auth-token': login.headers.get('x-subject-token')! }
  return {
    async fixedIps(portId: string): Promise<FixedIp[]> {
      const answer = await fetch(`${ports}/${portId}`, { headers })
      return ((await answer.json()) as { port: { fixed_ips: FixedIp[] } }).port.fixed_ips
    },
    async setFixedIps(portId: string, fixedIps: readonly FixedIp[]): Promise<void> {
      const body = JSON.stringify({ port: { fixed_ips: fixedIps } })
      const answer = await fetch(`${ports}/${portId}`, { method: 'PUT', headers, body })
      if (!answer.ok) throw new Error(`Cannot set the fixed_ips of port ${portId}: ${await answer.text()}`)
    },
  }
}
