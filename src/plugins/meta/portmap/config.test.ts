// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseIp } from '#base'
import { formatPort, parseConfig } from './config.ts'

const web = { hostPort: 8080, containerPort: 80, protocol: 'tcp' }
const mappingsOf = (...portMappings: object[]) =>
  parseConfig({ runtimeConfig: { portMappings } } as never).mappings.map(({ hostPort, podPort, host }) => [
    hostPort,
    podPort,
    host,
  ])

test('parseConfig: a port of any address is one of each family; an unspecified address is one of its own', () => {
  assert.deepEqual(mappingsOf(web), [
    [8080, 80, 'v4'],
    [8080, 80, 'v6'],
  ])
  assert.deepEqual(mappingsOf({ ...web, hostIP: '0.0.0.0' }), [[8080, 80, 'v4']])
  assert.deepEqual(mappingsOf({ ...web, hostIP: '::' }), [[8080, 80, 'v6']])
  assert.deepEqual(mappingsOf({ ...web, hostIP: '::ffff:10.0.0.1' }), [[8080, 80, parseIp('10.0.0.1')]])
})

test('parseConfig: the same mapping in other words is one', () => {
  assert.equal(mappingsOf({ ...web, hostIP: '0.0.0.0' }, web, { ...web, protocol: 'TCP', hostIP: '::' }).length, 2)
  assert.throws(() => mappingsOf(web, { ...web, hostIP: '::', containerPort: 81 }), /8080 is mapped twice/)
  assert.equal(mappingsOf(web, { ...web, protocol: 'udp', containerPort: 81 }).length, 4)
  assert.equal(mappingsOf(web, { ...web, hostIP: '10.0.0.1', containerPort: 81 }).length, 3)
})

test('parseConfig: keys in any case, null is absence, options have their defaults', () => {
  const { snat, masqAll, markBit, mappings, conditions } = parseConfig({
    SNAT: false,
    markMasqBit: null,
    conditionsV4: null,
    runtimeConfig: { PortMappings: [{ HOSTPORT: 1, ContainerPort: 2, Protocol: 'udp' }] },
  } as never)
  assert.deepEqual([snat, masqAll, markBit, mappings.length, conditions], [false, false, 13, 2, { v4: [], v6: [] }])
  assert.deepEqual(parseConfig({}).mappings, [])
})

test('parseConfig: without a back end either language is understood, not both', () => {
  assert.equal(parseConfig({ conditionsV4: ['ip', 'saddr', '10.0.0.1'] } as never).conditions.v4.length, 1)
  assert.equal(
    parseConfig({ conditionsV4: ['-s', '10.0.0.1', '!', '-d', '10.0.0.0/8'] } as never).conditions.v4.length,
    2,
  )
  assert.throws(
    () => parseConfig({ conditionsV4: ['-s', '10.0.0.1'], conditionsV6: ['ip6 saddr ::1'] } as never),
    /^CniError: iptables backend was requested but configuration contains nftables-specific options \[conditionsV6\]$/,
  )
})

test('formatPort: as it is written in a URL, with the protocol', () => {
  assert.equal(formatPort({ protocol: 6, hostPort: 80 }), '80/tcp')
  assert.equal(formatPort({ protocol: 132, hostPort: 80, hostIp: parseIp('10.0.0.1') }), '10.0.0.1:80/sctp')
  assert.equal(formatPort({ protocol: 17, hostPort: 80, hostIp: parseIp('fd00::1') }), '[fd00::1]:80/udp')
})
