// SPDX-License-Identifier: Apache-2.0

// Goal: CHECK, STATUS and GC of bridge, many pods at once, and what is there again after somebody or something failed: through
// an agent, and once in one process per call. Needs root.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { bridgeConfig, bridgeLab, hostLocal, kernelKnowsVlans, pings, RELEASED, silent, v4, v6 } from './bridge-lab.ts'
import { attach, withoutStrace } from './crash/strace.ts'
import { errorOf, eventually, makeLab, makeManyNetns, type Netns, resultOf, skip } from './nodelab.ts'

describe('bridge, agent, CHECK, STATUS and GC', { skip }, () => {
  const at = bridgeLab()
  const { newPod, assertNothingLeft, checkOf, spareBridge, removeSpares, withFakeIpam } = at

  // CHECK, STATUS, GC

  test('CHECK: names whatever differs (BR-09, CHK-04 to CHK-07, CHK-11, CHK-12)', async () => {
    const ipam = { ...hostLocal(at.node, v4, v6), routes: [{ dst: '10.200.0.0/16' }] }
    const bridge = spareBridge('br-check')
    const options = { bridge, ipam, ipMasq: true, macspoofchk: true, hairpinMode: true, portIsolation: true }
    const { pod, it } = newPod({ ...options, name: 'checked' })
    const result = resultOf(await at.node.call('ADD', it))
    const host = result.interfaces[1].name
    const [mine, mine6] = result.ips.map(({ address }: { address: string }) => address)
    const own = mine.split('/')[0]
    const [{ ifalias: alias }] = JSON.parse(at.node.ip(`-j link show ${host}`))
    assert.deepEqual(silent(await checkOf(it, result)), RELEASED)
    const port = `ip link set ${host} master ${bridge}; ip link set ${host} type bridge_slave hairpin on isolated on`
    const podSettings = [
      ['ipv4.conf.eth0.arp_notify', 1],
      ['ipv6.conf.eth0.ndisc_notify', 1],
      ['ipv6.conf.eth0.keep_addr_on_down', 1],
      ['ipv6.conf.eth0.accept_dad', 0],
      ['ipv6.conf.lo.disable_ipv6', 0],
    ] as const
    const element = (set: string, key: string) =>
      [`nft 'delete element ${set} { ${key} }'`, `nft 'add element ${set} { ${key} }'`] as const
    const masked = element('inet mooring masquerade_v4', `"${bridge}" . ${own}`)
    const checked = element('bridge mooring checked_links', `"${host}"`)
    // Where a link is down its routes and IPv6 gateway go with it.
    const back = `ip link set eth0 up; ip route replace default via 10.1.0.1; ip route replace 10.200.0.0/16 via 10.1.0.1; ip -6 route replace default via fd00:1::1`
    const damages: readonly (readonly [Netns, damage: string, repair: string, fault: string])[] = [
      [at.node, `ip link set ${bridge} down`, `ip link set ${bridge} up`, `bridge ${bridge} is down`],
      [at.node, `ip link set ${host} down`, `ip link set ${host} up`, `link ${host} on the node is down`],
      [at.node, `ip link set ${host} nomaster`, port, `link ${host} is no port of ${bridge}`],
      [at.node, `ip link set ${host} master cni0`, port, `link ${host} is no port of ${bridge}`],
      [at.node, `ip link set ${host} type bridge_slave hairpin off`, port, `bridge port ${host} has hairpin mode off`],
      [at.node, `ip link set ${host} type bridge_slave isolated off`, port, `bridge port ${host} is not isolated`],
      [
        at.node,
        `ip link set ${host} address 02:00:00:00:00:98`,
        `ip link set ${host} address ${result.interfaces[1].mac}`,
        `link ${host} on the node has MAC 02:00:00:00:00:98`,
      ],
      [
        at.node,
        `ip link set ${host} mtu 1400`,
        `ip link set ${host} mtu 1500; ip link set ${bridge} mtu 1500`,
        `link ${host} on the node has MTU 1400, not 1500`,
      ],
      [
        at.node,
        `ip link set ${host} alias other`,
        `ip link set ${host} alias '${alias}'`,
        `link ${host} on the node is not of this attachment: its alias is "other"`,
      ],
      [
        at.node,
        `ip link set ${bridge} address 02:00:00:00:00:96`,
        `ip link set ${bridge} address ${result.interfaces[0].mac}`,
        `bridge ${bridge} has MAC 02:00:00:00:00:96`,
      ],
      [
        at.node,
        'sysctl -qw net.ipv4.ip_forward=0',
        'sysctl -qw net.ipv4.ip_forward=1',
        'net.ipv4.ip_forward is off on the node',
      ],
      [
        at.node,
        'sysctl -qw net.ipv6.conf.all.forwarding=0',
        'sysctl -qw net.ipv6.conf.all.forwarding=1',
        'net.ipv6.conf.all.forwarding is off on the node',
      ],
      [pod, 'ip link set eth0 mtu 1400', 'ip link set eth0 mtu 1500', 'link eth0 in the pod has MTU 1400, not 1500'],
      [
        at.node,
        `ip addr del 10.1.0.1/16 dev ${bridge}`,
        `ip addr add 10.1.0.1/16 dev ${bridge}`,
        `address 10.1.0.1/16 is missing on ${bridge}`,
      ],
      [
        at.node,
        `ip addr flush dev ${bridge} scope global`,
        `ip addr add 10.1.0.1/16 dev ${bridge}; ip addr add fd00:1::1/64 dev ${bridge} nodad`,
        `address fd00:1::1/64 is missing on ${bridge}`,
      ],
      [
        at.node,
        `ip addr change 10.1.0.1/16 dev ${bridge} valid_lft 3600 preferred_lft 3600`,
        `ip addr change 10.1.0.1/16 dev ${bridge} valid_lft forever preferred_lft forever`,
        `address 10.1.0.1/16 on ${bridge} expires in `,
      ],
      [
        at.node,
        `bridge link set dev ${host} state 0`,
        `bridge link set dev ${host} state 3`,
        `bridge port ${host} does not forward`,
      ],
      [
        pod,
        `ip addr change ${mine} dev eth0 valid_lft 3600 preferred_lft 3600`,
        `ip addr change ${mine} dev eth0 valid_lft forever preferred_lft forever`,
        `address ${mine} on eth0 expires in `,
      ],
      [
        pod,
        `ip addr change ${mine6} dev eth0 preferred_lft 0`,
        `ip addr change ${mine6} dev eth0 preferred_lft forever nodad`,
        `address ${mine6} on eth0 is deprecated`,
      ],
      ...podSettings.map(
        ([setting, was]) =>
          [
            pod,
            `sysctl -qw net.${setting}=${1 - was}`,
            `sysctl -qw net.${setting}=${was}; ip addr replace ${mine6} dev eth0 nodad; ${back}`,
            `net.${setting} is `,
          ] as const,
      ),
      [
        pod,
        'ip route change 10.200.0.0/16 via 10.1.0.1 mtu 1300',
        'ip route change 10.200.0.0/16 via 10.1.0.1',
        'route 10.200.0.0/16 via 10.1.0.1 dev eth0 in the pod has MTU 1300, not none',
      ],
      [at.node, ...masked, `element ${bridge} . ${own} of set inet mooring masquerade_v4 is missing`],
      [at.node, ...checked, `element ${host} of set bridge mooring checked_links is missing`],
      [pod, 'ip link set eth0 down', back, 'link eth0 in the pod is down'],
      [
        pod,
        'ip link set eth0 address 02:00:00:00:00:97',
        `ip link set eth0 address ${result.interfaces[2].mac}; ${back}`,
        'link eth0 in the pod has MAC 02:00:00:00:00:97',
      ],
      [
        pod,
        `ip addr del ${mine} dev eth0`,
        `ip addr add ${mine} brd + dev eth0; ${back}`,
        `address ${mine} is missing on eth0`,
      ],
      [
        pod,
        `ip addr del ${mine6} dev eth0`,
        `ip addr add ${mine6} dev eth0 nodad; ${back}`,
        `address ${mine6} is missing on eth0`,
      ],
      [pod, 'ip route del 10.200.0.0/16', back, 'route 10.200.0.0/16 via 10.1.0.1 dev eth0 is missing in the pod'],
      [
        pod,
        'ip route del 10.1.0.0/16',
        `ip route add 10.1.0.0/16 dev eth0 src ${own}`,
        'route 10.1.0.0/16 dev eth0 is missing in the pod',
      ],
      [
        pod,
        'ip route replace default via 10.1.0.9',
        back,
        'route 0.0.0.0/0 via 10.1.0.1 dev eth0 is missing in the pod',
      ],
      [
        pod,
        'ip link set eth0 down; ip link set eth0 name eth9',
        `ip link set eth9 name eth0; ${back}`,
        'link eth0 in the pod is missing',
      ],
    ]
    for (const [netns, damage, repair, fault] of damages) {
      netns.run('sh', '-c', damage)
      const { code, msg, details = '' } = errorOf(await checkOf(it, result))
      assert.equal(code, 103)
      assert.ok(`${msg}; ${details}`.includes(fault), `${damage}: ${msg}; ${details}`)
      netns.run('sh', '-c', repair)
    }
    assert.deepEqual(silent(await checkOf(it, result)), RELEASED)
    // What others added is no fault.
    pod.ip('addr add 10.1.200.200/16 dev eth0')
    at.node.ip(`addr add 10.77.0.1/24 dev ${bridge}`)
    assert.deepEqual(silent(await checkOf(it, result)), RELEASED)
    assert.match(
      errorOf(await checkOf(it, result, { promiscMode: true, hairpinMode: false })).msg,
      /is not promiscuous/,
    )
    const elsewhere = structuredClone(result)
    elsewhere.interfaces[2].sandbox = '/run/netns/other'
    assert.match(errorOf(await checkOf(it, elsewhere)).msg, /^Sandbox in prevResult .* doesn't match configured netns/)
    assert.equal(errorOf(await at.node.call('CHECK', it)).msg, 'Required prevResult missing')
    at.node.ip(`link del ${host}`)
    assert.match(errorOf(await checkOf(it, result)).msg, new RegExp(`link ${host} on the node is missing`))
    await at.node.call('DEL', it)
    removeSpares()
    assertNothingLeft()
  })

  test('STATUS: silent where pods can be attached; 50 where this kernel does not filter VLANs (STA-01, STA-03)', async () => {
    const { it } = newPod()
    assert.deepEqual(silent(await at.node.call('STATUS', it)), RELEASED)
    assert.deepEqual(
      silent(await at.node.call('STATUS', newPod({ bridge: 'br-later', macspoofchk: true }).it)),
      RELEASED,
    )
    const filtering = newPod({ bridge: 'br-later', vlan: 100 }).it
    if (kernelKnowsVlans()) assert.deepEqual(silent(await at.node.call('STATUS', filtering)), RELEASED)
    else {
      const { code, msg } = errorOf(await at.node.call('STATUS', filtering))
      assert.deepEqual([code, msg], [50, 'Cannot attach pods to br-later: this kernel lacks VLAN filtering of bridges'])
    }
    const { code, msg } = errorOf(await at.node.call('STATUS', newPod({ vlan: 100 }).it))
    assert.deepEqual([code, msg], [50, 'Cannot use VLANs on bridge cni0: it does not filter them'])
    const { it: its, env } = withFakeIpam({}, 'STATUS')
    assert.deepEqual([errorOf(await at.node.call('STATUS', its, { env })).code], [11])
    assertNothingLeft()
  })

  test('GC: removes what no valid attachment owns, of this network alone (GC-02, GC-03, GC-07)', async () => {
    const pods = [newPod({ ipMasq: true }), newPod({ ipMasq: true, macspoofchk: true })]
    const other = newPod({ name: 'other', bridge: spareBridge('br-other') })
    for (const { it } of [...pods, other]) resultOf(await at.node.call('ADD', it))
    await new Promise(resolve => setTimeout(resolve, 150)) // GC spares what has just been attached
    const valid = [{ containerID: pods[0]!.it.containerId, ifname: 'eth0' }]
    const more = { 'cni.dev/valid-attachments': valid }
    const gc = { ...pods[0]!.it, containerId: '', netns: '', ifName: '' }
    assert.deepEqual(silent(await at.node.call('GC', gc, { more })), RELEASED)
    assert.ok(pings(pods[0]!.pod, '10.1.0.1'))
    assert.doesNotMatch(pods[1]!.pod.ip('-o link'), /eth0/)
    assert.match(other.pod.ip('-o link'), /eth0/)
    for (const { it } of [...pods, other]) await at.node.call('DEL', it)
    removeSpares()
    assertNothingLeft()
  })

  test('a rule set that somebody flushed is there again with the next pod, for the others too', async () => {
    const options = { ipMasq: true, macspoofchk: true }
    const [one, two] = [newPod(options), newPod(options)]
    const result = resultOf(await at.node.call('ADD', one.it))
    at.node.run('nft', 'flush', 'ruleset')
    assert.equal(errorOf(await checkOf(one.it, result)).code, 103)
    resultOf(await at.node.call('ADD', two.it))
    assert.deepEqual(silent(await checkOf(one.it, result)), RELEASED)
    for (const { it } of [one, two]) await at.node.call('DEL', it)
    // Sets of prefix lengths that nobody needs now are not made again.
    const { it } = newPod({ ...options, ipam: hostLocal(at.node, v4, v6) })
    resultOf(await at.node.call('ADD', it))
    await at.node.call('DEL', it)
    at.keep()
  })

  /** After a flush: what of the tables an earlier pod had brought, for the tests that follow. */
  async function bringTheTable(): Promise<void> {
    const { it } = newPod({ ipMasq: true, macspoofchk: true, ipam: hostLocal(at.node, v4, v6) })
    resultOf(await at.node.call('ADD', it))
    await at.node.call('DEL', it)
    at.keep()
  }

  test('a rule set that somebody flushed is there again after a while, and nothing that no pod needs', async () => {
    await at.agent.kill('SIGTERM')
    at.agent = await at.node.startAgent({ reconcile: 1 })
    const { it } = newPod({ ipMasq: true, macspoofchk: true })
    const result = resultOf(await at.node.call('ADD', it))
    at.node.run('nft', 'flush', 'ruleset')
    const rules = () => at.node.run('nft', 'list', 'ruleset')
    await eventually(
      'the elements are back',
      () => /masquerade_v4[^}]*comment/.test(rules()) && /link_macs/.test(rules()),
    )
    assert.deepEqual(silent(await checkOf(it, result)), RELEASED)
    assert.doesNotMatch(rules(), /pod_addresses/)
    await at.node.call('DEL', it)
    await bringTheTable()
  })

  test('a rule set that an ADD made again is filled again although that ADD failed', async () => {
    await at.agent.kill('SIGTERM')
    at.agent = await at.node.startAgent({ reconcile: 1 })
    const { it } = newPod({ ipMasq: true })
    const result = resultOf(await at.node.call('ADD', it))
    const refused = { ...hostLocal(at.node, v4), routes: [{ dst: '198.51.100.0/24', gw: '203.0.113.1' }] }
    const { it: failing } = newPod({ ipMasq: true, ipam: refused })
    at.node.run('nft', 'flush', 'ruleset')
    assert.match(errorOf(await at.node.call('ADD', failing)).msg, /198\.51\.100\.0\/24/)
    await eventually('the elements are back', () =>
      /masquerade_v4[^}]*comment/.test(at.node.run('nft', 'list', 'ruleset')),
    )
    assert.deepEqual(silent(await checkOf(it, result)), RELEASED)
    await at.node.call('DEL', it)
    await at.node.call('DEL', failing)
    await bringTheTable()
  })

  // At once, and when something fails

  test('64 ADDs at once stand, as many DELs leave nothing', async t => {
    const all = makeManyNetns('pod', 64).map((netns, index) => ({
      ...{ containerId: `p${index}`, netns, type: 'bridge' },
      config: bridgeConfig(at.node, { ipMasq: true, macspoofchk: true }),
    }))
    const begin = performance.now()
    const results = (await Promise.all(all.map(it => at.node.call('ADD', it)))).map(resultOf)
    t.diagnostic(`64 ADDs in ${Math.round(performance.now() - begin)} ms`)
    assert.equal(new Set(results.map(({ ips }) => ips[0].address)).size, 64)
    assert.equal(at.node.ip('-o link show master cni0').trim().split('\n').length, 64)
    for (const index of [0, 31, 63]) assert.deepEqual(silent(await checkOf(all[index]!, results[index])), RELEASED)
    const ended = performance.now()
    for (const outcome of await Promise.all(all.map(it => at.node.call('DEL', it))))
      assert.deepEqual(silent(outcome), RELEASED)
    t.diagnostic(`64 DELs in ${Math.round(performance.now() - ended)} ms`)
    assertNothingLeft()
  })

  test('a fault in each netlink request is an error that names it, and nothing is left', {
    skip: withoutStrace,
  }, async t => {
    const more = { ipMasq: true, macspoofchk: true, hairpinMode: true, ipam: hostLocal(at.node, v4, v6) }
    let failed = 0
    for (let when = 1; when <= 40; when++) {
      const { it } = newPod(more)
      const tracer = await attach(at.agent.pid, 'sendto', `error=ENOBUFS:when=${when}`)
      const outcome = await at.node.call('ADD', it)
      tracer.stop()
      await tracer.ended
      if (outcome.code === 0) {
        resultOf(await at.node.call('DEL', it))
        if (tracer.calls().length < when) break
        continue
      }
      const error = errorOf(outcome)
      assert.deepEqual([error.code, /\(ENOBUFS\)/.test(error.msg)], [11, true], outcome.stdout)
      // strace counts for each thread: the one that takes back may have met the fault as well, and left it to DEL.
      resultOf(await at.node.call('DEL', it))
      assertNothingLeft(`after ENOBUFS in request ${when}`)
      failed++
    }
    t.diagnostic(`failed: ${failed} requests`)
    assert.ok(failed >= 6, `${failed}`)
  })

  test('ADD and DEL start no process', { skip: withoutStrace }, async () => {
    const tracer = await attach(at.agent.pid, 'execve,execveat,fork,vfork,clone,clone3')
    const { it } = newPod({ ipMasq: true, macspoofchk: true })
    for (const verb of ['ADD', 'DEL'] as const) resultOf(await at.node.call(verb, it))
    tracer.stop()
    await tracer.ended
    assert.deepEqual(tracer.calls(), [])
  })

  // VLANs

  test('ADD: a bridge that does not filter VLANs is refused for a network with one (BR-03)', async () => {
    const error = errorOf(await at.node.call('ADD', newPod({ vlan: 100 }).it))
    assert.deepEqual([error.code, error.msg], [7, 'Cannot use VLANs on bridge cni0: it does not filter them'])
    assertNothingLeft()
  })
})

describe('bridge, standalone', { skip }, () => {
  test('the first ADDs at once make one bridge with one gateway, and DEL leaves just those', async () => {
    const node = makeLab({ mode: 'standalone' }).nodes[0]!
    const all = makeManyNetns('pod', 8).map((netns, index) => ({
      ...{ containerId: `p${index}`, netns, type: 'bridge' },
      config: bridgeConfig(node, { ipMasq: true, macspoofchk: true, ipam: hostLocal(node, v4, v6) }),
    }))
    const results = (await Promise.all(all.map(it => node.call('ADD', it)))).map(resultOf)
    assert.equal(new Set(results.map(({ interfaces }) => interfaces[0].mac)).size, 1)
    assert.equal(node.ip('-o -4 addr show cni0').trim().split('\n').length, 1)
    assert.deepEqual(silent(await node.call('CHECK', all[0]!, { more: { prevResult: results[0] } })), RELEASED)
    for (const outcome of await Promise.all(all.map(it => node.call('DEL', it))))
      assert.deepEqual(silent(outcome), RELEASED)
    assert.doesNotMatch(node.ip('-o link'), /veth/)
    assert.doesNotMatch(node.run('nft', 'list', 'ruleset'), /elements/)
    assert.match(node.ip('-o -4 addr show cni0'), / 10\.1\.0\.1\/16 /)
  })
})
