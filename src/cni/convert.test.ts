// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { checkExpressible, decodeResult, encodeResult } from './convert.ts'
import type { Result } from './result.ts'
import { supportedVersions } from './versions.ts'

const full: Result = {
  interfaces: [
    { name: 'veth1', mac: '02:00:00:00:00:01' },
    {
      name: 'eth0',
      mac: '02:00:00:00:00:02',
      mtu: 1450,
      sandbox: '/run/netns/x',
      socketPath: '/s',
      pciID: '0000:00:1f.6',
    },
  ],
  ips: [
    { address: '10.0.0.2/24', gateway: '10.0.0.1', interface: 1 },
    { address: 'fd00::2/64', gateway: 'fd00::1', interface: 1 },
    { address: '10.0.0.3/24', interface: 1 },
  ],
  routes: [
    { dst: '0.0.0.0/0', gw: '10.0.0.1', mtu: 1400, advmss: 1360, priority: 5, table: 0, scope: 0 },
    { dst: '::/0' },
  ],
  dns: { nameservers: ['10.0.0.1'], domain: 'x', search: ['y'], options: ['z'] },
}

test('encodeResult() 0.2.0 keeps the first address of each family and splits the routes', () => {
  assert.equal(
    JSON.stringify(encodeResult(full, '0.2.0')),
    '{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.2/24","gateway":"10.0.0.1","routes":[{"dst":"0.0.0.0/0","gw":"10.0.0.1"}]},' +
      '"ip6":{"ip":"fd00::2/64","gateway":"fd00::1","routes":[{"dst":"::/0"}]},' +
      '"dns":{"nameservers":["10.0.0.1"],"domain":"x","search":["y"],"options":["z"]}}',
  )
})

test('encodeResult() 0.4.0 adds ips[].version, drops what 1.1.0 added to interfaces and keeps route fields', () => {
  const { interfaces, ips, routes } = encodeResult(full, '0.4.0')
  assert.equal(
    JSON.stringify({ interfaces, ips, routes }),
    '{"interfaces":[{"name":"veth1","mac":"02:00:00:00:00:01"},{"name":"eth0","mac":"02:00:00:00:00:02","sandbox":"/run/netns/x"}],' +
      '"ips":[{"version":"4","interface":1,"address":"10.0.0.2/24","gateway":"10.0.0.1"},' +
      '{"version":"6","interface":1,"address":"fd00::2/64","gateway":"fd00::1"},{"version":"4","interface":1,"address":"10.0.0.3/24"}],' +
      '"routes":[{"dst":"0.0.0.0/0","gw":"10.0.0.1","mtu":1400,"advmss":1360,"priority":5,"table":0,"scope":0},{"dst":"::/0"}]}',
  )
})

test('encodeResult() 1.1.0 sorts keys and carries everything', () => {
  assert.equal(
    JSON.stringify(encodeResult(full, '1.1.0')),
    '{"cniVersion":"1.1.0","dns":{"domain":"x","nameservers":["10.0.0.1"],"options":["z"],"search":["y"]},' +
      '"interfaces":[{"mac":"02:00:00:00:00:01","name":"veth1"},{"mac":"02:00:00:00:00:02","mtu":1450,"name":"eth0",' +
      '"pciID":"0000:00:1f.6","sandbox":"/run/netns/x","socketPath":"/s"}],' +
      '"ips":[{"address":"10.0.0.2/24","gateway":"10.0.0.1","interface":1},' +
      '{"address":"fd00::2/64","gateway":"fd00::1","interface":1},{"address":"10.0.0.3/24","interface":1}],' +
      '"routes":[{"advmss":1360,"dst":"0.0.0.0/0","gw":"10.0.0.1","mtu":1400,"priority":5,"scope":0,"table":0},{"dst":"::/0"}]}',
  )
})

test('encodeResult() prints an empty dns up to 0.4.0 and none from 1.0.0', () => {
  const ips = [{ address: '10.0.0.2/24' }]
  for (const version of supportedVersions)
    assert.equal('dns' in encodeResult({ ips }, version), version < '1.0.0', version)
})

test('decodeResult() reads back what encodeResult() wrote, from 1.0.0 on without loss', () => {
  for (const version of ['1.0.0', '1.1.0'] as const)
    assert.deepEqual(decodeResult(encodeResult(full, version), version), full)
  for (const version of supportedVersions) {
    const once = encodeResult(full, version)
    assert.deepEqual(encodeResult(decodeResult(once, version), version), once)
  }
})

test('decodeResult() of 0.2.0 gives IPv4 before IPv6, and no interfaces', () => {
  assert.deepEqual(
    decodeResult({ ip6: { ip: 'fd00::2/64', routes: [{ dst: '::/0' }] }, ip4: { ip: '10.0.0.2/24' } }, '0.2.0'),
    { ips: [{ address: '10.0.0.2/24' }, { address: 'fd00::2/64' }], routes: [{ dst: '::/0' }] },
  )
})

test('decodeResult() takes null and {} for an empty result', () => {
  assert.deepEqual(decodeResult(null, '1.0.0'), {})
  assert.deepEqual(decodeResult({}, '1.0.0'), {})
  assert.deepEqual(decodeResult({ cniVersion: '', ips: null }, '0.2.0'), {})
})

test('decodeResult() writes addresses canonically', () => {
  const { ips } = decodeResult(
    { ips: [{ address: 'FD00:0::1/64', gateway: 'FE80::1' }, { address: '::ffff:1.2.3.4/120' }] },
    '1.0.0',
  )
  assert.deepEqual(ips, [{ address: 'fd00::1/64', gateway: 'fe80::1' }, { address: '1.2.3.4/24' }])
})

test('decodeResult() keeps table and scope 0, and takes metrics of 0 for absent', () => {
  const { routes } = decodeResult(
    { routes: [{ dst: '10.0.0.0/8', gw: '', mtu: 0, advmss: 0, priority: 0, table: 0, scope: 0 }] },
    '1.1.0',
  )
  assert.deepEqual(routes, [{ dst: '10.0.0.0/8', table: 0, scope: 0 }])
})

test('decodeResult() refuses nonsense with code 7 and names the key', () => {
  const cases: [object, RegExp][] = [
    [{ ips: {} }, /"ips" is an object/],
    [{ ips: [{}] }, /"ips\[0\].address" is missing/],
    [{ ips: [{ address: '010.0.0.1/24' }] }, /"ips\[0\].address" is "010.0.0.1\/24", want ADDRESS\/LENGTH/],
    [{ ips: [{ address: 'fe80::1%eth0/64' }] }, /ADDRESS\/LENGTH/],
    [{ ips: [{ address: '10.0.0.1' }] }, /ADDRESS\/LENGTH/],
    [{ ips: [{ address: '10.0.0.1/24', interface: 99 }] }, /"ips\[0\].interface" is 99, but there are 0 interfaces/],
    [{ ips: [{ address: '10.0.0.1/24', interface: -1 }] }, /"ips\[0\].interface" is -1/],
    [{ interfaces: [{ name: 5 }] }, /"interfaces\[0\].name" is a number/],
    [{ routes: [{ dst: 'default' }] }, /"routes\[0\].dst"/],
    [{ cniVersion: 1 }, /"cniVersion" is a number/],
    [{ cniVersion: '0.2.0' }, /its cniVersion is "0.2.0", the configuration's is "1.0.0"/],
    [{ cniVersion: '9.9.9' }, /its cniVersion is "9.9.9"/],
  ]
  for (const [value, message] of cases)
    assert.throws(() => decodeResult(value as never, '1.0.0'), { code: 7, message }, JSON.stringify(value))
})

test('decodeResult() reads an older format where the caller allows any', () => {
  const old = { cniVersion: '0.2.0', ip4: { ip: '10.0.0.2/24' } }
  assert.deepEqual(decodeResult(old, '1.0.0', { anyFamily: true }), { ips: [{ address: '10.0.0.2/24' }] })
})

test('checkExpressible() wants an address for formats older than 0.3.0', () => {
  for (const version of ['0.1.0', '0.2.0'])
    assert.throws(() => checkExpressible({}, version), { code: 7, message: 'cannot convert: no valid IP addresses' })
  checkExpressible({}, '0.3.0')
  checkExpressible({ ips: [{ address: '10.0.0.2/24' }] }, '0.1.0')
})
