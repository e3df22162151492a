// SPDX-License-Identifier: Apache-2.0

// Goal: the installed `static` answers what upstream's answers, and serves as IPAM of our plugins. What it makes of every
// configuration is tested beside its code. Needs root.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import {
  assertSameState,
  cniBin,
  errorOf,
  makeLab,
  makeNetns,
  type Node,
  type Outcome,
  peers,
  type RunningAgent,
  resultOf,
  skip,
  start,
  type Verb,
} from './nodelab.ts'

const addresses = [{ address: '10.10.10.77/24', gateway: '10.10.10.1' }, { address: 'fd00:10::77/64' }]
const config = {
  cniVersion: '1.1.0',
  name: 'staticnet',
  type: 'veth-route',
  ipam: { type: 'static', addresses, routes: [{ dst: '0.0.0.0/0', priority: 7 }], dns: { domain: 'a.example' } },
}

describe('static', { skip }, () => {
  let node: Node
  let agent: RunningAgent
  before(async () => {
    node = makeLab({ mode: 'agent' }).nodes[0]!
    agent = await node.startAgent()
  })
  after(() => agent?.[Symbol.asyncDispose]())

  const env = (verb: Verb, more: Record<string, string> = {}) => ({
    CNI_COMMAND: verb,
    CNI_CONTAINERID: 'c1',
    CNI_NETNS: '/run/netns/none',
    CNI_IFNAME: 'eth0',
    ...more,
  })
  const ours = (verb: Verb, stdin: object, more?: Record<string, string>, mode = 'agent') =>
    start([join(cniBin(), 'static')], {
      env: { ...node.env, MOORING_MODE: mode, ...env(verb, more), CNI_PATH: cniBin() },
      stdin: JSON.stringify(stdin),
    }).outcome
  const upstreams = (verb: Verb, stdin: object, more?: Record<string, string>) =>
    start([join(peers!, 'static')], { env: { ...env(verb, more), CNI_PATH: peers! }, stdin: JSON.stringify(stdin) })
      .outcome

  test('answers by itself, without a namespace, in both modes', async () => {
    for (const mode of ['standalone', 'agent']) {
      const { ips, routes, dns, interfaces } = resultOf(await ours('ADD', config, {}, mode))
      assert.deepEqual(ips, addresses)
      assert.deepEqual(
        [routes, dns, interfaces],
        [[{ dst: '0.0.0.0/0', priority: 7 }], { domain: 'a.example' }, undefined],
      )
    }
    const error = errorOf(await ours('ADD', { ...config, ipam: { addresses: [{ address: '10.0.0.1' }] } }))
    assert.deepEqual(
      [error.code, error.msg],
      [7, "the 'address' field is expected to be in CIDR notation, got: '10.0.0.1'"],
    )
    for (const verb of ['DEL', 'STATUS', 'GC'] as const) assert.equal(resultOf(await ours(verb, config)), undefined)
  })

  test('serves an interface plugin: ADD, CHECK, DEL', async () => {
    const pod = makeNetns('pod')
    const it = { containerId: 'c1', netns: pod.path, config }
    const warm = resultOf(await node.call('ADD', it))
    resultOf(await node.call('DEL', it))
    const was = node.state(pod)
    assert.deepEqual(resultOf(await node.call('ADD', it)), warm)
    assert.match(pod.ip('-o addr show eth0'), / 10\.10\.10\.77\/24 .* fd00:10::77\/64 /s)
    resultOf(await node.call('CHECK', it, { more: { prevResult: warm } }))
    const other = { ...warm, ips: [{ ...warm.ips[0], address: '10.10.10.78/24' }, warm.ips[1]] }
    assert.match(errorOf(await node.call('CHECK', it, { more: { prevResult: other } })).msg, /^static: Failed to match/)
    resultOf(await node.call('DEL', it))
    assertSameState(node.state(pod), was)
  })

  test('answers what upstream answers', { skip: peers === undefined && 'needs PEERS_DIR' }, async () => {
    const cases: [object, Record<string, string>?][] = [
      ...['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'].map((cniVersion): [object] => [
        { ...config, cniVersion },
      ]),
      [config, { CNI_ARGS: 'IgnoreUnknown=1;K8S_POD_NAME=p;IP=10.1.3.4/24, fd01::7/64;GATEWAY=10.1.3.1,fd01::1' }],
      [{ ...config, args: { cni: { ips: ['10.7.0.8/24'] } } }],
      [{ ...config, args: { cni: { ips: ['10.7.0.8/24'] } }, runtimeConfig: { ips: ['10.7.0.9/24'] } }],
      [{ ...config, ipam: {} }],
      [{ ...config, ipam: undefined }],
      [config, { CNI_ARGS: 'IP=10.1.3.4' }],
      [config, { CNI_ARGS: 'GATEWAY=x' }],
      [{ ...config, runtimeConfig: { ips: ['10.7.0.9'] } }],
      [{ ...config, cniVersion: '0.2.0' }, { CNI_ARGS: 'IP=10.1.3.4/24' }],
    ]
    const shown = ({ code, stdout }: Outcome) => {
      const { code: _, details, cniVersion, ...answer } = JSON.parse(stdout)
      return code === 0 ? { ...answer, cniVersion } : answer
    }
    for (const [stdin, more] of cases)
      assert.deepEqual(
        shown(await ours('ADD', stdin, more)),
        shown(await upstreams('ADD', stdin, more)),
        JSON.stringify([stdin, more]),
      )
  })
})
