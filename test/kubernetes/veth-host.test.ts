// SPDX-License-Identifier: Apache-2.0
// Promise: with veth-host behind macvlan, Services of a real kube-proxy work for pods, for their node and from outside, in
// nftables and in iptables mode, with the default route by the pod's NIC and by the node, by IPv4 and by IPv6.
// Method: two nodes of lab/kubernetes, one per mode of kube-proxy, pods with addresses of the nodes' own segment, in each
// family that the cluster has. Needs root and the lab: `./mooring test test/kubernetes/veth-host` starts it.
import assert from 'node:assert/strict'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { eventually, kubectl, root, run } from './labs.ts'

const missing =
  process.getuid?.() !== 0
    ? 'needs root'
    : process.env['KUBECONFIG'] === undefined
      ? 'needs lab/kubernetes: ./mooring test test/kubernetes'
      : false
const lab = (...args: string[]) => run(`${root}/lab/kubernetes`, args)

// Of its own per run: the namespace of an earlier one may still be on its way out.
const NAMESPACE = `mooring-veth-host-${process.pid}`
const PORT = 8080
const UDP_PORT = 8081
/** Where the lab's own programs live, outside of the cluster. */
const OUTSIDE = { netns: 'kubelab', addresses: ['198.18.0.1', 'fd18::1'] }
/** A macvlan of ours where there is one, else Debian's, which lab/kubernetes brings. */
const DEBIAN_PLUGINS = '/usr/lib/cni'

type Node = {
  readonly name: string
  readonly proxy: 'nftables' | 'iptables'
  readonly first: number
  addresses: string[]
}
const nodes: readonly [Node, Node] = [
  { name: 'veth-host-1', proxy: 'nftables', first: 100, addresses: [] },
  { name: 'veth-host-2', proxy: 'iptables', first: 150, addresses: [] },
]

/** The networks of Services: one for each family that the cluster has. */
const serviceCidrs = (): string[] => JSON.parse(kubectl('get servicecidr kubernetes --output json')).spec.cidrs

const conflist = ({ first }: Node, cidrs: readonly string[], keys: object) => {
  const last = first + 40
  const ranges = [
    { subnet: '198.18.0.0/24', rangeStart: `198.18.0.${first}`, rangeEnd: `198.18.0.${last}` },
    { subnet: 'fd18::/64', rangeStart: `fd18::${first}`, rangeEnd: `fd18::${last}` },
  ].map((range, family) => [{ ...range, gateway: OUTSIDE.addresses[family] }])
  const routes = [{ dst: '0.0.0.0/0' }, { dst: '::/0' }]
  return {
    name: 'segment',
    cniVersion: '1.0.0',
    plugins: [
      {
        type: 'macvlan',
        master: 'eth0',
        ipam: { type: 'host-local', ranges: ranges.slice(0, cidrs.length), routes: routes.slice(0, cidrs.length) },
      },
      { type: 'veth-host', serviceCidr: cidrs, hostInterface: 'eth0', containerInterface: 'veth0', ...keys },
    ],
  }
}

/** As it stands in a URL, and before a port. */
const bracketed = (address: string): string => (address.includes(':') ? `[${address}]` : address)

const podOf = (name: string, node: Node, hostNetwork = false) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, namespace: NAMESPACE, labels: { app: name } },
  spec: {
    nodeName: node.name,
    hostNetwork,
    terminationGracePeriodSeconds: 0,
    containers: [
      {
        name: 'web',
        image: 'mooring.lab/toolbox:1',
        imagePullPolicy: 'Never',
        readinessProbe: { httpGet: { path: '/hostname', port: PORT }, periodSeconds: 1 },
      },
    ],
  },
})

const serviceOf = (name: string, externalTrafficPolicy: 'Cluster' | 'Local') => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name: `${name}-${externalTrafficPolicy.toLowerCase()}`, namespace: NAMESPACE },
  spec: {
    type: 'NodePort',
    externalTrafficPolicy,
    ipFamilyPolicy: 'PreferDualStack',
    selector: { app: name },
    ports: [
      { name: 'http', port: 80, targetPort: PORT },
      { name: 'udp', port: 81, targetPort: UDP_PORT, protocol: 'UDP' },
    ],
  },
})

type Service = { readonly addresses: readonly string[]; readonly nodePort: number; readonly udpNodePort: number }

describe('veth-host with the real kube-proxy', { skip: missing, concurrency: false }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'mooring-veth-host-'))
  const onNode = (node: Node, ...command: string[]) => lab('node', 'exec', node.name, '--', ...command)
  /** Runs `toolbox dial URL…` somewhere. @returns a line per URL */
  type Dial = (...urls: string[]) => string[]
  const answers = (text: string) => text.trimEnd().split('\n')
  const dialFrom =
    (pod: string): Dial =>
    (...urls) =>
      answers(run('kubectl', ['exec', pod, '--namespace', NAMESPACE, '--', 'toolbox', 'dial', ...urls]))
  const dialOn =
    (node: Node): Dial =>
    (...urls) =>
      answers(onNode(node, 'toolbox', 'dial', ...urls))
  const dialOutside: Dial = (...urls) =>
    answers(run('nsenter', [`--net=/run/netns/${OUTSIDE.netns}`, 'toolbox', 'dial', ...urls]))

  let cidrs: readonly string[] = []
  before(() => {
    cidrs = serviceCidrs()
    for (const node of nodes) {
      const [conf, bin] = ['conf', 'bin'].map(part => join(folder, node.name, part)) as [string, string]
      for (const path of [conf, bin]) mkdirSync(path, { recursive: true })
      lab('node', 'add', node.name, '--proxy', node.proxy, '--cni-conf', conf, '--cni-bin', bin)
      onNode(node, `${root}/mooring`, 'install', '--cni-bin', '/opt/cni/bin', '--mode', 'standalone')
      for (const type of ['macvlan', 'loopback'])
        if (!existsSync(join(bin, type))) copyFileSync(join(DEBIAN_PLUGINS, type), join(bin, type))
      const [{ addr_info: all }] = JSON.parse(onNode(node, 'ip', '-j', 'addr', 'show', 'eth0'))
      node.addresses = (all as { local: string; scope: string }[])
        .filter(({ scope }) => scope === 'global')
        .map(({ local }) => bracketed(local))
    }
    kubectl(`create namespace ${NAMESPACE}`)
  })
  after(async () => {
    await using clean = new AsyncDisposableStack()
    clean.defer(() => rmSync(folder, { recursive: true, force: true }))
    for (const { name } of nodes) clean.defer(() => void lab('node', 'del', name))
    clean.defer(() => void kubectl(`delete namespace ${NAMESPACE} --ignore-not-found --wait=false`))
  })

  for (const [shape, keys] of [
    ['default route by the NIC', {}],
    ['default route by the node', { isDefaultGateway: true }],
  ] as const)
    test(`${shape}: Services and NodePorts, with backends everywhere`, { timeout: 240_000 }, async t => {
      const [first, second] = nodes
      const home = new Map([
        ['a1', first],
        ['a2', first],
        ['b1', second],
        ['b2', second],
        ['host-1', first],
        ['host-2', second],
      ])
      for (const node of nodes)
        writeFileSync(
          join(folder, node.name, 'conf', '10-segment.conflist'),
          JSON.stringify(conflist(node, cidrs, keys)),
        )
      await eventually('the nodes are ready', 60, () => {
        const status = '{.items[*].status.conditions[?(@.type=="Ready")].status}'
        for (const { name } of nodes)
          assert.equal(
            run('kubectl', ['get', 'node', name, '--output', `jsonpath=${status.replace('.items[*]', '')}`]),
            'True',
          )
      })
      const apply = (items: object[]) =>
        kubectl('apply --filename -', JSON.stringify({ apiVersion: 'v1', kind: 'List', items }))
      apply([
        ...[...home].map(([name, node]) => podOf(name, node, name.startsWith('host-'))),
        ...[...home.keys()].flatMap(name => [serviceOf(name, 'Cluster'), serviceOf(name, 'Local')]),
      ])
      kubectl(`wait pod --all --namespace ${NAMESPACE} --for=condition=Ready --timeout=90s`)
      const addresses = new Map<string, string[]>()
      for (const { metadata, status } of JSON.parse(kubectl(`get pods --namespace ${NAMESPACE} --output json`)).items)
        addresses.set(
          metadata.name,
          status.podIPs.map(({ ip }: { ip: string }) => bracketed(ip)),
        )
      const services = new Map<string, Service>()
      for (const { metadata, spec } of JSON.parse(kubectl(`get services --namespace ${NAMESPACE} --output json`)).items)
        services.set(metadata.name, {
          addresses: spec.clusterIPs.map(bracketed),
          nodePort: spec.ports[0].nodePort,
          udpNodePort: spec.ports[1].nodePort,
        })
      await eventually('kube-proxy knows the services', 30, () => {
        for (const node of nodes)
          dialOn(node)(
            ...[...services.values()].flatMap(service => service.addresses.map(each => `http://${each}:80/hostname`)),
          )
      })
      let checks = 0
      /** Asks one after the other, each by TCP and by UDP. */
      const see = (who: string, dial: Dial, wanted: readonly (readonly [string, string, string | undefined])[]) => {
        const got = dial(...wanted.flatMap(([http, udp]) => [`http://${http}/clientip`, `udp://${udp}`]))
        for (const [index, [http, udp, want]] of wanted.entries()) {
          assert.equal(got[2 * index]?.replace(/:\d+$/, ''), want, `${who} to ${http}`)
          assert.ok(got[2 * index + 1], `${who} to ${udp} by UDP`)
          checks += 2
        }
      }
      for (const family of cidrs.keys()) {
        const outside = bracketed(OUTSIDE.addresses[family]!)
        const addressOf = (pod: string) => addresses.get(pod)![family]
        const service = (backend: string) => {
          const own = services.get(`${backend}-cluster`)!.addresses[family]
          return [`${own}:80`, `${own}:81`] as const
        }
        const itself = (to: string) => [`${addressOf(to)}:${PORT}`, `${addressOf(to)}:${UDP_PORT}`] as const
        const nodePort = (node: Node, backend: string, policy: 'cluster' | 'local') => {
          const { nodePort: port, udpNodePort } = services.get(`${backend}-${policy}`)!
          return [`${node.addresses[family]}:${port}`, `${node.addresses[family]}:${udpNodePort}`] as const
        }
        const backends = [...home.keys()]

        for (const [pod, node] of [
          ['a1', first],
          ['b1', second],
        ] as const) {
          // A pod that reaches itself sees its node, which stands between.
          const seen = (backend: string) => (backend === pod ? node.addresses[family] : addressOf(pod))
          see(`${pod} behind ${node.proxy}`, dialFrom(pod), [
            ...backends.map(backend => [...service(backend), seen(backend)] as const),
            ...backends.map(backend => [...nodePort(node, backend, 'cluster'), seen(backend)] as const),
            ...backends.filter(to => to !== pod).map(to => [...itself(to), addressOf(pod)] as const),
          ])
          if (family === 0) assert.ok(dialFrom(pod)('tcp://10.96.0.1:443')[0], 'the API server by its service')
        }
        for (const node of nodes)
          see(node.name, dialOn(node), [
            ...backends.map(backend => [...service(backend), node.addresses[family]] as const),
            ...backends.map(to => [...itself(to), node.addresses[family]] as const),
          ])
        for (const node of nodes) {
          const here = backends.filter(backend => home.get(backend) === node)
          // What ends on the node itself is not masqueraded by kube-proxy.
          const seen = (backend: string) =>
            backend.startsWith('host-') && here.includes(backend) ? outside : node.addresses[family]
          see(`outside, ${node.proxy}`, dialOutside, [
            ...backends.map(backend => [...nodePort(node, backend, 'cluster'), seen(backend)] as const),
            ...here.map(backend => [...nodePort(node, backend, 'local'), outside] as const),
          ])
        }
      }
      t.diagnostic(`${cidrs.length} families, ${checks} answers as they should be`)

      kubectl(`delete pods,services --all --namespace ${NAMESPACE}`)
      for (const node of nodes)
        await eventually(`nothing is left on ${node.name}`, 30, () => {
          assert.doesNotMatch(onNode(node, 'ip', 'rule'), /iif veth/)
          assert.doesNotMatch(onNode(node, 'ip', '-o', 'link'), /alias mooring/)
          assert.doesNotMatch(onNode(node, 'nft', 'list', 'table', 'inet', 'mooring'), /"veth[0-9a-f]{8}"/)
        })
    })
})
