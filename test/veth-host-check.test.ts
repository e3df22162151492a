// SPDX-License-Identifier: Apache-2.0

// Goal: CHECK, STATUS and GC of veth-host, through an agent. Pods have a macvlan of the node's NIC. Needs root.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { assertSameState, errorOf, resultOf, skip } from './nodelab.ts'
import { BY_NODE, released, silent, vethHostLab } from './veth-host/lab.ts'
import { configOf, type Pod } from './veth-host/pods.ts'

describe('veth-host, agent, CHECK, STATUS and GC', { skip }, () => {
  const at = vethHostLab('agent')
  const { newPod, call, assertNothingLeft } = at

  test('CHECK names each part that is missing or other than it was', async () => {
    /** `undo`: what DEL leaves, since it is not what ADD made. */
    type Break = [what: string, damage: (pod: Pod, host: string) => void, text: RegExp, undo?: () => void]
    const commonBreaks: Break[] = [
      [
        'host route',
        (pod, host) => at.node.ip(`route del ${pod.v4} dev ${host}`),
        /route \S+ dev veth\w+ is missing on the node/,
      ],
      [
        'IPv6 host route',
        (pod, host) => at.node.ip(`-6 route del ${pod.v6} dev ${host}`),
        /route fd00:\S+ dev veth\w+ is missing on the node/,
      ],
      [
        'rule 1024',
        (_, host) => at.node.ip(`rule del iif ${host} pref 1024`),
        /rule 1024 iif veth\w+ lookup 256 is missing on the node/,
      ],
      [
        'rule 1023',
        (_, host) => at.node.ip(`-6 rule del iif ${host} pref 1023`),
        /rule 1023 fwmark 0x2000 iif veth\w+ lookup 254 is missing on the node/,
      ],
      [
        'table',
        () => at.node.ip('route flush table 256'),
        /route default via \S+ dev veth\w+ table 256 is missing on the node/,
      ],
      [
        'neighbour',
        (pod, host) => at.node.ip(`neigh del ${pod.v4} dev ${host}`),
        /neighbour \S+ lladdr \S+ dev veth\w+ is missing on the node/,
      ],
      ['link down', (_, host) => at.node.ip(`link set ${host} down`), /link veth\w+ on the node is down/],
      [
        'MAC',
        (_, host) => at.node.ip(`link set ${host} address 02:00:00:00:00:01`),
        /link veth\w+ on the node has MAC 02:00:00:00:00:01, not/,
      ],
      ['MTU', (_, host) => at.node.ip(`link set ${host} mtu 1400`), /link veth\w+ on the node has MTU 1400, not 1500/],
      [
        'MTU in the pod',
        pod => pod.netns.ip('link set veth0 mtu 1400'),
        /link veth0 in the pod has MTU 1400, not 1500/,
      ],
      [
        'another pair',
        pod => {
          const [{ address }] = JSON.parse(pod.netns.ip('-j link show veth0')) as [{ address: string }]
          pod.netns.ip('link set veth0 name veth9 down')
          pod.netns.ip(`link add veth0 address ${address} type veth peer name veth8`)
        },
        /link veth0 in the pod is not the other end of veth\w+/,
      ],
      [
        'strict link',
        (_, host) => at.node.run('sysctl', '-qw', `net.ipv4.conf.${host}.rp_filter=1`),
        /rp_filter of veth\w+ is strict on the node/,
      ],
      [
        'strict in the pod',
        pod => pod.netns.run('sysctl', '-qw', 'net.ipv4.conf.veth0.rp_filter=1'),
        /rp_filter of veth0 is strict in the pod/,
      ],
      ['alias', (_, host) => at.node.ip(`link set ${host} alias other`), /is not of this attachment/],
      [
        'strict',
        () => at.node.run('sysctl', '-qw', 'net.ipv4.conf.eth0.rp_filter=1'),
        /rp_filter of eth0 is strict on the node/,
      ],
      [
        'forwarding',
        () => at.node.run('sysctl', '-qw', 'net.ipv4.ip_forward=0'),
        /net.ipv4.ip_forward is off on the node/,
      ],
      [
        'element',
        (pod, host) => at.node.run('nft', `delete element inet mooring veth_host_addresses_v4 { ${host} . ${pod.v4} }`),
        /element veth\w+ . \S+ of set inet mooring veth_host_addresses_v4 is missing/,
      ],
      [
        'map',
        (pod, host) => at.node.run('nft', `delete element inet mooring veth_host_nodes_v6 { ${host} . ${pod.v6} }`),
        /of map inet mooring veth_host_nodes_v6 is missing/,
      ],
      [
        'rules',
        () => at.node.run('nft', 'flush', 'chain', 'inet', 'mooring', 'veth_host_snat'),
        /the rules of chain inet mooring veth_host_snat are not there/,
      ],
      [
        'veth in the pod',
        pod => pod.netns.ip('link del veth0'),
        /link veth\w+ on the node is missing.*link veth0 in the pod is missing/,
      ],
      ['link down in the pod', pod => pod.netns.ip('link set veth0 down'), /link veth0 in the pod is down/],
      [
        'MAC in the pod',
        pod => pod.netns.ip('link set veth0 address 02:00:00:00:00:01'),
        /link veth0 in the pod has MAC/,
      ],
      [
        'service route',
        pod => pod.netns.ip('route del 10.96.0.0/12'),
        /route 10.96.0.0\/12 via 10.10.10.8 dev veth0 is missing in the pod/,
      ],
      [
        'IPv6 service route',
        pod => pod.netns.ip('-6 route del fd00:96::/108'),
        /route fd00:96::\/108 via fd00:10::8 dev veth0 is missing in the pod/,
      ],
      [
        'route to the node',
        pod => pod.netns.ip('-6 route del fd00:10::8'),
        /route fd00:10::8\/128 dev veth0 is missing in the pod/,
      ],
      [
        'neighbour in the pod',
        pod => pod.netns.ip('neigh del 10.10.10.8 dev veth0'),
        /neighbour 10.10.10.8 lladdr \S+ dev veth0 is missing in the pod/,
      ],
      [
        'rule in the pod',
        pod => pod.netns.ip('rule del fwmark 0x2000/0x2000 pref 1024'),
        /rule 1024 fwmark 0x2000 lookup 256 is missing in the pod/,
      ],
      [
        'table in the pod',
        pod => pod.netns.ip('-6 route flush table 256'),
        /route default via fd00:10::8 dev veth0 table 256 is missing in the pod/,
      ],
      [
        'rules in the pod',
        pod => pod.netns.run('nft', 'flush', 'chain', 'inet', 'mooring-veth0', 'output'),
        /the rules of chain inet mooring-veth0 output are not there in the pod/,
      ],
      [
        'table of the pod',
        pod => pod.netns.run('nft', 'delete', 'table', 'inet', 'mooring-veth0'),
        /mooring-veth0 postrouting are not there/,
      ],
      [
        'forwarding in the pod',
        pod => pod.netns.run('sysctl', '-qw', 'net.ipv6.conf.all.forwarding=0'),
        /net.ipv6.conf.all.forwarding is off in the pod/,
      ],
      [
        'marks on the node',
        (_, host) => at.node.run('sysctl', '-qw', `net.ipv4.conf.${host}.src_valid_mark=0`),
        /net.ipv4.conf.veth\w+.src_valid_mark is off on the node/,
      ],
      [
        'mask of rule 1023',
        (_, host) => {
          const rule = `iif ${host} lookup main pref 1023 proto 98`
          at.node.ip(`rule del fwmark 0x2000/0x2000 ${rule}`)
          at.node.ip(`rule add fwmark 0x2000/0xffff ${rule}`)
        },
        /rule 1023 fwmark 0x2000 iif veth\w+ lookup 254 is missing on the node/,
      ],
      [
        'rule 1024 for some packets only',
        (_, host) => {
          at.node.ip(`rule del iif ${host} pref 1024`)
          at.node.ip(`rule add from 192.0.2.0/24 iif ${host} lookup 256 pref 1024 proto 98`)
        },
        /rule 1024 iif veth\w+ lookup 256 is missing on the node/,
      ],
      [
        'metric of the host route',
        (pod, host) => {
          at.node.ip(`route del ${pod.v4} dev ${host}`)
          at.node.ip(`route add ${pod.v4} dev ${host} metric 7 proto 98`)
        },
        /route \S+ dev veth\w+ on the node has metric 7, not 0/,
      ],
      [
        'MTU of the table',
        (pod, host) => at.node.ip(`route replace default via ${pod.v4} dev ${host} onlink table 256 mtu 1300`),
        /route default via \S+ dev veth\w+ table 256 on the node has MTU 1300, not none/,
      ],
      [
        'source of a service route',
        pod => {
          pod.netns.ip('addr add 10.77.0.1/32 dev lo')
          pod.netns.ip('route replace 10.96.0.0/12 via 10.10.10.8 dev veth0 src 10.77.0.1')
        },
        /route 10.96.0.0\/12 via 10.10.10.8 dev veth0 in the pod has source 10.77.0.1, not none/,
      ],
      [
        'neighbour that may be forgotten',
        pod => {
          const [{ lladdr }] = JSON.parse(pod.netns.ip('-j neigh show 10.10.10.8 dev veth0'))
          pod.netns.ip(`neigh replace 10.10.10.8 lladdr ${lladdr} dev veth0 nud stale`)
        },
        /neighbour 10.10.10.8 lladdr \S+ dev veth0 is missing in the pod/,
      ],
      [
        'advertisements in the pod',
        pod => pod.netns.run('sysctl', '-qw', 'net.ipv6.conf.eth0.accept_ra=1'),
        /net.ipv6.conf.eth0.accept_ra is 1, not 2, in the pod/,
      ],
      [
        'advertisements on the node',
        () => at.node.run('sysctl', '-qw', 'net.ipv6.conf.eth0.accept_ra=1'),
        /net.ipv6.conf.eth0.accept_ra is 1, not 2, on the node/,
        () => at.node.run('sysctl', '-qw', 'net.ipv6.conf.eth0.accept_ra=2'),
      ],
      [
        'addresses kept in the pod',
        pod => pod.netns.run('sysctl', '-qw', 'net.ipv6.conf.veth0.keep_addr_on_down=0'),
        /net.ipv6.conf.veth0.keep_addr_on_down is off in the pod/,
      ],
      [
        'detection in the pod',
        pod => pod.netns.run('sysctl', '-qw', 'net.ipv6.conf.veth0.accept_dad=1'),
        /net.ipv6.conf.veth0.accept_dad is 1, not 0, in the pod/,
      ],
      [
        'marks in the pod',
        pod => pod.netns.run('sysctl', '-qw', 'net.ipv4.conf.veth0.src_valid_mark=0'),
        /net.ipv4.conf.veth0.src_valid_mark is off in the pod/,
      ],
    ]
    const breaks: [object, Break[]][] = [
      [{}, commonBreaks],
      [
        BY_NODE,
        [
          [
            'default route',
            pod => pod.netns.ip('route del default'),
            /route default via 10.10.10.8 dev veth0 is missing in the pod/,
          ],
          [
            'rules of the NIC',
            pod => pod.netns.ip('rule del iif veth0'),
            /rule 1024 iif veth0 lookup 65792 is missing in the pod/,
          ],
          [
            'table of the NIC',
            pod => pod.netns.ip('route flush table 65792'),
            /the routes of table 65792, by eth0, are missing in the pod/,
          ],
        ],
      ],
    ]
    const drop = 'table ip filter { chain forward { type filter hook forward priority 0; policy drop; }; }'
    commonBreaks.push([
      'drop of others',
      () => at.node.run('nft', drop),
      /chain forward of table ip filter has policy drop/,
      () => at.node.run('nft', 'delete', 'table', 'ip', 'filter'),
    ])
    for (const [keys, cases] of breaks)
      for (const [what, damage, text, undo] of cases) {
        const pod = newPod()
        const result = resultOf(await call('ADD', pod, keys))
        const host = result.interfaces[1].name
        const [{ ifalias }] = JSON.parse(at.node.ip(`-j link show ${host}`))
        damage(pod, host)
        const error = errorOf(await call('CHECK', pod, { ...keys, prevResult: result }))
        assert.equal(error.code, 103, what)
        assert.match(`${error.msg}; ${error.details}`, text, what)
        // What the agent looks at once in a while: here the next ADD makes all anew.
        if (what === 'rules') at.node.run('nft', 'delete', 'table', 'inet', 'mooring')
        // With another alias it would be another's, and stay.
        if (what === 'alias') at.node.run('ip', 'link', 'set', host, 'alias', ifalias)
        resultOf(await call('DEL', pod, keys))
        undo?.()
        if (what === 'rules') await at.bringForGood()
        assertNothingLeft(what)
      }
  })

  test('STATUS: the host interface, and a foreign drop of what is forwarded', async () => {
    const status = (more: object = {}) =>
      at.node.call(
        'STATUS',
        { containerId: '', netns: '', type: 'veth-host' },
        { more: configOf({ cniVersion: '1.1.0', ...more }) },
      )
    assert.deepEqual(silent(await status()), released)
    const missing = errorOf(await status({ hostInterface: 'eth9' }))
    assert.deepEqual([missing.code, missing.msg], [50, 'Cannot find host interface "eth9"'])
    at.node.run('nft', 'table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }')
    const dropped = errorOf(await status())
    assert.equal(dropped.code, 50)
    assert.match(dropped.msg, /chain FORWARD of table ip filter has policy drop drops what is forwarded/)
    assert.deepEqual(silent(await status({ allowForwardDrop: true })), released)
    at.node.run('nft', 'delete', 'table', 'ip', 'filter')
  })

  test('GC: releases what the runtime does not name, and leaves the others', async () => {
    const [stays, goes] = [newPod(), newPod()]
    const result = resultOf(await call('ADD', stays))
    const withOne = at.node.state()
    resultOf(await call('ADD', goes))
    await new Promise(resolve => setTimeout(resolve, 150))
    const valid = [{ containerID: stays.it.containerId, ifname: 'eth0' }]
    const more = configOf({ cniVersion: '1.1.0', 'cni.dev/valid-attachments': valid })
    resultOf(await at.node.call('GC', { containerId: '', netns: '', type: 'veth-host' }, { more }))
    assertSameState(at.node.state(), withOne)
    assert.deepEqual(silent(await call('CHECK', stays, { prevResult: result })), released)
    resultOf(await call('DEL', stays))
    assertNothingLeft()
  })

  test('ADD: rules that somebody flushed are made again, and the other pods have theirs', async () => {
    const [first, second] = [newPod(), newPod()]
    const results = [resultOf(await call('ADD', first))]
    at.node.run('nft', 'flush', 'ruleset')
    results.push(resultOf(await call('ADD', second)))
    for (const [index, pod] of [first, second].entries()) {
      assert.deepEqual(silent(await call('CHECK', pod, { prevResult: results[index] })), released)
      resultOf(await call('DEL', pod))
    }
    at.keep()
  })
})
