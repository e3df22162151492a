// SPDX-License-Identifier: Apache-2.0

// Goal: upstream's `vrf` works behind our interface plugins and before our portmap, as it does behind upstream's own: CHECK
// finds the routes in the table of the VRF. Needs root, lab/peers and a kernel with VRFs (lab/vmlab).

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { pings } from './bridge-lab.ts'
import { addChain, call, checkChain, DEFAULTS, delChain, type Link, newPod, noPeers } from './chain-lab.ts'
import {
  assertSameState,
  errorOf,
  eventually,
  makeLab,
  type Node,
  type NodeLab,
  type RunningAgent,
  run,
} from './nodelab.ts'

/** Why the tests cannot run here; false where they can. */
function withoutVrf(): string | false {
  if (noPeers) return noPeers
  try {
    run('unshare', ['-n', 'ip', 'link', 'add', 'vrf9', 'type', 'vrf', 'table', '9'])
    return false
  } catch {
    return 'this kernel has no vrf: see lab/vmlab'
  }
}

describe('with upstream’s vrf', { skip: withoutVrf() }, () => {
  let lab: NodeLab
  let node: Node
  let agent: RunningAgent
  let kept: string[]

  before(async () => {
    lab = makeLab({ mode: 'agent' })
    node = lab.nodes[0]!
    agent = await node.startAgent()
    // What the first pods bring for good.
    for (const type of mains) await live(type)
    kept = node.state()
  })
  after(() => agent?.[Symbol.asyncDispose]())

  const mains = ['bridge', 'macvlan', 'ipvlan', 'ptp']
  const ranges = [[{ subnet: '10.6.0.0/24' }], [{ subnet: 'fd00:6::/64' }]]
  const main = (type: string): Link => ({
    ...{ type, ipam: { type: 'host-local', dataDir: node.leases, ranges, routes: DEFAULTS } },
    ...(type === 'bridge' ? { bridge: 'cni9', isGateway: true } : {}),
    ...(type === 'macvlan' || type === 'ipvlan' ? { master: 'eth0' } : {}),
  })
  const vrf: Link = { theirs: true, type: 'vrf', vrfname: 'blue', table: 777 }
  const portmap: Link = {
    type: 'portmap',
    runtimeConfig: { portMappings: [{ hostPort: 7, containerPort: 7, protocol: 'udp' }] },
  }

  async function live(type: string): Promise<void> {
    const pod = newPod()
    const links = [main(type), vrf, portmap]
    const result = await addChain(node, pod, links)
    assert.match(pod.netns.ip('route show table 777'), /default via 10\.6\.0\.1 dev eth0/)
    if (type === 'bridge' || type === 'ptp')
      for (const gateway of ['10.6.0.1', 'fd00:6::1'])
        await eventually('the gateway answers', () => pings(pod.netns, gateway, '-I', 'blue'))
    await checkChain(node, pod, links, result)
    for (const family of ['-4', '-6']) {
      pod.netns.ip(`${family} route del default table 777`)
      const route = family === '-4' ? '0.0.0.0/0 via 10.6.0.1' : '::/0 via fd00:6::1'
      const { msg } = errorOf(await call(node, 'CHECK', pod, links[0]!, { prevResult: result }))
      assert.ok(msg.endsWith(`route ${route} dev eth0 is missing in the pod`), msg)
      pod.netns.ip(`${family} route add default via ${route.split(' ').at(-1)} dev eth0 table 777 onlink`)
    }
    await checkChain(node, pod, links, result)
    for (const _ of [1, 2]) await delChain(node, pod, links, result)
    assert.doesNotMatch(pod.netns.ip('-o link'), /eth0|blue/)
    if (type === 'bridge') node.ip('link del cni9')
  }

  for (const type of mains)
    test(`behind our ${type} and before our portmap: ADD, CHECK, DEL, DEL`, async () => {
      await live(type)
      assertSameState(node.state(), kept)
    })
})
