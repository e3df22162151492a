// SPDX-License-Identifier: Apache-2.0

// Goal: macvlan does what the CNI specification and the reference's conformance list say, seen from outside, by the
// installed executables: in one process per call and through an agent. Needs root.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { childLab, dualStack, RELEASED, silent, skipWithout } from './child-link/lab.ts'
import { childChainTests, childTests, childTestsStandalone } from './child-link.ts'
import { type Attachment, errorOf, type Netns, peers, resultOf, start, type Verb } from './nodelab.ts'

childTestsStandalone('macvlan')
childTests('macvlan')
childChainTests('macvlan')

describe('macvlan', { skip: skipWithout('macvlan') }, () => {
  const lab = childLab('macvlan', 'agent')
  const { newPod, add, del, call, assertNothingLeft } = lab
  before(() => lab.start())
  after(() => lab.stop())
  const shown = (pod: Netns) => JSON.parse(pod.ip('-d -j link show eth0'))[0]

  test('mode: bridge, private, vepa, passthru; bridge without one (MAC-02)', async () => {
    for (const mode of ['bridge', 'private', 'vepa', 'passthru', '', undefined]) {
      const { pod, it } = newPod()
      const { interfaces } = await add(it, { mode })
      const { linkinfo, address } = shown(pod)
      assert.equal(linkinfo.info_data.mode, mode || 'bridge')
      const [{ address: masters }] = JSON.parse(lab.node.ip('-j link show eth0'))
      assert.equal(address === masters, mode === 'passthru')
      assert.equal(interfaces[0].mac, address)
      pod.run('ping', '-c1', '-W2', '10.10.10.1')
      await del(it, { mode })
    }
    assertNothingLeft()
  })

  test('mode bridge: two containers reach each other, private: they do not; neither reaches its own node', async () => {
    const reaches = async (mode: string) => {
      const [first, second] = [newPod(), newPod()]
      await add(first.it, { mode })
      const [{ address }] = (await add(second.it, { mode })).ips
      const pings = [address.split('/')[0], '10.10.10.8'].map(to => {
        try {
          first.pod.run('ping', '-c1', '-W1', to)
          return true
        } catch {
          return false
        }
      })
      for (const { it } of [first, second]) await del(it, { mode })
      return pings
    }
    assert.deepEqual(await reaches('bridge'), [true, false])
    assert.deepEqual(await reaches('private'), [false, false])
    assertNothingLeft()
  })

  test('mac: of the configuration, then CNI_ARGS, then runtimeConfig; it is on the wire (MAC-04, MAC-08, MAC-13)', async () => {
    const { pod, it } = newPod()
    const [own, args, runtime] = [1, 2, 3].map(last => `02:aa:00:00:00:0${last}`)
    for (const [mac, more, CNI_ARGS] of [
      [own, { mac: own }, undefined],
      [args, { mac: own }, `IgnoreUnknown=1;K8S_POD_NAME=p;MAC=${args}`],
      [runtime, { mac: own, runtimeConfig: { mac: runtime!.toUpperCase() } }, `MAC=${args};IgnoreUnknown=1`],
    ] as const) {
      const options = CNI_ARGS === undefined ? {} : { env: { CNI_ARGS } }
      const { interfaces, ips } = await add(it, more, options)
      assert.deepEqual([interfaces[0].mac, shown(pod).address], [mac, mac])
      pod.run('ping', '-c1', '-W2', '10.10.10.1')
      assert.match(lab.router.ip(`neigh show ${ips[0].address.split('/')[0]}`), new RegExp(`lladdr ${mac}`))
      await del(it, more)
    }
    assertNothingLeft()
  })

  test('mac: without one it follows from the attachment, so that a container that comes again is known', async () => {
    const { it } = newPod()
    const first = (await add(it)).interfaces[0].mac
    await del(it)
    assert.equal((await add(it)).interfaces[0].mac, first)
    await del(it)
  })

  test('mac: what no link can have is error 7, an argument that nobody knows error 4 (MAC-04, ENV-24)', async () => {
    const { it } = newPod()
    for (const mac of ['x', '02:00:00:00:00', '01:00:5e:00:00:01', '00:00:00:00:00:00']) {
      const error = errorOf(await call('ADD', it, { mac }))
      assert.equal(error.code, 7)
      assert.match(error.msg, new RegExp(`^invalid args ${mac} for MAC addr`))
    }
    const other = errorOf(await call('ADD', it, { mode: 'passthru', mac: '02:00:00:00:00:01' }))
    assert.equal(other.code, 7)
    assert.match(other.msg, /^Cannot give the link the MAC 02:00:00:00:00:01: in this mode it has that of its master/)
    assert.equal(errorOf(await call('ADD', it, {}, { env: { CNI_ARGS: 'FOO=1' } })).code, 4)
    assertNothingLeft()
  })

  test("bcqueuelen is the kernel's, and CHECK looks at it (MAC-05)", async () => {
    const { pod, it } = newPod()
    const prevResult = await add(it, { bcqueuelen: 2000 })
    assert.match(pod.ip('-d link show eth0'), /bcqueuelen 2000/)
    const error = errorOf(await call('CHECK', it, { bcqueuelen: 3000, prevResult }))
    assert.match(error.msg, /macvlan link eth0 has bcQueueLen 2000, not 3000/)
    await del(it)
  })

  test('without "ipam" the link is up and has no address; formats that need one are refused before (MAC-07, RES-09)', async () => {
    for (const ipam of [undefined, {}, { type: '' }]) {
      const { pod, it } = newPod()
      const result = await add(it, { ipam })
      assert.deepEqual(Object.keys(result), ['cniVersion', 'interfaces'])
      assert.equal(result.interfaces[0].name, 'eth0')
      assert.ok(shown(pod).flags.includes('UP'))
      assert.equal(pod.ip('-o -4 addr show eth0'), '')
      await del(it, { ipam })
      const error = errorOf(await call('ADD', it, { ipam, cniVersion: '0.2.0' }))
      assert.match(error.msg, /no valid IP addresses/)
      assert.doesNotMatch(pod.ip('-o link'), /eth0/)
    }
    assertNothingLeft()
  })

  test('a master that serves a bridge or a passthru link says so, and nothing is left (MAC-12, IPV-11)', async () => {
    const [first, second] = [newPod(), newPod()]
    await add(first.it, { mode: 'passthru' })
    for (const mode of ['passthru', 'bridge']) {
      const error = errorOf(await call('ADD', second.it, { mode }))
      assert.equal(error.code, 100)
      assert.match(
        error.msg,
        /^Cannot add macvlan link eth0 on master eth0: mode passthru wants the master for one link/,
      )
    }
    await del(first.it, { mode: 'passthru' })
    lab.node.ip('link add br9 type bridge')
    lab.node.ip('link add port type veth peer name portp')
    lab.node.ip('link set port master br9')
    const error = errorOf(await call('ADD', second.it, { master: 'port' }))
    assert.equal(error.code, 100)
    assert.match(error.msg, /^Cannot add macvlan link eth0 on master port: it is a port of link \d+ \(EBUSY\)$/)
    for (const link of ['br9', 'port']) lab.node.ip(`link del ${link}`)
    assertNothingLeft()
  })

  test('CHECK: finds another mode and another MAC (MAC-09, CHK-07)', async () => {
    const { pod, it } = newPod()
    const prevResult = await add(it)
    const faults = async (more: object = {}) => {
      const error = errorOf(await call('CHECK', it, { prevResult, ...more }))
      return `${error.msg}; ${error.details ?? ''}`
    }
    assert.match(await faults({ mode: 'vepa' }), /macvlan link eth0 has mode bridge, not vepa/)
    pod.ip('link set eth0 address 02:00:00:00:00:99')
    assert.match(await faults(), /eth0 in the pod has MAC 02:00:00:00:00:99/)
    await del(it)
    assertNothingLeft()
  })

  test('the configuration of the manual, by hand: no version, /proc/PID/ns/net', async () => {
    const { pod } = newPod()
    const pid = pod.run('sh', '-c', 'sleep 60 > /dev/null 2>&1 & echo $!').trim()
    const it = { containerId: 'ffecae44150e', netns: `/proc/${pid}/ns/net` }
    const manual = {
      ...{ cniVersion: undefined, name: 'macvlannet', type: 'macvlan', master: 'eth0' },
      ipam: {
        ...{ type: 'host-local', dataDir: lab.node.leases },
        ...{ subnet: '10.10.10.0/24', rangeStart: '10.10.10.100', routes: [{ dst: '0.0.0.0/0' }] },
      },
    }
    const result = await add(it, manual)
    assert.deepEqual(result, {
      cniVersion: '0.1.0',
      ip4: { ip: '10.10.10.100/24', gateway: '10.10.10.1', routes: [{ dst: '0.0.0.0/0', gw: '10.10.10.1' }] },
      dns: {},
    })
    pod.run('ping', '-c1', '-W2', '10.10.10.1')
    await del(it, manual)
    process.kill(Number(pid))
    assertNothingLeft()
  })
})

describe('macvlan and upstream', { skip: skipWithout('macvlan') || (peers === undefined && 'needs PEERS_DIR') }, () => {
  const lab = childLab('macvlan', 'agent')
  before(() => lab.start())
  after(() => lab.stop())
  const theirs = (verb: Verb, it: Attachment, more: object = {}) =>
    start(['/usr/bin/nsenter', `--net=${lab.node.path}`, join(peers!, 'macvlan')], {
      env: {
        ...{ CNI_COMMAND: verb, CNI_CONTAINERID: it.containerId, CNI_NETNS: it.netns, CNI_IFNAME: 'eth0' },
        CNI_PATH: peers!,
      },
      stdin: JSON.stringify(lab.config(more)),
    }).outcome

  test('both make and tell the same, but for MAC, MTU and the gateways of routes', async () => {
    const seen = []
    for (const call of [theirs, lab.call]) {
      const { pod, it } = lab.newPod()
      const more = {
        ipam: {
          ...dualStack(lab.node),
          type: 'static',
          addresses: [{ address: '10.10.10.9/24', gateway: '10.10.10.1' }],
        },
      }
      const { interfaces, ips, routes } = resultOf(await call('ADD', it, more))
      seen.push({
        interfaces: interfaces.map(({ name, sandbox }: { name: string; sandbox: string }) => [
          name,
          sandbox === it.netns,
        ]),
        ips,
        routes: routes.map(({ dst }: { dst: string }) => dst),
        link: pod.ip('-d link show eth0').match(/macvlan mode .* usedbcqueuelen/)?.[0],
        addresses: pod.ip('-o -4 addr show eth0').replace(/^\d+: /, ''),
        kernelRoutes: pod.ip('route'),
      })
      resultOf(await call('DEL', it, more))
    }
    assert.deepEqual(seen[1], seen[0])
  })

  test('a container that upstream attached is checked and detached by ours, and the other way round', async () => {
    for (const [first, second] of [
      [theirs, lab.call],
      [lab.call, theirs],
    ] as const) {
      const { pod, it } = lab.newPod()
      const prevResult = resultOf(await first('ADD', it))
      assert.deepEqual(silent(await second('CHECK', it, { prevResult })), RELEASED)
      assert.deepEqual(silent(await second('DEL', it, { prevResult })), RELEASED)
      assert.doesNotMatch(pod.ip('-o link'), /eth0/)
      // Ours forgets its record.
      assert.deepEqual(silent(await lab.call('DEL', it, { prevResult })), RELEASED)
      lab.assertNothingLeft()
    }
  })
})
