// SPDX-License-Identifier: Apache-2.0
// Promise: on a real kubelet and containerd, inside real servers of a real Neutron, a Deployment gets addresses of the
// tenant network, its pods reach one another through Neutron's data plane, and after its deletion nothing is left.
// Method: both servers of lab/openstack become nodes of lab/kubernetes; our executables are installed on them as an
// operator does it. Needs root and both labs: `./mooring test kubelet` starts them.
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  addNode,
  connectNeutron,
  deleteNode,
  kubectl,
  missing,
  onNode,
  type Pod,
  readDemo,
  readPods,
  root,
  run,
  type Worker,
} from './labs.ts'

const NAMESPACE = 'mooring-kubelet'
const REPLICAS = 10

const deployment = JSON.stringify({
  apiVersion: 'apps/v1',
  kind: 'Deployment',
  metadata: { name: 'web', namespace: NAMESPACE },
  spec: {
    replicas: REPLICAS,
    selector: { matchLabels: { app: 'web' } },
    template: {
      metadata: { labels: { app: 'web' } },
      spec: {
        terminationGracePeriodSeconds: 1,
        topologySpreadConstraints: [
          {
            maxSkew: 1,
            topologyKey: 'kubernetes.io/hostname',
            whenUnsatisfiable: 'DoNotSchedule',
            labelSelector: { matchLabels: { app: 'web' } },
          },
        ],
        containers: [
          {
            name: 'web',
            image: 'mooring.lab/toolbox:1',
            imagePullPolicy: 'Never',
            readinessProbe: { httpGet: { path: '/hostname', port: 8080 }, periodSeconds: 1 },
          },
        ],
      },
    },
  },
})

function conflist(networkId: string): string {
  const ipam = {
    type: 'tcnp-ipam',
    cloud: 'oslab',
    neutronConf: { mode: 'mix', networks: [networkId] },
    routes: [{ dst: '0.0.0.0/0' }],
  }
  return JSON.stringify({ name: 'cni0', cniVersion: '1.1.0', plugins: [{ type: 'veth-route', ipam }] }, null, 2)
}

/** What an attachment could leave in a node's kernel. The neighbours that the kernel learns by itself are not among it. */
function kernelState(worker: Worker): { links: string[]; text: string } {
  const ip = (...args: string[]) => run('ip', ['-n', worker.name, ...args])
  const links = JSON.parse(ip('-j', 'link')) as { ifname: string }[]
  const text = [
    ip('address'),
    ip('route', 'show', 'table', 'all'),
    ip('rule'),
    ip('neighbour', 'show', 'proxy'),
    ip('neighbour', 'show', 'nud', 'permanent'),
    run('ip', ['netns', 'exec', worker.name, 'nft', 'list', 'ruleset']),
  ]
  // dummy0 carries the next hop of every pod; it is made once and kept.
  return {
    links: links
      .map(link => link.ifname)
      .filter(name => name !== 'dummy0')
      .sort(),
    text: text.join('\n'),
  }
}

async function eventually(what: string, seconds: number, check: () => void | Promise<void>): Promise<void> {
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

describe('a Deployment on a real kubelet in servers of OpenStack', {
  skip: missing ?? false,
  concurrency: false,
}, () => {
  const { networkId, workers } = missing === undefined ? readDemo() : { networkId: '', workers: [] }
  const folder = mkdtempSync(join(tmpdir(), 'mooring-kubelet-'))
  const folderOf = (worker: Worker) => join(folder, worker.name)
  const agents = new Map<Worker, ChildProcess>()
  let neutron: Awaited<ReturnType<typeof connectNeutron>>
  const fixedIpsBefore = new Map<Worker, Awaited<ReturnType<typeof neutron.fixedIps>>>()
  const kernelBefore = new Map<Worker, ReturnType<typeof kernelState>>()
  let pods: Pod[] = []

  const addressesOf = async (worker: Worker) => (await neutron.fixedIps(worker.portId)).map(fixed => fixed.ip_address)
  const logOf = (worker: Worker) => readFileSync(join(folderOf(worker), 'agent.log'), 'utf8').slice(-3000)

  function startAgent(worker: Worker): ChildProcess {
    const log = openSync(join(folderOf(worker), 'agent.log'), 'a')
    const command = 'echo $$ > /run/mooring.pid; exec "$@"'
    const agent = [
      `${root}/mooring`,
      'agent',
      '--socket',
      '/run/mooring/agent.sock',
      '--data-dir',
      join(folderOf(worker), 'data'),
    ]
    return spawn(`${root}/lab/kubernetes`, ['node', 'exec', worker.name, '--', 'sh', '-c', command, 'sh', ...agent], {
      stdio: ['ignore', log, log],
    })
  }

  before(async () => {
    neutron = await connectNeutron()
    for (const worker of workers) {
      fixedIpsBefore.set(worker, await neutron.fixedIps(worker.portId))
      for (const part of ['conf', 'bin', 'data']) mkdirSync(join(folderOf(worker), part), { recursive: true })
      addNode(worker, { conf: join(folderOf(worker), 'conf'), bin: join(folderOf(worker), 'bin') })
      onNode(worker, `${root}/mooring`, 'install', '--cni-bin', '/opt/cni/bin', '--mode', 'agent')
      agents.set(worker, startAgent(worker))
      writeFileSync(join(folderOf(worker), 'conf', '10-mooring.conflist'), conflist(networkId))
    }
    kubectl(`create namespace ${NAMESPACE}`)
  })

  after(async () => {
    for (const worker of workers) {
      try {
        deleteNode(worker)
      } finally {
        await neutron.setFixedIps(worker.portId, fixedIpsBefore.get(worker)!)
      }
    }
    kubectl(`delete namespace ${NAMESPACE} --ignore-not-found --wait=false`)
    rmSync(folder, { recursive: true, force: true })
  })

  test('both nodes become Ready: STATUS of the plugins is good', async () => {
    await eventually('nodes Ready', 60, () => {
      for (const worker of workers) {
        const type = '{.status.conditions[?(@.type=="Ready")]}'
        const ready = JSON.parse(run('kubectl', ['get', 'node', worker.name, '--output', `jsonpath=${type}`]))
        assert.equal(ready.status, 'True', `${worker.name}: ${ready.message}\n${logOf(worker)}`)
      }
    })
    for (const worker of workers) kernelBefore.set(worker, kernelState(worker))
  })

  test(`${REPLICAS} pods become ready on addresses of their node's Neutron port`, async () => {
    kubectl('apply --filename -', deployment)
    try {
      kubectl(`rollout status deployment/web --namespace ${NAMESPACE} --timeout=120s`)
    } catch (error) {
      const events = kubectl(`get events --namespace ${NAMESPACE} --field-selector type=Warning`)
      throw new Error(`${(error as Error).message}\n${events}\n${workers.map(logOf).join('\n')}`)
    }
    pods = readPods(NAMESPACE)
    assert.equal(pods.length, REPLICAS)
    assert.equal(new Set(pods.map(pod => pod.ip)).size, REPLICAS, 'every pod has an address of its own')
    for (const worker of workers) {
      const addresses = new Set(await addressesOf(worker))
      const own = pods.filter(pod => pod.node === worker.name)
      assert.equal(own.length, REPLICAS / 2)
      for (const pod of own)
        assert.ok(addresses.has(pod.ip), `${pod.ip} of ${pod.name} is in fixed_ips of ${worker.portId}`)
    }
  })

  test('every pod reaches every pod by HTTP, with its own address, across the servers by their Neutron NIC', () => {
    for (const from of pods) {
      const others = pods.filter(pod => pod !== from)
      const urls = others.map(pod => `http://${pod.ip}:8080/clientip`).join(' ')
      const answers = kubectl(`exec ${from.name} --namespace ${NAMESPACE} -- toolbox dial ${urls}`).trim().split('\n')
      assert.equal(answers.length, others.length)
      for (const answer of answers) assert.equal(answer.replace(/:\d+$/, ''), from.ip)
    }
    const [first, second] = workers as [Worker, Worker]
    const far = pods.find(pod => pod.node === second.name)!
    assert.match(
      run('ip', ['-n', first.name, 'route', 'get', far.ip]),
      / dev eth0 /,
      'the way is the NIC of the Neutron port',
    )
  })

  test('a server reaches the pods of the other one, and they see its address', () => {
    const [first, second] = workers as [Worker, Worker]
    for (const pod of pods.filter(pod => pod.node === second.name)) {
      const answer = onNode(first, 'toolbox', 'dial', `http://${pod.ip}:8080/clientip`).trim()
      assert.equal(answer.replace(/:\d+$/, ''), first.address)
    }
  })

  test('after the deletion nothing is left in kernel, journal and Neutron', async () => {
    kubectl(`delete deployment web --namespace ${NAMESPACE} --wait=false`)
    await eventually('pods gone', 90, () => assert.deepEqual(readPods(NAMESPACE), []))
    for (const worker of workers) {
      await eventually(`kernel of ${worker.name} as before`, 30, () => {
        const now = kernelState(worker)
        assert.deepEqual(now.links, kernelBefore.get(worker)!.links)
        for (const { ip } of pods)
          assert.ok(!now.text.includes(`${ip} `), `${ip} is gone from ${worker.name}:\n${now.text}`)
      })
      await eventually(`journal of ${worker.name} without attachments`, 30, () => {
        using journal = new DatabaseSync(join(folderOf(worker), 'data', 'journal.db'), { readOnly: true })
        assert.deepEqual(journal.prepare('SELECT * FROM attachment').all(), [])
        assert.deepEqual(journal.prepare("SELECT * FROM port_address WHERE state <> 'free'").all(), [])
      })
      await eventually(`fixed_ips of ${worker.name} are the server's own and the reserve`, 60, async () => {
        using journal = new DatabaseSync(join(folderOf(worker), 'data', 'journal.db'), { readOnly: true })
        const reserve = journal.prepare("SELECT address FROM port_address WHERE state = 'free'").all()
        const known = [
          ...fixedIpsBefore.get(worker)!.map(fixed => fixed.ip_address),
          ...reserve.map(row => String(row['address'])),
        ]
        assert.deepEqual((await addressesOf(worker)).sort(), known.sort())
      })
    }
  })

  test('an agent that is told to stop ends, and takes nothing along', async () => {
    for (const worker of workers) {
      const agent = agents.get(worker)!
      assert.equal(agent.exitCode, null, `the agent of ${worker.name} runs until now:\n${logOf(worker)}`)
      const ended = new Promise(resolve => agent.once('close', resolve))
      onNode(worker, 'sh', '-c', 'kill -TERM $(cat /run/mooring.pid)')
      assert.equal(await Promise.race([ended, sleep(10_000, 'still running after 10 s')]), 0, logOf(worker))
    }
  })
})
