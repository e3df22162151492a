// SPDX-License-Identifier: Apache-2.0

// What macvlan and ipvlan promise alike: DEL.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { test } from 'node:test'
import { delTests as everyDelTests } from '../dels.ts'
import { fakeIpam } from '../fake-ipam.ts'
import { errorOf, resultOf, run } from '../nodelab.ts'
import { type ChildSuite, dualStack, forget, RELEASED, silent, v4 } from './lab.ts'

/** Registers them, for a suite that has started its node. */
export function delTests({ kind, lab, pod, testOnce }: ChildSuite): void {
  const { add, del, call, assertNothingLeft } = lab
  everyDelTests({
    test: testOnce,
    newPod: pod,
    add,
    del: (it, more) => call('DEL', it, more),
    assertNothingLeft: () => assertNothingLeft(),
    invalid: { mode: 'x', mtu: 'wrong' },
    ids: 'MAC-10',
  })

  testOnce(
    'DEL: takes the link from a container that a process keeps alive when its path is gone (DEL-04)',
    async () => {
      const { pod: netns, it } = pod()
      await add(it)
      const held = spawn('ip', ['netns', 'exec', netns.name, 'sh', '-c', 'echo; exec sleep 600'], {
        stdio: ['ignore', 'pipe', 'ignore'],
      })
      try {
        await once(held.stdout, 'data')
        netns.remove()
        await del({ ...it, netns: '' })
        assert.doesNotMatch(run('nsenter', [`--net=/proc/${held.pid}/ns/net`, 'ip', '-o', 'link']), /eth0/)
        assertNothingLeft()
      } finally {
        held.kill()
      }
    },
  )

  testOnce('DEL: needs neither master nor default route (DEL-06)', async () => {
    const { pod: netns, it } = pod()
    await add(it)
    await del(it, { master: 'none' })
    assert.doesNotMatch(netns.ip('-o link'), /eth0/)
    lab.node.ip('link add other type veth peer name otherp')
    await add(it, { master: 'other' })
    lab.node.ip('link del other')
    await del(it, { master: 'other' })
    assertNothingLeft()
  })

  testOnce('DEL: a new namespace at the same path keeps its own interface of that name (DEL-10)', async () => {
    const { pod: netns, it } = pod()
    await add(it)
    netns.remove()
    run('ip', ['netns', 'add', netns.name])
    netns.ip('link add name eth9 type veth peer name eth8')
    netns.ip(`link add link eth9 name eth0 type ${kind}`)
    await del(it)
    assert.match(netns.ip('-o link'), /eth0/)
    netns.remove()
    assertNothingLeft()
  })

  testOnce('DEL: of one interface leaves the other (DEL-11)', async () => {
    const { pod: netns, it } = pod()
    const other = { ...it, ifName: 'net1' }
    await add(it)
    const noRoutes = { ipam: { ...dualStack(lab.node), ranges: [v4], routes: [] } }
    const prevResult = await add(other, noRoutes)
    await del(it)
    assert.doesNotMatch(netns.ip('-o link'), /eth0/)
    assert.deepEqual(silent(await call('CHECK', other, { ...noRoutes, prevResult })), RELEASED)
    await del(other, noRoutes)
    assertNothingLeft()
  })

  test('DEL: finds the link without any record: by its alias, and what another plugin made by prevResult (IPV-08, MAC-10)', async () => {
    const { pod: netns, it } = pod()
    const prevResult = await add(it)
    forget(lab.node)
    await del(it)
    assert.doesNotMatch(netns.ip('-o link'), /eth0/)
    netns.ip('link add name eth9 type veth peer name eth8')
    netns.ip(`link add link eth9 name eth0 type ${kind}`)
    const [{ address: mac }] = JSON.parse(netns.ip('-j link show eth0'))
    await del(it, { prevResult })
    assert.match(netns.ip('-o link'), /eth0/, 'it has another MAC than the result says')
    const told = { ...prevResult, interfaces: [{ ...prevResult.interfaces[0], mac }] }
    await del(it, { prevResult: told })
    assert.doesNotMatch(netns.ip('-o link'), /eth0/)
    assertNothingLeft()
  })

  testOnce('DEL: a failing IPAM plugin does not keep the link, and its error is told (DEL-09)', async () => {
    const { pod: netns, it } = pod()
    const fake = fakeIpam({ ips: [{ address: '10.10.10.77/24' }] }, 'DEL')
    await add(it, fake.more, fake.options)
    assert.equal(errorOf(await call('DEL', it, fake.more, fake.options)).code, 11)
    assert.doesNotMatch(netns.ip('-o link'), /eth0/)
    fake.repair()
    resultOf(await call('DEL', it, fake.more, fake.options))
    assertNothingLeft()
  })
}
