// SPDX-License-Identifier: Apache-2.0

// Goal: `host-local` takes and refuses the configurations that the reference does, and gives the addresses that it asks for:
// items HL-01 to HL-14 and HL-21 to HL-27. Method: the installed executable, called as an IPAM plugin. Needs root.

import assert from 'node:assert/strict'
import { existsSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { errorOf, folder, missing, resultOf } from './harness.ts'
import { type Ipam, Network, twoSets } from './host-local.ts'

suite('HL host-local, the configuration', { skip: missing }, () => {
  test('HL-01 old style and new style together give an address each, the old one first', async () => {
    const network = new Network({
      subnet: '10.1.2.0/24',
      rangeStart: '10.1.2.9',
      ranges: [[{ subnet: '10.2.2.0/24' }]],
    })
    assert.deepEqual(await network.add('c1'), ['10.1.2.9', '10.2.2.2'])
  })

  test('HL-02 a set gives one address, its ranges stand in for one another in order', async () => {
    const network = new Network({
      ranges: [[{ subnet: '10.1.2.0/30' }, { subnet: '10.1.3.0/30' }], [{ subnet: 'fd00::/64' }]],
    })
    assert.deepEqual(await network.add('c1'), ['10.1.2.2', 'fd00::2'])
    assert.deepEqual(await network.add('c2'), ['10.1.3.2', 'fd00::3'])
  })

  test('HL-03 sets of the runtime come before all others', async () => {
    const network = new Network(twoSets)
    const ipRanges = [[{ subnet: '10.9.0.0/24' }], [{ subnet: 'fd00:9::/64' }]]
    const addresses = await network.add('c1', {}, { runtimeConfig: { ipRanges } })
    assert.deepEqual(addresses, ['10.9.0.2', 'fd00:9::2', '10.1.2.2', '10.2.2.2'])
  })

  test('HL-04 without ranges, or without ipam, nothing can be given', async () => {
    assert.match(await new Network({}).refusal('c1'), /no IP ranges specified/)
    assert.match(await new Network().refusal('c1', {}, { ipam: undefined }), /IPAM config missing 'ipam' key/)
  })

  test('HL-05 HL-06 HL-08 HL-11 ranges that cannot be are refused with the reference texts and code 7', async () => {
    const cases: [Ipam, string][] = [
      [{ subnet: '10.1.2.0/31' }, 'Network 10.1.2.0/31 too small to allocate from'],
      [{ subnet: '10.1.2.0/32' }, 'Network 10.1.2.0/32 too small to allocate from'],
      [{ subnet: 'fd00::/127' }, 'Network fd00::/127 too small to allocate from'],
      [
        { subnet: '10.1.2.3/24' },
        'Network has host bits set. For a subnet mask of length 24 the network address is 10.1.2.0',
      ],
      [{ subnet: '10.1.2.0/24', rangeStart: '10.1.3.1' }, 'RangeStart 10.1.3.1 not in network 10.1.2.0/24'],
      [{ subnet: '10.1.2.0/24', rangeEnd: '10.1.3.1' }, 'RangeEnd 10.1.3.1 not in network 10.1.2.0/24'],
      [
        { subnet: '10.1.2.0/24', rangeStart: '10.1.2.9', rangeEnd: '10.1.2.8' },
        'RangeStart 10.1.2.9 not in network 10.1.2.0/24',
      ],
      [{ ranges: [[{ subnet: '10.1.2.0/24' }, { subnet: 'fd00::/64' }]] }, 'mixed address families'],
      [{ ranges: [[{ subnet: '10.1.0.0/16' }, { subnet: '10.1.2.0/24' }]] }, 'overlap'],
      [{ ranges: [[{ subnet: '10.1.0.0/16' }], [{ subnet: '10.1.2.0/24' }]] }, 'range set 0 overlaps with 1'],
    ]
    for (const [ipam, text] of cases) {
      const network = new Network(ipam)
      const error = errorOf(await network.call('ADD', 'c1'))
      assert.equal(error.code, 7, error.msg)
      assert.ok(error.msg.includes(text), error.msg)
      if (!text.startsWith('range set')) assert.match(error.msg, /^invalid range set 0: /)
      assert.equal(existsSync(network.directory), false, text)
    }
  })

  test('HL-07 the defaults leave out network, gateway and broadcast', async () => {
    const network = new Network({ subnet: '10.1.2.0/29' })
    const given: string[] = []
    for (const id of ['c1', 'c2', 'c3', 'c4', 'c5']) given.push(...(await network.add(id)))
    assert.deepEqual(given, ['10.1.2.2', '10.1.2.3', '10.1.2.4', '10.1.2.5', '10.1.2.6'])
    await network.refusal('c6')
    const v6 = new Network({ subnet: 'fd00::/126' })
    assert.deepEqual([await v6.add('c1'), await v6.add('c2')], [['fd00::2'], ['fd00::3']])
  })

  test('HL-09 network and broadcast address are given where the range names them', async () => {
    const network = new Network({ subnet: '10.1.2.0/30', rangeStart: '10.1.2.0', rangeEnd: '10.1.2.3' })
    const given = [await network.add('c1'), await network.add('c2'), await network.add('c3')]
    assert.deepEqual(given.flat(), ['10.1.2.0', '10.1.2.2', '10.1.2.3'])
  })

  test('HL-10 a gateway may lie outside of the subnet', async () => {
    const network = new Network({ subnet: '10.1.2.0/24', gateway: '192.0.2.1' })
    const { ips } = resultOf(await network.call('ADD', 'c1'))
    assert.deepEqual(ips, [{ address: '10.1.2.1/24', gateway: '192.0.2.1' }])
  })

  test('HL-12 formats older than 0.3.0 have room for one address of a family', async () => {
    const network = new Network(twoSets)
    const text = 'CNI version 0.2.0 does not support more than 1 address per family'
    assert.equal(await network.refusal('c1', {}, { cniVersion: '0.2.0' }), text)
    const both = new Network({ ranges: [[{ subnet: '10.1.2.0/24' }], [{ subnet: 'fd00::/64' }]] })
    const result = resultOf(await both.call('ADD', 'c1', {}, { cniVersion: '0.2.0' }))
    assert.deepEqual([result.ip4.ip, result.ip6.ip], ['10.1.2.2/24', 'fd00::2/64'])
  })

  test('HL-13 the result has the length of the subnet, the gateway, the routes and no interface', async () => {
    const routes = [{ dst: '0.0.0.0/0' }, { dst: '10.8.0.0/16', gw: '10.1.2.254', mtu: 1400 }]
    const network = new Network({ subnet: '10.1.2.0/23', rangeStart: '10.1.3.7', routes })
    assert.deepEqual(resultOf(await network.call('ADD', 'c1')), {
      cniVersion: '1.1.0',
      ips: [{ address: '10.1.3.7/23', gateway: '10.1.2.1' }],
      routes,
    })
  })

  test('HL-14 resolvConf is read, and has to be there', async () => {
    const file = join(folder('etc'), 'resolv.conf')
    const network = new Network({ subnet: '10.1.2.0/24', resolvConf: file })
    assert.match(await network.refusal('c1'), /resolvConf.*ENOENT/)
    assert.deepEqual(network.reserved(), [])
    writeFileSync(
      file,
      '# a\n; b\nnameserver 10.0.0.53\n nameserver fd00::53 # kept out\ndomain example.net\n' +
        'search a.example b.example\nsearch c.example\noptions ndots:5 rotate\nsortlist 10.0.0.0\nnameserver\n',
    )
    assert.deepEqual(resultOf(await network.call('ADD', 'c1')).dns, {
      nameservers: ['10.0.0.53', 'fd00::53'],
      domain: 'example.net',
      search: ['a.example', 'b.example', 'c.example'],
      options: ['ndots:5', 'rotate'],
    })
  })

  test('ENV-24 ENV-26 ENV-27 keys in any case, wrong types and unknown arguments as errors that name them', async () => {
    const network = new Network({ SUBNET: '10.1.2.0/24', RangeStart: '10.1.2.5', gateway: '' })
    assert.deepEqual(await network.add('c1', { CNI_ARGS: 'IgnoreUnknown=1;K8S_POD_NAME=p' }), ['10.1.2.5'])
    assert.match(await network.refusal('c2', { CNI_ARGS: 'FOO=1' }), /unknown args \["FOO=1"\]/)
    assert.match(await network.refusal('c2', { CNI_ARGS: 'IP=10.1.2.300' }), /IP/)
    for (const [ipam, name] of [
      [{ subnet: 1 }, 'ipam.subnet'],
      [{ subnet: '10.1.2.0/24', gateway: 'x' }, 'ipam.gateway'],
      [{ ranges: {} }, 'ipam.ranges'],
      [{ ranges: [[{ subnet: 'x' }]] }, 'ipam.ranges[0][0].subnet'],
      [{ subnet: '10.1.2.0/24', dataDir: 7 }, 'ipam.dataDir'],
      [{ subnet: '010.1.2.0/24' }, 'ipam.subnet'],
    ] as [Ipam, string][]) {
      const error = errorOf(await new Network(ipam).call('ADD', 'c1'))
      assert.deepEqual([error.code, error.msg.includes(`"${name}"`)], [7, true], error.msg)
    }
  })
})

suite('HL host-local, requested addresses', { skip: missing }, () => {
  test('HL-21 three sources, each once, each from the first set that has it', async () => {
    const network = new Network({
      ranges: [[{ subnet: '10.1.2.0/24' }], [{ subnet: '10.2.2.0/24' }], [{ subnet: 'fd00::/64' }]],
    })
    const addresses = await network.add(
      'c1',
      { CNI_ARGS: 'IP=10.2.2.7/24' },
      { args: { cni: { ips: ['fd00::7', '10.2.2.7'] } }, runtimeConfig: { ips: ['10.1.2.7/24', 'fd00:0::7/64'] } },
    )
    assert.deepEqual(addresses, ['10.1.2.7', '10.2.2.7', 'fd00::7'])
  })

  test('HL-22 what no set has is refused, and nothing stays', async () => {
    const network = new Network(twoSets)
    const text = 'failed to allocate all requested IPs: 192.0.2.1'
    assert.equal(await network.refusal('c1', { CNI_ARGS: 'IP=192.0.2.1' }), text)
    assert.deepEqual(network.reserved(), [])
  })

  test('HL-23 the gateway and a taken address are refused', async () => {
    const network = new Network()
    await network.add('c1')
    assert.match(await network.refusal('c2', { CNI_ARGS: 'IP=10.1.2.1' }), /requested ip 10.1.2.1 is subnet's gateway/)
    const taken = /requested IP address 10.1.2.2 is not available in range set 10.1.2.1-10.1.2.254/
    assert.match(await network.refusal('c2', { CNI_ARGS: 'IP=10.1.2.2' }), taken)
    assert.equal(network.text('10.1.2.2'), 'c1\r\neth0')
  })

  test('HL-24 a requested address counts as the last one', async () => {
    const network = new Network()
    await network.add('c1', { CNI_ARGS: 'IP=10.1.2.50' })
    assert.equal(network.text('last_reserved_ip.0'), '10.1.2.50')
    assert.deepEqual(await network.add('c2'), ['10.1.2.51'])
  })
})

suite('HL host-local, twice and half', { skip: missing }, () => {
  test('HL-25 a second ADD is refused with code 104, another interface is not', async () => {
    const network = new Network()
    await network.add('c1')
    const error = errorOf(await network.call('ADD', 'c1'))
    const text = '10.1.2.2 has been allocated to c1, duplicate allocation is not allowed'
    assert.deepEqual([error.code, error.msg], [104, `failed to allocate for range 0: ${text}`])
    assert.deepEqual(await network.add('c1', { CNI_IFNAME: 'net1' }), ['10.1.2.3'])
  })

  test('HL-26 a second ADD with another wanted address is refused too, and the living addresses stay', async () => {
    const network = new Network(twoSets)
    await network.add('c1')
    await network.refusal('c1', { CNI_ARGS: 'IP=10.1.2.99' })
    await network.refusal('c1', { CNI_ARGS: 'IP=10.2.2.99' })
    await network.refusal('c1')
    assert.deepEqual(network.reserved(), ['10.1.2.2', '10.2.2.2'])
    // One of two sets: what the container has elsewhere stays, and nothing is added to it.
    unlinkSync(network.file('10.1.2.2'))
    await network.refusal('c1', { CNI_ARGS: 'IP=10.1.2.99' })
    assert.deepEqual(network.reserved(), ['10.2.2.2'])
  })

  test('HL-27 a set that is full releases what the call took from the others', async () => {
    const network = new Network({ ranges: [[{ subnet: '10.1.2.0/24' }], [{ subnet: '10.2.2.0/30' }]] })
    await network.add('c1')
    assert.match(await network.refusal('c2'), /failed to allocate for range 1/)
    assert.deepEqual(network.reserved(), ['10.1.2.2', '10.2.2.2'])
  })
})
