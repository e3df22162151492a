// SPDX-License-Identifier: Apache-2.0

// What macvlan and ipvlan promise alike, as tests over the kind: registered by macvlan.test.ts and ipvlan.test.ts.

import assert from 'node:assert/strict'
import { after, afterEach, before, describe, test } from 'node:test'
import { addTests } from './child-link/add.ts'
import { checkTests } from './child-link/check.ts'
import { delTests } from './child-link/del.ts'
import { type ChildSuite, childLab, type Kind, RELEASED, silent, skipWithout } from './child-link/lab.ts'
import { type Attachment, errorOf, resultOf, type Verb } from './nodelab.ts'

/** The tests in one process per call: few, for each costs a second. */
export function childTestsStandalone(kind: Kind): void {
  const skipped = skipWithout(kind)
  describe(`${kind}, standalone`, { skip: skipped }, () => {
    const lab = childLab(kind, 'standalone')
    before(() => lab.start())
    after(() => lab.stop())

    test('ADD, CHECK and DEL leave nothing; so do a name that is taken and a namespace that is gone (IPV-08, MAC-10)', async () => {
      const { pod, it } = lab.newPod()
      const { ips } = await lab.add(it)
      pod.run('ping', '-c1', '-W2', '10.10.10.1')
      assert.equal(errorOf(await lab.call('ADD', it)).code, 104)
      assert.match(pod.ip('-o -4 addr show eth0'), new RegExp(` ${ips[0].address} `))
      assert.deepEqual(silent(await lab.call('DEL', { ...it, netns: '/run/netns/none' })), RELEASED)
      lab.assertNothingLeft()
    })
  })
}

/** The tests through an agent. */
export function childTests(kind: Kind): void {
  describe(`${kind}, agent`, { skip: skipWithout(kind) }, () => {
    const lab = childLab(kind, 'agent')
    const { newPod, call } = lab
    before(() => lab.start())
    after(() => lab.stop())
    const made: Attachment[] = []
    const pod = (more?: Partial<Attachment>) => {
      const both = newPod(more)
      made.push(both.it)
      return both
    }
    // So that a test that failed does not make the next ones fail.
    afterEach(async context => {
      for (const it of made.splice(0)) if (!('passed' in context && context.passed)) await call('DEL', it)
    })

    const suite: ChildSuite = { kind, lab, pod, testOnce: kind === 'macvlan' ? test : () => undefined }
    addTests(suite)
    delTests(suite)
    checkTests(suite)
  })
}

/** What stays of veth-host on a node is for good, so this has a node of its own. */
export function childChainTests(kind: Kind): void {
  describe(`${kind} and a second NIC`, { skip: skipWithout(kind) }, () => {
    const lab = childLab(kind, 'agent')
    before(() => lab.start())
    after(() => lab.stop())

    test('chained with veth-host: the segment by this link, node and services by the second one, CHECK of both (CHN-02)', async () => {
      const { pod: netns, it } = lab.newPod()
      const second = {
        ...{ cniVersion: '1.1.0', name: 'podnet', type: 'veth-host', hostInterface: 'eth0' },
        ...{ containerInterface: 'veth0', serviceCidr: '10.96.0.0/12' },
      }
      const callSecond = (verb: Verb, more: object) =>
        lab.node.call(verb, { ...it, type: 'veth-host', config: { ...second, ...more } })
      for (const mode of kind === 'ipvlan' ? ['l2', 'l3'] : ['bridge']) {
        const first = await lab.add(it, { mode })
        const prevResult = resultOf(await callSecond('ADD', { prevResult: first }))
        const [ip] = prevResult.ips[0].address.split('/')
        lab.router.run('ping', '-c1', '-W2', ip)
        netns.run('ping', '-c1', '-W2', '10.10.10.8')
        lab.node.run('ping', '-c1', '-W2', ip)
        assert.deepEqual(silent(await lab.call('CHECK', it, { mode, prevResult })), RELEASED)
        assert.deepEqual(silent(await callSecond('CHECK', { prevResult })), RELEASED)
        assert.deepEqual(silent(await callSecond('DEL', { prevResult })), RELEASED)
        await lab.del(it, { mode, prevResult })
        assert.equal(netns.ip('-o link').trim().split('\n').length, 1)
      }
    })
  })
}
