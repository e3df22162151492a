// SPDX-License-Identifier: Apache-2.0
// Promise: on a real kubelet and containerd, inside real servers of a real Neutron, a Deployment gets addresses of the
// tenant network, its pods reach one another through Neutron's data plane and Services through kube-proxy, crashes of
// agent, containerd and node leave nothing behind, and a drained node is as it was before.
// Method: two servers of lab/openstack become nodes of lab/kubernetes; our executables are installed on them as an
// operator does it. Needs root and both labs: `./mooring test kubelet` starts them.
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import {
  connectNeutron,
  control,
  eventually,
  kubectl,
  missing,
  type Pod,
  readDemo,
  readPods,
  readReady,
} from './labs.ts'
import { createNode, type KernelState, type Node } from './node.ts'
import { countUplink } from './uplink.ts'

// Of its own per run: the namespace of an earlier one may still be on its way out.
const NAMESPACE = `mooring-kubelet-${process.pid}`
const LABEL = 'mooring-test=kubelet'
const REPLICAS = 10
const PORT = 8080

const selector = { app: 'web' }
const deployment = {
  apiVersion: 'apps/v1',
  kind: 'Deployment',
  metadata: { name: 'web', namespace: NAMESPACE },
  spec: {
    replicas: REPLICAS,
    selector: { matchLabels: selector },
    template: {
      metadata: { labels: selector },
      spec: {
        terminationGracePeriodSeconds: 1,
        topologySpreadConstraints: [
          {
            maxSkew: 1,
            topologyKey: 'kubernetes.io/hostname',
            whenUnsatisfiable: 'DoNotSchedule',
            labelSelector: { matchLabels: selector },
          },
        ],
        containers: [
          {
            name: 'web',
            image: 'mooring.lab/toolbox:1',
            imagePullPolicy: 'Never',
            readinessProbe: { httpGet: { path: '/hostname', port: PORT }, periodSeconds: 1 },
          },
        ],
      },
    },
  },
}
const service = {
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name: 'web', namespace: NAMESPACE },
  spec: { selector, ports: [{ port: 80, targetPort: PORT }] },
}

const conflistOf = (networkId: string) => ({
  name: 'cni0',
  cniVersion: '1.1.0',
  plugins: [
    {
      type: 'veth-route',
      ipam: {
        type: 'tcnp-ipam',
        cloud: 'oslab',
        neutronConf: { mode: 'mix', networks: [networkId] },
        routes: [{ dst: '0.0.0.0/0' }],
      },
    },
  ],
})

describe('Mooring on a real kubelet in servers of OpenStack', { skip: missing ?? false, concurrency: false }, () => {
  const demo = missing === undefined ? readDemo() : { networkId: '', workers: [] }
  const folder = mkdtempSync(join(tmpdir(), 'mooring-kubelet-'))
  const nodes = demo.workers.map(worker => createNode(worker, join(folder, worker.name)))
  const [first, second] = nodes as [Node, Node]
  const conflist = conflistOf(demo.networkId)
  let neutron: Awaited<ReturnType<typeof connectNeutron>>
  const fixedIpsBefore = new Map<Node, Awaited<ReturnType<typeof neutron.fixedIps>>>()
  const kernelBefore = new Map<Node, KernelState>()
  const everyAddress = new Set<string>()

  const fixedIps = async (node: Node) => (await neutron.fixedIps(node.portId)).map(fixed => fixed.ip_address).sort()
  const ownOf = (node: Node) => fixedIpsBefore.get(node)!.map(fixed => fixed.ip_address)
  const podsOn = (node: Node) => readPods(NAMESPACE).filter(pod => pod.node === node.name)
  const dial = (pod: Pod, ...urls: string[]) =>
    kubectl(`exec ${pod.name} --namespace ${NAMESPACE} -- toolbox dial ${urls.join(' ')}`)
      .trim()
      .split('\n')
  const withoutPort = (address: string) => address.replace(/:\d+$/, '')

  const ready = (node: Node, seconds = 60) =>
    eventually(`${node.name} Ready`, seconds, () => {
      const { status, message } = readReady(node)
      assert.equal(status, 'True', `${message}\n${node.log()}`)
    })

  /** Waits until the Deployment has `count` ready pods, each on an address of its node's Neutron port. */
  async function rollOut(count: number): Promise<Pod[]> {
    try {
      kubectl(`scale deployment/web --namespace ${NAMESPACE} --replicas ${count}`)
      kubectl(`rollout status deployment/web --namespace ${NAMESPACE} --timeout=90s`)
    } catch (error) {
      const events = kubectl(`get events --namespace ${NAMESPACE} --field-selector type=Warning`)
      throw new Error([(error as Error).message, events, ...nodes.map(node => node.log())].join('\n'))
    }
    let pods: Pod[] = []
    await eventually(`${count} pods`, 30, () => {
      pods = readPods(NAMESPACE)
      assert.equal(pods.length, count)
    })
    assert.equal(new Set(pods.map(pod => pod.ip)).size, count, 'every pod has an address of its own')
    for (const node of nodes) {
      const known = new Set(await fixedIps(node))
      for (const { ip, name, node: home } of pods)
        if (home === node.name) assert.ok(known.has(ip), `${ip} of ${name} is in fixed_ips of ${node.portId}`)
    }
    for (const { ip } of pods) everyAddress.add(ip)
    return pods
  }

  /** The journal has the attachments of the pods that run, and no others; addresses assigned are theirs. */
  async function recordsAreThePods(node: Node, seconds: number): Promise<void> {
    await eventually(`journal of ${node.name} has its pods only`, seconds, () => {
      const assigned = node.rows("SELECT address FROM port_address WHERE state = 'assigned'")
      const pods = podsOn(node)
      assert.deepEqual(assigned.map(row => row['address']).sort(), pods.map(pod => pod.ip).sort())
      assert.equal(node.rows('SELECT * FROM attachment').length, pods.length)
    })
  }

  before(async () => {
    neutron = await connectNeutron()
    kubectl(`delete namespaces --selector ${LABEL} --wait=false`)
    for (const node of nodes) {
      node.leave()
      fixedIpsBefore.set(node, await neutron.fixedIps(node.portId))
      node.join()
      kernelBefore.set(node, node.kernel())
      node.startAgent()
      node.configure(conflist)
    }
    kubectl(`create namespace ${NAMESPACE}`)
    kubectl(`label namespace ${NAMESPACE} ${LABEL}`)
  })

  after(async () => {
    await using clean = new AsyncDisposableStack()
    clean.defer(() => rmSync(folder, { recursive: true, force: true }))
    for (const node of nodes) {
      const before = fixedIpsBefore.get(node)
      if (before !== undefined) clean.defer(() => neutron.setFixedIps(node.portId, before))
      clean.defer(() => node.leave())
    }
    clean.defer(() => void kubectl(`delete namespace ${NAMESPACE} --ignore-not-found --wait=false`))
  })

  test('both nodes become Ready: STATUS of the plugins is good', async () => {
    for (const node of nodes) await ready(node)
  })

  test(`${REPLICAS} pods become ready on addresses of their node's Neutron port`, async () => {
    kubectl('apply --filename -', JSON.stringify(deployment))
    await rollOut(REPLICAS)
    for (const node of nodes) assert.equal(podsOn(node).length, REPLICAS / 2)
  })

  test("every pod reaches every pod with its own address, across the servers by Neutron's data plane alone", () => {
    const pods = readPods(NAMESPACE)
    // The labs' own link between the nodes carries no packet of a pod: it would be dropped there.
    using counters = countUplink(nodes, PORT)
    for (const from of pods) {
      const others = pods.filter(pod => pod !== from)
      const answers = dial(from, ...others.map(pod => `http://${pod.ip}:${PORT}/clientip`))
      assert.deepEqual(
        answers.map(withoutPort),
        others.map(() => from.ip),
      )
    }
    const across = 2 * podsOn(first).length * podsOn(second).length
    for (const { node, out, into, elsewhere } of counters.read()) {
      assert.ok(out >= across / 2, `${out} requests left ${node} by its Neutron NIC, ${across / 2} were made`)
      assert.ok(into >= across / 2, `${into} requests entered ${node} by its Neutron NIC`)
      assert.equal(elsewhere, 0, `requests of pods on another link of ${node}`)
    }
  })

  test('a server reaches the pods of the other one, and they see its address', () => {
    for (const pod of podsOn(second)) {
      const answer = first.exec('toolbox', 'dial', `http://${pod.ip}:${PORT}/clientip`).trim()
      assert.equal(withoutPort(answer), first.address)
    }
  })

  test('a Service is reached by its ClusterIP from pods and from the node, and leads to pods of both nodes', async () => {
    const { spec } = JSON.parse(kubectl('create --output json --filename -', JSON.stringify(service)))
    const url = `http://${spec.clusterIP}:80/hostname`
    const names = new Set(readPods(NAMESPACE).map(pod => pod.name))
    await eventually('the Service is programmed on both nodes', 20, () => {
      for (const node of nodes) assert.ok(names.has(node.exec('toolbox', 'dial', url).trim()))
    })
    for (const node of nodes) {
      const answers = dial(podsOn(node)[0]!, ...Array.from({ length: 24 }, () => url))
      assert.ok(
        answers.every(name => names.has(name)),
        answers.join(' '),
      )
      const homes = new Set(readPods(NAMESPACE).flatMap(pod => (answers.includes(pod.name) ? [pod.node] : [])))
      assert.equal(homes.size, 2, `24 answers came from ${[...homes].join(', ')}`)
    }
  })

  test('an agent that is killed takes no pod along, and the next one goes on', async () => {
    const old = readPods(NAMESPACE)
    first.signalAgent('KILL')
    const [near] = podsOn(first)
    const [far] = podsOn(second)
    assert.equal(withoutPort(dial(near!, `http://${far!.ip}:${PORT}/clientip`)[0]!), near!.ip)
    assert.equal(withoutPort(dial(far!, `http://${near!.ip}:${PORT}/clientip`)[0]!), far!.ip)
    first.startAgent()
    const pods = await rollOut(REPLICAS + 4)
    for (const { name } of old)
      assert.ok(
        pods.some(pod => pod.name === name),
        `${name} goes on`,
      )
    await recordsAreThePods(first, 30)
  })

  test('a stopped agent ends well, its node says why it is not Ready, DELs are kept for the next one', async () => {
    assert.equal(await second.stopAgent(), 0, second.log())
    await eventually(`${second.name} NotReady`, 30, () => {
      const { status, message } = readReady(second)
      assert.equal(status, 'False')
      assert.match(message, /Cannot serve: the agent does not run.*start it: mooring agent/)
    })
    const kept = podsOn(first)
    kubectl(`scale deployment/web --namespace ${NAMESPACE} --replicas ${REPLICAS}`)
    await eventually('pods are deleted without an agent', 30, () => assert.equal(readPods(NAMESPACE).length, REPLICAS))
    second.startAgent()
    await ready(second, 30)
    for (const node of nodes) await recordsAreThePods(node, 30)
    assert.ok(kept.length > 0)
  })

  test('a runtime that is killed during ADD leaves nothing: the pod starts anew, the first try is released', async () => {
    second.signalAgent('STOP')
    kubectl(`scale deployment/web --namespace ${NAMESPACE} --replicas ${REPLICAS + 4}`)
    await eventually('an ADD is under way', 30, () => void second.exec('pgrep', '--exact', 'veth-route'))
    control('kill', second, 'containerd')
    second.signalAgent('CONT')
    control('start', second, 'containerd')
    await rollOut(REPLICAS + 4)
    for (const node of nodes) await recordsAreThePods(node, 60)
  })

  test('a node that lost its power with its pods: everything is released within 60 s of the agent’s start', async () => {
    kubectl(`cordon ${second.name}`)
    second.cutPower()
    kubectl(
      `delete pods --namespace ${NAMESPACE} --field-selector spec.nodeName=${second.name} --force --grace-period=0`,
    )
    second.unconfigure()
    second.join()
    second.startAgent()
    second.configure(conflist)
    const begin = Date.now()
    await eventually('nothing of the old pods is left', 60, async () => {
      assert.deepEqual(second.rows('SELECT * FROM attachment'), [])
      const reserve = second
        .rows("SELECT address FROM port_address WHERE state = 'free'")
        .map(row => String(row['address']))
      assert.deepEqual(await fixedIps(second), [...ownOf(second), ...reserve].sort())
    })
    assert.ok(Date.now() - begin <= 60_000)
    await ready(second)
    kubectl(`uncordon ${second.name}`)
    await rollOut(REPLICAS)
  })

  test('after the deletion and a drain nothing is left in kernel, journal and Neutron', async () => {
    kubectl(`drain ${second.name} --ignore-daemonsets --delete-emptydir-data`)
    kubectl(`delete deployment web --namespace ${NAMESPACE} --wait=false`)
    await eventually('pods gone', 60, () => assert.deepEqual(readPods(NAMESPACE), []))
    for (const node of nodes) {
      await recordsAreThePods(node, 30)
      await eventually(`kernel of ${node.name} as before`, 30, () => {
        const [before, now] = [kernelBefore.get(node)!, node.kernel()]
        assert.deepEqual(now.links, before.links)
        const left = [...everyAddress].filter(ip => now.text.includes(`${ip} `) && !before.text.includes(`${ip} `))
        assert.deepEqual(left, [], now.text)
      })
      assert.equal(await node.stopAgent(), 0, node.log())
      node.drain()
      assert.deepEqual(node.uninstall(), [], 'files of ours in /opt/cni/bin')
      assert.deepEqual(await fixedIps(node), ownOf(node).sort())
      for (const table of ['attachment', 'port', 'port_address', 'port_intent', 'port_want'])
        assert.deepEqual(node.rows(`SELECT * FROM ${table}`), [], table)
      assert.deepEqual(node.filesWith(process.env['OS_PASSWORD']!), [], 'the password stands in no file')
    }
  })
})
